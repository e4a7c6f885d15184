//! The keys of `[ingest]`: the door for updates by HTTP.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use serde_json::Value as Json;

use super::admin::AdminConfig;
use super::fault::Problem;
use super::hook::{self, HookConfig};
use super::model::{Config, Purpose};
use super::parse::{duration, flag, integer, listen, rate, text};
use super::reader::{Reader, Section, Shape};
use super::target::{header_name, name, type_pattern};
use super::tls::{self, OwnCertificate};
use lanekeeper_core::pacing::Rate;
use lanekeeper_core::routes::TypePattern;
use lanekeeper_core::secret::{MASK, Secret};

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 512;

const CONFIRM_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const REMEMBER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(900);
/// The most bytes that may wait: 64 GiB.
const BYTES_MAX: u64 = 1 << 36;

/// `[ingest]`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestConfig {
    /// Where the door is; `None` only if it is not for [`Purpose::Ingest`].
    pub listen: Option<SocketAddr>,
    /// How long a request waits for the broker's confirm; 1 second to 5 minutes.
    pub confirm_timeout: Duration,
    /// Updates that wait for their confirm.
    pub pending_max: NonZeroUsize,
    /// Their bytes.
    pub pending_bytes_max: usize,
    /// Of one record.
    pub pending_per_record_max: NonZeroUsize,
    /// Connections at once.
    pub connections_max: NonZeroUsize,
    /// Updates of one request; at most `pending_max`.
    pub batch_lines_max: NonZeroUsize,
    /// Bytes of one request with several updates; at most `pending_bytes_max`.
    pub batch_bytes_max: usize,
    /// How long a confirmed update is known; zero: not at all.
    pub remember: Duration,
    /// Whether updates without an id are refused.
    pub require_id: bool,
    /// After SIGTERM, what waits has so long.
    pub drain_timeout: Duration,
    /// What the door shows of itself; `None`: it speaks plain HTTP.
    pub tls: Option<IngestTls>,
    /// Who may send; at least one, or a hook, for [`Purpose::Ingest`].
    pub clients: Vec<ClientConfig>,
    /// Webhooks of others.
    pub hooks: Vec<HookConfig>,
}

/// `[ingest.tls]`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestTls {
    /// The certificate of the door.
    pub own: OwnCertificate,
    /// Authorities; a client must have a certificate of one of them. Empty: it needs none.
    pub client_authorities: Vec<CertificateDer<'static>>,
}

/// `[[ingest.client]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// In logs and metrics; unique.
    pub name: String,
    /// Any of them shows who it is; at least one.
    pub tokens: Vec<Secret>,
    /// The header with the token, in lower case. `authorization`: `Bearer TOKEN`, or Basic with the token as password.
    pub header: String,
    /// The types that it may send; at least one.
    pub types: Vec<TypePattern>,
    /// Its updates that wait.
    pub pending_max: NonZeroUsize,
    /// Updates in a time; `None`: no bound.
    pub rate_max: Option<Rate>,
}

impl IngestConfig {
    /// Returns true if only clients of this host reach the door.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.listen.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Where other hosts reach the door without TLS, which is allowed only with `insecure`.
    #[must_use]
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.listen.filter(|_| self.tls.is_none() && !self.is_on_loopback())
    }

    /// The address, if the door and its admin port have the same one.
    #[must_use]
    pub fn address_shared_with(&self, admin: &AdminConfig) -> Option<SocketAddr> {
        self.listen.filter(|address| address.port() != 0 && admin.listen == Some(*address))
    }
}

