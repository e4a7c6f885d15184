//! The keys of `[[ingest.hook]]`: webhooks of others.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;

use super::answers::{Pointer, pointer};
use super::fault::Problem;
use super::parse::{choice, duration, integer, text};
use super::reader::{Section, Shape};
use super::signature::WebhookKey;
use super::signature::{SignatureEncoding, webhook_key};
use super::target::{header_name, name};
use lanekeeper_core::secret::{MASK, SecretBytes};

const TOLERANCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const CONFIRM_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// Shorter secrets can be guessed.
const SECRET_BYTES_MIN: usize = 8;

const SCHEMES: [(&str, SchemeName); 5] = [
    ("standard_webhooks", SchemeName::StandardWebhooks),
    ("stripe", SchemeName::Stripe),
    ("github", SchemeName::GitHub),
    ("shopify", SchemeName::Shopify),
    ("hmac_sha256", SchemeName::Hmac),
];
const ENCODINGS: [(&str, SignatureEncoding); 2] =
    [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SchemeName {
    StandardWebhooks,
    Stripe,
    GitHub,
    Shopify,
    Hmac,
}

/// `[[ingest.hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookConfig {
    /// The last segment of its path, and its name in logs and metrics; unique.
    pub name: String,
    /// How requests are signed.
    pub scheme: HookScheme,
    /// A signature with any of them is good; at least one.
    pub secrets: Vec<SecretBytes>,
    /// How old, or ahead of our clock, a signed time may be.
    pub tolerance: Duration,
    /// Where the record key is in the body: the first that gives text or an integer. At least one.
    pub record_key: Vec<Pointer>,
    /// Goes before it.
    pub key_prefix: String,
    /// Where the update id is.
    pub id: HookValue,
    /// Goes before it.
    pub id_prefix: String,
    /// Where the type is; `None`: there is none.
    pub update_type: Option<HookValue>,
    /// Goes before it.
    pub type_prefix: String,
    /// Where the version is; `None`: there is none.
    pub version: Option<Pointer>,
    /// Types, without the prefix, that are answered and not published.
    pub ignore_types: Vec<String>,
    /// The status of success: 200, 202 or 204.
    pub answer: u16,
    /// How long a request waits for the broker's confirm.
    pub confirm_timeout: Duration,
    /// Its updates that wait.
    pub pending_max: NonZeroUsize,
}

/// How the requests of a hook are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookScheme {
    /// Standard Webhooks 1.0.0, with HMAC-SHA256.
    StandardWebhooks,
    /// `Stripe-Signature`.
    Stripe,
    /// `X-Hub-Signature-256`.
    GitHub,
    /// `X-Shopify-Hmac-Sha256`.
    Shopify,
    /// A header of the sender's own.
    Hmac {
        /// The header with the signature, in lower case.
        header: String,
        /// How it is written.
        encoding: SignatureEncoding,
        /// What stands before it, such as `sha256=`.
        prefix: String,
        /// The header with the signed time in seconds, in lower case: TIMESTAMP.BODY is signed. `None`: the body is.
        timestamp_header: Option<String>,
    },
}

/// Where a part of an update is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookValue {
    /// In the body.
    Body(Pointer),
    /// In this header, in lower case.
    Header(String),
    /// It is always this.
    Literal(String),
}

/// Reads all of them; `None`: a fault was noted.
pub(super) fn read(ingest: &mut Section<'_, '_>) -> Option<Vec<HookConfig>> {
    let count = ingest.count("hook")?;
    let mut names = BTreeSet::new();
    let hooks: Vec<Option<HookConfig>> =
        (0..count).map(|index| read_one(ingest.element("hook", index), &mut names)).collect();
    hooks.into_iter().collect()
}

