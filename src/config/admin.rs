//! The keys of `[admin]`.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::Value as Json;
use url::Host;

use super::fault::Problem;
use super::model::Config;
use super::parse::{listen, text};
use super::reader::Reader;
use super::tls::{self, OwnCertificate};
use lanekeeper_core::secret::{MASK, Secret};

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 512;

/// `[admin]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdminConfig {
    /// Where the port is; `None`: there is none.
    pub listen: Option<SocketAddr>,
    /// HOST:PORT at which others reach the port; `None`: where it listens, or the host's name if that is every address.
    pub advertise: Option<String>,
    /// Who shows it may read; `None`: on loopback everybody may, elsewhere nobody.
    pub read_token: Option<Secret>,
    /// Who shows it may read and change; `None`: nobody may change anything.
    pub write_token: Option<Secret>,
    /// What the port shows of us; `None`: it speaks plain HTTP.
    pub tls: Option<OwnCertificate>,
}

impl AdminConfig {
    /// Returns true if only clients of this host reach the port.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.listen.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

impl AdminConfig {
    /// The URL of the port for others; `None`: there is none, or the system chooses its number.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.listen.filter(|address| address.port() != 0).map(|address| self.url_at(address))
    }

    /// The same for a port that listens here.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.advertise {
            Some(advertise) => format!("{scheme}://{advertise}"),
            None if address.ip().to_canonical().is_unspecified() => {
                format!("{scheme}://{}:{}", gethostname::gethostname().to_string_lossy(), address.port())
            }
            None => format!("{scheme}://{address}"),
        }
    }
}

/// Reads the section; `None`: a fault was noted.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<AdminConfig> {
    let mut section = reader.section("admin");
    let listen = section.read("listen", listen);
    let advertise = section.read("advertise", advertise);
    let read_token = section.read("read_token", token);
    let write_token = section.read("write_token", token);
    let is_one_token =
        matches!((&read_token, &write_token), (Some(Some(read)), Some(Some(write))) if read == write);
    if is_one_token {
        section.fault(
            "write_token",
            Problem::constant(
                "is the same as read_token, so that everybody who may read could change things, too",
                "make two tokens, for example each with `openssl rand -hex 32`",
            ),
        );
    }
    let tls = {
        let mut table = section.table("tls");
        let tls = tls::own_certificate(&mut table);
        table.finish();
        tls
    };
    section.finish();
    if is_one_token {
        return None;
    }
    Some(AdminConfig {
        listen: listen?,
        advertise: advertise?,
        read_token: read_token?,
        write_token: write_token?,
        tls: tls?,
    })
}

/// A host with a port; empty: there is none.
fn advertise(raw: &mut Json) -> Result<Option<String>, Problem> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    let is_host_and_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok_and(|port| port != 0) && Host::parse(host).is_ok()
    });
    if is_host_and_port {
        return Ok(Some(text));
    }
    Err(Problem::new(
        format!("{text:?} is not a host with a port"),
        "write one such as \"lanekeeper-0.lanekeeper:9419\" or \"10.0.0.7:9419\", or \"\" for where it listens",
    ))
}

/// What a client shows; empty: there is none.
fn token(raw: &mut Json) -> Result<Option<Secret>, Problem> {
    let token = text(raw)?;
    if token.is_empty() {
        return Ok(None);
    }
    *raw = Json::from(MASK);
    let is_sent_as_it_is = token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sent_as_it_is && (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Ok(Some(Secret::new(token)));
    }
    Err(Problem::constant(
        "is no token: it is shorter than 16 characters, longer than 512, or has spaces or characters outside of ASCII",
        "make one, for example with `openssl rand -hex 32`, or write \"\" for none",
    ))
}