/// Reads the section; `None`: a fault was noted.
pub(super) fn read(
    reader: &mut Reader<'_>,
    purpose: Purpose,
    body_bytes_max: Option<usize>,
) -> Option<IngestConfig> {
    let mut section = reader.section("ingest");
    let listen = section.read("listen", listen);
    let confirm_timeout = section.read("confirm_timeout", duration(CONFIRM_TIMEOUT));
    let pending_max = section.read("pending_max", integer::<usize>(1..=10_000_000));
    let pending_bytes_max = section.read("pending_bytes_max", integer::<usize>(1..=BYTES_MAX));
    let pending_per_record_max = section.read("pending_per_record_max", integer::<usize>(1..=1_000_000));
    let connections_max = section.read("connections_max", integer::<usize>(1..=100_000));
    let batch_lines_max = section.read("batch_lines_max", integer::<usize>(1..=1_000_000));
    let batch_bytes_max = section.read("batch_bytes_max", integer::<usize>(1..=BYTES_MAX));
    let remember = section.read("remember", duration(REMEMBER));
    let require_id = section.read("require_id", flag);
    let insecure = section.read("insecure", flag);
    let drain_timeout = section.read("drain_timeout", duration(DRAIN_TIMEOUT));
    at_most(&mut section, "batch_lines_max", batch_lines_max, "pending_max", pending_max);
    at_most(&mut section, "batch_bytes_max", batch_bytes_max, "pending_bytes_max", pending_bytes_max);
    if let (Some(bytes), Some(body)) =
        (pending_bytes_max, body_bytes_max.filter(|_| purpose == Purpose::Ingest))
        && bytes < body
    {
        let what = format!("{bytes} is below updates.body_bytes_max = {body}");
        section.fault("pending_bytes_max", Problem::new(what, format!("raise it to {body} or more")));
    }
    let tls = read_tls(&mut section);
    let clients = read_clients(&mut section);
    let hooks = hook::read(&mut section);
    let config = (|| {
        Some(IngestConfig {
            listen: listen?,
            confirm_timeout: confirm_timeout?,
            pending_max: NonZeroUsize::new(pending_max?)?,
            pending_bytes_max: pending_bytes_max?,
            pending_per_record_max: NonZeroUsize::new(pending_per_record_max?)?,
            connections_max: NonZeroUsize::new(connections_max?)?,
            batch_lines_max: NonZeroUsize::new(batch_lines_max?)?,
            batch_bytes_max: batch_bytes_max?,
            remember: remember?,
            require_id: require_id?,
            drain_timeout: drain_timeout?,
            tls: tls?,
            clients: clients?,
            hooks: hooks?,
        })
    })();
    let is_insecure = insecure != Some(false)
        || config.as_ref().is_none_or(|config| config.tls.is_some() || config.is_on_loopback());
    if purpose == Purpose::Ingest {
        if listen == Some(None) {
            let fix = "write an address with a port, such as \"127.0.0.1:9480\"";
            section.fault(
                "listen",
                Problem::new("is empty, and `lanekeeper ingest` is where updates come in", fix),
            );
        }
        if config.as_ref().is_some_and(|config| config.clients.is_empty() && config.hooks.is_empty()) {
            let fix = "add [[ingest.client]] with a name and tokens, or [[ingest.hook]]; config/default.toml explains both";
            section.fault("client", Problem::new("is missing: nobody could send anything", fix));
        }
        if !is_insecure {
            let what = "other hosts reach the door without TLS: tokens and bodies would travel as plain text";
            let fix = "set [ingest.tls]; or set insecure = true, if a server in front of it ends TLS";
            section.fault("listen", Problem::new(what, fix));
        }
    }
    section.finish();
    config
}

/// A request with so many could never be admitted.
fn at_most(
    section: &mut Section<'_, '_>,
    key: &'static str,
    value: Option<usize>,
    max_key: &str,
    max: Option<usize>,
) {
    if let (Some(value), Some(max)) = (value, max)
        && value > max
    {
        let what = format!("{value} is over {max_key} = {max}");
        section.fault(key, Problem::new(what, format!("lower it, or raise {max_key}")));
    }
}

#[expect(clippy::option_option, reason = "each function of a section says by `None` that a fault was noted")]
fn read_tls(ingest: &mut Section<'_, '_>) -> Option<Option<IngestTls>> {
    let mut section = ingest.table("tls");
    let own = tls::own_certificate(&mut section);
    let has_authorities = section.has("client_ca");
    let authorities = section.read_if_set("client_ca", tls::authorities);
    if has_authorities && own == Some(None) {
        let fix = "set certificate and key, too: only over TLS clients show certificates";
        section.fault("client_ca", Problem::new("is set, and certificate is not", fix));
        section.finish();
        return None;
    }
    section.finish();
    if has_authorities != authorities.is_some() {
        return None;
    }
    Some(own?.map(|own| IngestTls { own, client_authorities: authorities.unwrap_or_default() }))
}