fn read_one(mut section: Section<'_, '_>, names: &mut BTreeSet<String>) -> Option<HookConfig> {
    let name = section.read("name", name);
    if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
        let what = format!("{name:?} is the name of an earlier [[ingest.hook]]");
        section.fault("name", Problem::new(what, "choose another"));
    }
    let scheme = section.read("verify", choice(&SCHEMES));
    let has_secrets = section.has("secrets");
    let secrets = section.each("secrets", Shape::List, |_, raw| secret(scheme, raw));
    if !has_secrets || secrets.as_ref().is_some_and(Vec::is_empty) {
        let fix = "add secrets = [\"${SECRET}\"], as the sender shows it";
        section.fault("secrets", Problem::new("is missing: nothing would show who sends", fix));
    }
    let tolerance = section.read_or("tolerance", "5m", duration(TOLERANCE));
    let has_keys = section.has("record_key");
    let record_key = section.each("record_key", Shape::List, |_, raw| pointer(raw));
    if !has_keys || record_key.as_ref().is_some_and(Vec::is_empty) {
        let fix = "add record_key = [\"/data/object/id\"], with one or several JSON pointers";
        section.fault("record_key", Problem::new("is missing", fix));
    }
    let key_prefix = section.read_or("key_prefix", "", text);
    let id = section.read_or("id", default_id(scheme), value);
    let id_prefix = match (section.has("id_prefix"), &name) {
        (true, _) => section.read("id_prefix", text),
        (false, Some(name)) => section.read_or("id_prefix", &format!("{name}:"), text),
        (false, None) => section.known("id_prefix"),
    };
    let update_type = section.read_or("type", default_type(scheme), optional);
    let type_prefix = section.read_or("type_prefix", "", text);
    let version = section.read_or("version", "", |raw| match text(raw)?.as_str() {
        "" => Ok(None),
        _ => pointer(raw).map(Some),
    });
    let ignore_types = section.each("ignore_types", Shape::List, |_, raw| text(raw));
    let answer = section.read_or("answer", "202", |raw| match integer::<u16>(200..=204)(raw)? {
        status @ (200 | 202 | 204) => Ok(status),
        other => Err(Problem::new(format!("{other} is no answer of a hook"), "write 200, 202 or 204")),
    });
    let confirm_timeout = section.read_or("confirm_timeout", "4s", duration(CONFIRM_TIMEOUT));
    let pending_max = section.read_or("pending_max", "5000", integer::<usize>(1..=10_000_000));
    let hmac = if scheme == Some(SchemeName::Hmac) { read_hmac(&mut section) } else { None };
    section.finish();
    let scheme = match scheme? {
        SchemeName::StandardWebhooks => HookScheme::StandardWebhooks,
        SchemeName::Stripe => HookScheme::Stripe,
        SchemeName::GitHub => HookScheme::GitHub,
        SchemeName::Shopify => HookScheme::Shopify,
        SchemeName::Hmac => hmac?,
    };
    Some(HookConfig {
        name: name?,
        scheme,
        secrets: secrets.filter(|secrets| !secrets.is_empty())?,
        tolerance: tolerance?,
        record_key: record_key.filter(|pointers| !pointers.is_empty())?,
        key_prefix: key_prefix?,
        id: id?,
        id_prefix: id_prefix?,
        update_type: update_type?,
        type_prefix: type_prefix?,
        version: version?,
        ignore_types: ignore_types?,
        answer: answer?,
        confirm_timeout: confirm_timeout?,
        pending_max: NonZeroUsize::new(pending_max?)?,
    })
}

fn read_hmac(section: &mut Section<'_, '_>) -> Option<HookScheme> {
    let header = section.read("signature_header", |raw| header_name(&text(raw)?));
    let encoding = section.read_or("signature_encoding", "hex", choice(&ENCODINGS));
    let prefix = section.read_or("signature_prefix", "", text);
    let timestamp_header = section.read_or("timestamp_header", "", |raw| match text(raw)?.as_str() {
        "" => Ok(None),
        name => header_name(name).map(Some),
    });
    Some(HookScheme::Hmac {
        header: header?,
        encoding: encoding?,
        prefix: prefix?,
        timestamp_header: timestamp_header?,
    })
}

fn secret(scheme: Option<SchemeName>, raw: &mut Json) -> Result<SecretBytes, Problem> {
    let secret = text(raw)?;
    *raw = Json::from(MASK);
    if scheme == Some(SchemeName::StandardWebhooks) {
        return match webhook_key(&secret)? {
            WebhookKey::Symmetric(key) => Ok(key),
            WebhookKey::Ed25519(_) => Err(Problem::constant(
                "is the private key of a sender that signs with ed25519",
                "use the secret of HMAC-SHA256, which begins with \"whsec_\"",
            )),
        };
    }
    if secret.len() >= SECRET_BYTES_MIN {
        return Ok(SecretBytes::new(secret.into_bytes()));
    }
    Err(Problem::constant("has less than 8 characters", "use the secret that the sender shows or was given"))
}

fn default_id(scheme: Option<SchemeName>) -> &'static str {
    match scheme {
        Some(SchemeName::StandardWebhooks) => "header:webhook-id",
        Some(SchemeName::GitHub) => "header:x-github-delivery",
        Some(SchemeName::Shopify) => "header:x-shopify-webhook-id",
        Some(SchemeName::Stripe | SchemeName::Hmac) | None => "/id",
    }
}

fn default_type(scheme: Option<SchemeName>) -> &'static str {
    match scheme {
        Some(SchemeName::GitHub) => "header:x-github-event",
        Some(SchemeName::Shopify) => "header:x-shopify-topic",
        Some(SchemeName::StandardWebhooks | SchemeName::Stripe) => "/type",
        Some(SchemeName::Hmac) | None => "",
    }
}

fn optional(raw: &mut Json) -> Result<Option<HookValue>, Problem> {
    if *raw == "" { Ok(None) } else { value(raw).map(Some) }
}

/// `"/pointer"`, `"header:NAME"` or `"=literal"`.
fn value(raw: &mut Json) -> Result<HookValue, Problem> {
    let written = text(raw)?;
    if let Some(name) = written.strip_prefix("header:") {
        return header_name(name).map(HookValue::Header);
    }
    if let Some(literal) = written.strip_prefix('=') {
        return Ok(HookValue::Literal(literal.to_owned()));
    }
    pointer(raw).map(HookValue::Body)
}