/// All warnings. Each says what can happen and what to do.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let admin = &config.admin;
    let mut warnings = Vec::new();
    let has_token = admin.read_token.is_some() || admin.write_token.is_some();
    if let Some(address) =
        admin.listen.filter(|_| has_token && admin.tls.is_none() && !admin.is_on_loopback())
    {
        warnings.push(format!(
            "admin.listen = {address}: tokens, record keys and bodies travel as plain text. Set [admin.tls], or listen on \
             127.0.0.1 behind a server that speaks TLS."
        ));
    }
    if admin.write_token.is_some() && admin.read_token.is_none() && !admin.is_on_loopback() {
        warnings.push(
            "admin.write_token has no effect: admin.listen is not on loopback, and without admin.read_token only /livez, \
             /readyz and /metrics are served there. Set admin.read_token."
                .to_owned(),
        );
    }
    if let Some((expires, left)) = admin.tls.as_ref().and_then(|tls| tls.expiring(SystemTime::now())) {
        let ends = match left {
            None => format!("has expired at {expires}: clients refuse it"),
            Some(left) => format!("expires at {expires}, in {left}"),
        };
        warnings.push(format!("admin.tls.certificate {ends}. Renew it."));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{
        Environment, Loaded, Purpose, TARGET_EXAMPLE, read, tls::tests::write_files, warnings,
    };

    const TOKEN: &str = "0123456789abcdef-read";

    fn load(dir: &Path, lines: &str) -> Result<Loaded, String> {
        let text = format!("[admin]\n{lines}\n{TARGET_EXAMPLE}");
        let environment: Environment = [("TOKEN", TOKEN), ("SHORT", "s3cret")].into_iter().collect();
        read(Some((&dir.join("lk.toml"), &text)), &environment, Purpose::Dispatch)
            .map_err(|faults| faults.to_string())
    }

    #[test]
    fn each_token_is_checked_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let fault = |lines: &str, part: &str| {
            let report = load(dir.path(), lines).expect_err(lines);
            assert!(report.starts_with("the config has 1 fault\n") && report.contains(part), "{report}");
            assert!(!report.contains("s3cret"), "{report}");
        };
        fault("read_token = \"s3cret\"", "is no token");
        fault("write_token = \"${SHORT}\"", "is no token");
        fault("read_token = \"s3cret and some more s3cret\"", "is no token");
        fault("read_token = \"s3cret-schlüssel-s3cret\"", "is no token");
        fault(&format!("read_token = \"{}\"", "s3cret".repeat(100)), "is no token");
        fault("read_token = 7", "not a string");
        fault(&format!("read_token = \"{TOKEN}\"\nwrite_token = \"${{TOKEN}}\""), "the same as read_token");
        write_files(dir.path());
        fault("[admin.tls]\nkey = \"file:client.key\"", "is set, and certificate is not");
        fault("advertise = \"lanekeeper-0\"", "\"lanekeeper-0\" is not a host with a port");
        fault("advertise = \"http://h:9419\"", "is not a host with a port");
        fault("advertise = \"h:0\"", "is not a host with a port");
        fault("[admin.tls]\nca = \"file:ca.pem\"", "there is no such key");

        std::fs::write(dir.path().join("token"), "fedcba9876543210-write\n").unwrap();
        let lines = "read_token = \"${TOKEN}\"\nwrite_token = \"file:token\"\n\
            tls = { certificate = \"file:client.pem\", key = \"file:client.key\" }";
        let loaded = load(dir.path(), lines).unwrap();
        let admin = &loaded.config.admin;
        let token = |token: &Option<super::Secret>| token.as_ref().unwrap().reveal().to_owned();
        assert_eq!([token(&admin.read_token), token(&admin.write_token)], [TOKEN, "fedcba9876543210-write"]);
        assert!(admin.tls.is_some() && admin.is_on_loopback());
        let shown = format!("{:?} {:?}", loaded.config.admin, loaded.shown);
        assert!(!shown.contains(TOKEN) && !shown.contains("fedcba") && !shown.contains("BEGIN"), "{shown}");
        assert_eq!(load(dir.path(), "").unwrap().config.admin.read_token, None);
    }

    #[test]
    fn what_is_likely_a_mistake_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        write_files(dir.path());
        let check = |lines: &str, expected: &[&str]| {
            let warnings = warnings(&load(dir.path(), lines).unwrap().config);
            assert_eq!(warnings.len(), expected.len(), "{lines}: {warnings:?}");
            assert!(warnings.iter().zip(expected).all(|(text, part)| text.contains(part)), "{warnings:?}");
        };
        let [read, write] = ["read_token = \"0123456789abcdef\"", "write_token = \"fedcba9876543210\""];
        check("", &[]);
        check(&format!("{read}\n{write}"), &[]);
        check(write, &[]);
        check("listen = \"0.0.0.0:1\"", &[]);
        check("listen = \"\"", &[]);
        check(&format!("listen = \"[::]:1\"\n{read}"), &["as plain text"]);
        check(&format!("listen = \"[::ffff:127.0.0.1]:1\"\n{read}"), &[]);
        check(&format!("listen = \"10.0.0.1:1\"\n{write}"), &["as plain text", "has no effect"]);
        let tls = "tls = { certificate = \"file:client.pem\", key = \"file:client.key\" }";
        check(&format!("listen = \"10.0.0.1:1\"\n{read}\n{tls}"), &[]);
    }
}