fn read_clients(ingest: &mut Section<'_, '_>) -> Option<Vec<ClientConfig>> {
    let count = ingest.count("client")?;
    let mut names = BTreeSet::new();
    let clients: Vec<Option<ClientConfig>> =
        (0..count).map(|index| read_client(ingest.element("client", index), &mut names)).collect();
    let clients: Vec<ClientConfig> = clients.into_iter().collect::<Option<_>>()?;
    let of = |client: &ClientConfig| -> Vec<(String, Secret)> {
        client.tokens.iter().map(|token| (client.header.clone(), token.clone())).collect()
    };
    for (index, client) in clients.iter().enumerate() {
        let earlier =
            clients[..index].iter().find(|other| of(other).iter().any(|token| of(client).contains(token)));
        if earlier.is_some() {
            let problem = Problem::constant(
                "has a token that an earlier [[ingest.client]] has, too: nobody could tell them apart",
                "give each client tokens of its own",
            );
            ingest.element("client", index).fault("tokens", problem);
            return None;
        }
    }
    Some(clients)
}

fn read_client(mut section: Section<'_, '_>, names: &mut BTreeSet<String>) -> Option<ClientConfig> {
    let name = section.read("name", name);
    if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
        let what = format!("{name:?} is the name of an earlier [[ingest.client]]");
        section.fault("name", Problem::new(what, "choose another"));
    }
    let has_tokens = section.has("tokens");
    let tokens = section.each("tokens", Shape::List, |_, raw| token(raw));
    if !has_tokens || tokens.as_ref().is_some_and(Vec::is_empty) {
        let fix = "add tokens = [\"${TOKEN}\"], with one or several";
        section.fault("tokens", Problem::new("is missing: nothing would show who sends", fix));
    }
    let header = section.read_or("header", "authorization", |raw| {
        let name = text(raw)?;
        if name.eq_ignore_ascii_case("authorization") {
            Ok(name.to_ascii_lowercase())
        } else {
            header_name(&name)
        }
    });
    let has_types = section.has("types");
    let types = section.each("types", Shape::List, |_, raw| type_pattern(raw));
    if has_types && types.as_ref().is_some_and(Vec::is_empty) {
        let what = "is empty: the client could send nothing";
        section.fault(
            "types",
            Problem::new(what, "leave it out for all types, or remove this [[ingest.client]]"),
        );
    }
    let pending_max = section.read_or("pending_max", "5000", integer::<usize>(1..=10_000_000));
    let has_rate = section.has("rate_max");
    let rate_max = section.read_if_set("rate_max", rate);
    section.finish();
    let types = types.map(|types| if types.is_empty() { vec![TypePattern::Any] } else { types });
    let client = ClientConfig {
        name: name?,
        tokens: tokens.filter(|tokens| !tokens.is_empty())?,
        header: header?,
        types: types?,
        pending_max: NonZeroUsize::new(pending_max?)?,
        rate_max,
    };
    (has_rate == client.rate_max.is_some()).then_some(client)
}

fn token(raw: &mut Json) -> Result<Secret, Problem> {
    let token = text(raw)?;
    *raw = Json::from(MASK);
    let is_sent_as_it_is = token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sent_as_it_is && (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Ok(Secret::new(token));
    }
    Err(Problem::constant(
        "is no token: it is shorter than 16 characters, longer than 512, or has spaces or characters outside of ASCII",
        "make one, for example with `openssl rand -hex 32`",
    ))
}

/// All warnings. Each says what can happen and what to do.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let ingest = &config.ingest;
    let mut warnings = Vec::new();
    let is_used = !ingest.clients.is_empty() || !ingest.hooks.is_empty();
    if is_used && config.ledger.is_none() {
        warnings.push(
            "[ingest]: without a ledger, an update that its sender sends again by another door, or after a restart, is \
             published twice and sent to its target twice. Set ledger.url for `lanekeeper run`."
                .to_owned(),
        );
    }
    if is_used {
        warnings.extend(regrets(config));
    }
    if let Some((expires, left)) = ingest.tls.as_ref().and_then(|tls| tls.own.expiring(SystemTime::now())) {
        let ends = match left {
            None => format!("has expired at {expires}: clients refuse it"),
            Some(left) => format!("expires at {expires}, in {left}"),
        };
        warnings.push(format!("ingest.tls.certificate {ends}. Renew it."));
    }
    warnings
}

/// What is allowed for a door, and may be regretted.
fn regrets(config: &Config) -> Vec<String> {
    let ingest = &config.ingest;
    let mut warnings = Vec::new();
    if let Some(address) = ingest.plain_address() {
        warnings.push(format!(
            "ingest.listen = {address} speaks plain HTTP: tokens and bodies travel as plain text, unless a \
             server in front of the door ends TLS. Otherwise set [ingest.tls]."
        ));
    }
    if ingest.address_shared_with(&config.admin).is_some() {
        warnings.push(
            "ingest.listen and admin.listen are the same address: the door cannot listen on it twice, and ends at its start. \
             Change one of them."
                .to_owned(),
        );
    }
    if !ingest.require_id {
        warnings.push(
            "ingest.require_id = false: an update without an id that its sender sends again, for example after a lost \
             connection, is another update, and is sent to its target twice. Have senders choose ids."
                .to_owned(),
        );
    }
    if ingest.remember.is_zero() {
        warnings.push(
            "ingest.remember = \"0s\": the door publishes an update again that its sender sends again; only the ledger keeps it \
             from the target. Raise it."
                .to_owned(),
        );
    }
    let clients = ingest.clients.iter().map(|client| ("client", &client.name, client.pending_max));
    let hooks = ingest.hooks.iter().map(|hook| ("hook", &hook.name, hook.pending_max));
    for (kind, name, pending_max) in clients.chain(hooks) {
        let is_alone = ingest.clients.len() + ingest.hooks.len() == 1;
        if pending_max >= ingest.pending_max && !is_alone {
            warnings.push(format!(
                "[[ingest.{kind}]] {name:?}: pending_max = {pending_max} is not below ingest.pending_max = {}: its updates can \
                 take the room of all others. Lower it.",
                ingest.pending_max
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Environment, Loaded, TARGET_EXAMPLE, read, tls::tests::write_files, warnings};
    use super::*;

    const CLIENT: &str = "[[ingest.client]]\nname = \"crm\"\ntokens = [\"${TOKEN}\"]\n";

    fn load(dir: &Path, text: &str, purpose: Purpose) -> Result<Loaded, String> {
        let environment: Environment =
            [("TOKEN", "0123456789abcdef-crm"), ("OTHER", "9876543210fedcba-zzz"), ("SHORT", "s3cret")]
                .into_iter()
                .collect();
        read(Some((&dir.join("lk.toml"), text)), &environment, purpose).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_door_needs_a_client_and_no_target() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = load(dir.path(), CLIENT, Purpose::Ingest).unwrap();
        let ingest = &loaded.config.ingest;
        assert_eq!(ingest.clients[0].types, [TypePattern::Any]);
        assert_eq!(
            (ingest.clients[0].header.as_str(), ingest.clients[0].pending_max.get()),
            ("authorization", 5000)
        );
        let shown = format!("{ingest:?} {:?}", loaded.shown);
        assert!(!shown.contains("0123456789"), "{shown}");
        assert!(
            load(dir.path(), TARGET_EXAMPLE, Purpose::Dispatch).unwrap().config.ingest.clients.is_empty()
        );
    }

    #[test]
    fn each_fault_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        write_files(dir.path());
        let check = |text: &str, part: &str| {
            let report = load(dir.path(), text, Purpose::Ingest).expect_err(text);
            assert!(
                report.starts_with("the config has 1 fault\n") && report.contains(part),
                "{text}: {report}"
            );
            assert!(!report.contains("s3cret"), "{report}");
        };
        let with = |lines: &str| format!("[ingest]\n{lines}\n{CLIENT}");
        check("", "nobody could send anything");
        check(&with("listen = \"\""), "is empty");
        check(&with("listen = \"0.0.0.0:1\""), "without TLS");
        check(&with("confirm_timeout = \"500ms\""), "1s to 5m");
        check(&with("pending_max = 10"), "batch_lines_max");
        check(&with("pending_bytes_max = 2_000_000"), "batch_bytes_max");
        check(&with("batch_bytes_max = 10_000\npending_bytes_max = 10_000"), "below updates.body_bytes_max");
        check(&with("tls.client_ca = \"file:ca.pem\""), "certificate is not");
        check("[[ingest.client]]\nname = \"crm\"", "nothing would show who sends");
        check("[[ingest.client]]\nname = \"crm\"\ntokens = []", "nothing would show who sends");
        check("[[ingest.client]]\nname = \"crm\"\ntokens = [\"${SHORT}\"]", "is no token");
        check("[[ingest.client]]\nname = \"CRM\"\ntokens = [\"${TOKEN}\"]", "is not a name");
        check(&format!("{CLIENT}types = []"), "could send nothing");
        check(&format!("{CLIENT}rate_max = 5"), "is not a rate");
        check(&format!("{CLIENT}header = \"content-length\""), "is set by the HTTP client");
        check(&format!("{CLIENT}colour = 1"), "there is no such key");
        check(&format!("{CLIENT}{CLIENT}").replace("${TOKEN}\"]\n[", "${OTHER}\"]\n["), "an earlier");
        check(&format!("{CLIENT}{}", CLIENT.replace("crm", "shop")), "nobody could tell them apart");
        let hook = "[[ingest.hook]]\nname = \"shop\"\nverify = \"shopify\"\nsecrets = [\"${OTHER}\"]\nrecord_key = [\"/id\"]\n";
        check(
            "[[ingest.hook]]\nname = \"shop\"\nverify = \"shopify\"\nrecord_key = [\"/id\"]",
            "show who sends",
        );
        check(&hook.replace("${OTHER}", "${SHORT}"), "less than 8 characters");
        check(&hook.replace("shopify", "standard_webhooks"), "is not a secret of Standard Webhooks");
        check(&hook.replace("[\"/id\"]", "[]"), "record_key");
        check(&hook.replace("[\"/id\"]", "[\"id\"]"), "is not a JSON pointer");
        check(&hook.replace("shopify", "paypal"), "is not a value of this key");
        check(&hook.replace("shopify", "hmac_sha256"), "signature_header");
        check(&format!("{hook}answer = 201"), "write 200, 202 or 204");
        check(&format!("{hook}timestamp_header = \"x\""), "there is no such key");
        check(&format!("{hook}{hook}"), "an earlier [[ingest.hook]]");
        let loaded = load(dir.path(), hook, Purpose::Ingest).unwrap();
        let read = &loaded.config.ingest.hooks[0];
        assert_eq!(
            (read.id_prefix.as_str(), read.answer, read.record_key[0].as_str()),
            ("shop:", 202, "/id")
        );
        assert!(!format!("{:?} {read:?}", loaded.shown).contains("9876543210"));

        let tls = "tls = { certificate = \"file:client.pem\", key = \"file:client.key\", client_ca = \"file:ca.pem\" }";
        let loaded =
            load(dir.path(), &with(&format!("listen = \"0.0.0.0:1\"\n{tls}")), Purpose::Ingest).unwrap();
        assert_eq!(loaded.config.ingest.tls.unwrap().client_authorities.len(), 1);
        load(dir.path(), &with("listen = \"0.0.0.0:1\"\ninsecure = true"), Purpose::Ingest).unwrap();
    }

    #[test]
    fn a_door_without_a_ledger_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str, expected: &[&str]| {
            let warnings = warnings(&load(dir.path(), text, Purpose::Ingest).unwrap().config);
            assert_eq!(warnings.len(), expected.len(), "{text}: {warnings:?}");
            assert!(warnings.iter().zip(expected).all(|(text, part)| text.contains(part)), "{warnings:?}");
        };
        check(CLIENT, &[]);
        let policies = "[failure]\nrejected = \"block\"\nexhausted = \"block\"\nconflict = \"superseded\"\n";
        check(&format!("{policies}[ledger]\nurl = \"none\"\n{CLIENT}"), &["without a ledger"]);
        let with = |keys: &str| format!("[ingest]\n{keys}\n{CLIENT}");
        check(&with("listen = \"0.0.0.0:1\"\ninsecure = true"), &["as plain text"]);
        check(&with("listen = \"127.0.0.1:9419\""), &["the same address"]);
        check(&with("require_id = false\nremember = \"0s\""), &["require_id = false", "remember = "]);
        let other = CLIENT.replace("crm", "other").replace("TOKEN", "OTHER");
        check(&format!("{CLIENT}pending_max = 10_000\n{other}"), &["\"crm\": pending_max = 10000"]);
        check(&format!("{CLIENT}pending_max = 10_000"), &[]);
    }
}
