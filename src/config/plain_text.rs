//! Finds credentials that travel to other hosts without TLS.

use url::{Host, Url};

use super::auth::AuthConfig;
use super::model::{Config, TargetConfig};
use lanekeeper_core::secret::Secret;
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_ledger::LedgerPlace;

/// libpq's parameter, and its variable, which the client reads, too.
const SSLMODE: &str = "sslmode";
const SSLMODE_VARIABLE: &str = "PGSSLMODE";

/// Headers that carry credentials, whatever else their names say.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
const CREDENTIALS_PARTS: [&str; 4] = ["token", "secret", "password", "key"];

/// All warnings. Each says what can happen and what to do.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = of_broker(config);
    for target in &config.targets {
        warnings.extend(of_target(target));
    }
    warnings.extend(of_telemetry(config));
    for notify in &config.notify {
        let receiver = &notify.receiver;
        warnings.extend(of_target(receiver).map(|warning| of_notify(&warning)));
        let host = receiver.url.sample().and_then(|url| plain_host(&url));
        if let Some(host) = host.filter(|_| notify.record_keys) {
            let name = &receiver.name;
            warnings.push(format!(
                "[[notify]] {name:?}: record keys travel to {host} as plain text. Write https://."
            ));
        }
    }
    warnings.extend(of_ledger(config));
    warnings
}

/// The warnings for `[broker]`.
pub fn of_broker(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for host in other_hosts(&config.broker.connection.urls, "amqp") {
        warnings.push(format!(
            "broker.url: user, password and updates travel to {host} as plain text. Write amqps:// and the port of a TLS \
             listener (5671 by default)."
        ));
    }
    for host in other_hosts(config.broker.management_url.iter(), "http") {
        warnings.push(format!(
            "broker.management_url: user and password travel to {host} as plain text. Write https:// (port 15671 by default)."
        ));
    }
    warnings
}

/// A warning that begins as one of a target.
pub fn of_notify(warning: &str) -> String {
    warning.replacen("target ", "[[notify]] ", 1)
}

fn of_target(target: &TargetConfig) -> impl Iterator<Item = String> {
    [of_headers(target), of_auth(target), of_token_server(target)].into_iter().flatten()
}

fn of_headers(target: &TargetConfig) -> Option<String> {
    let is_credential = |name: &str| {
        let name = name.to_ascii_lowercase();
        CREDENTIALS.contains(&&*name) || CREDENTIALS_PARTS.iter().any(|part| name.contains(part))
    };
    let headers = target.headers.iter().chain(target.on.iter().flat_map(|row| &row.headers));
    let (header, _) = { headers }.find(|(name, _)| is_credential(name))?;
    let host = target.urls().filter_map(UrlTemplate::sample).find_map(|url| plain_host(&url))?;
    Some(format!(
        "target {:?}: the header {header:?} travels to {host} as plain text. Write https://.",
        target.name
    ))
}

fn of_auth(target: &TargetConfig) -> Option<String> {
    let host = plain_host(&Url::parse(&target.url.to_string()).ok()?)?;
    (target.auth != AuthConfig::None).then(|| {
        format!(
            "target {:?}: what [target.auth] has travels to {host} as plain text. Write https://.",
            target.name
        )
    })
}

fn of_token_server(target: &TargetConfig) -> Option<String> {
    let token_url = match &target.auth {
        AuthConfig::OAuth2(grant) => &grant.token_url,
        AuthConfig::JwtBearer(grant) => &grant.token_url,
        AuthConfig::None
        | AuthConfig::Bearer { .. }
        | AuthConfig::Basic { .. }
        | AuthConfig::Header { .. } => return None,
    };
    let host = plain_host(token_url.url())?;
    Some(format!(
        "target {:?}: secrets and tokens travel to and from {host} as plain text. Write https:// in token_url.",
        target.name
    ))
}

fn of_telemetry(config: &Config) -> Option<String> {
    let telemetry = config.telemetry.as_ref().filter(|telemetry| !telemetry.headers.is_empty())?;
    let host = plain_host(&telemetry.endpoint)?;
    Some(format!("telemetry.headers travel to {host} as plain text. Write https:// in telemetry.endpoint."))
}

/// The host of a URL without TLS, unless it is this machine.
fn plain_host(url: &Url) -> Option<String> {
    (url.scheme() == "http").then(|| other_host(url)).flatten()
}

fn of_ledger(config: &Config) -> Vec<String> {
    let unnamed = unnamed_sslmode(config)
        .into_iter()
        .map(|host| format!("ledger.url names no sslmode for {host}: {UNNAMED_SSLMODE}."));
    let plain = ledger_servers(config).filter_map(|url| {
        let host = other_host(&url)?;
        match sslmode(&url)?.as_str() {
            "disable" | "allow" => Some(format!(
                "ledger.url: the database of {host} is used without TLS: what is parked there travels as plain text. Write \
                 sslmode=verify-full."
            )),
            "prefer" => Some(format!(
                "ledger.url: with sslmode=prefer, what is parked travels to {host} as plain text if the server, or somebody \
                 between, offers no TLS. Write sslmode=verify-full."
            )),
            _ => None,
        }
    });
    unnamed.chain(plain).collect()
}

/// What follows from it, and what to do.
pub const UNNAMED_SSLMODE: &str = "TLS is used only if the server offers it, and its certificate is not checked. The next \
    version will use sslmode=verify-full then. Write ?sslmode=verify-full now (with &sslrootcert=FILE if an authority of \
    your own has issued the certificate), or ?sslmode=prefer to keep what is done today";

/// The other hosts that `ledger.url` names without saying how they are to be connected to.
pub fn unnamed_sslmode(config: &Config) -> Vec<String> {
    let unnamed = |url: Url| other_host(&url).filter(|_| sslmode(&url).is_none());
    ledger_servers(config).filter_map(unnamed).collect()
}

fn ledger_servers(config: &Config) -> impl Iterator<Item = Url> {
    let urls = match config.ledger.as_ref().map(|ledger| &ledger.place) {
        Some(LedgerPlace::Postgres(urls)) => urls.as_slice(),
        Some(LedgerPlace::Sqlite(_)) | None => &[],
    };
    urls.iter().filter_map(|url| Url::parse(url.reveal()).ok())
}

fn sslmode(url: &Url) -> Option<String> {
    let named = url.query_pairs().find(|(name, _)| name == SSLMODE);
    named.map(|(_, value)| value.to_ascii_lowercase()).or_else(|| std::env::var(SSLMODE_VARIABLE).ok())
}

/// The other hosts of URLs with this scheme.
fn other_hosts<'a>(urls: impl IntoIterator<Item = &'a Secret>, scheme: &str) -> Vec<String> {
    let urls = urls.into_iter().filter_map(|url| Url::parse(url.reveal()).ok());
    urls.filter(|url| url.scheme() == scheme).filter_map(|url| other_host(&url)).collect()
}

/// The URL's host, unless it is this machine.
fn other_host(url: &Url) -> Option<String> {
    let is_loopback = match url.host()? {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        // Of schemes that the URL standard does not know, an address is a name, too; and a path is a socket.
        Host::Domain(name) => {
            let address = name.parse::<std::net::Ipv4Addr>();
            name == "localhost"
                || name.ends_with(".localhost")
                || name.starts_with("%2F")
                || name.starts_with("%2f")
                || address.is_ok_and(|address| address.is_loopback())
        }
    };
    (!is_loopback).then(|| url.host_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Purpose, TARGET_EXAMPLE, load};
    use super::*;

    #[test]
    fn credentials_over_plain_text_to_other_hosts_are_warned_of() {
        let check = |name: &str, value: &str, expected: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("lk.toml");
            std::fs::write(&path, format!("{TARGET_EXAMPLE}\nheaders = {{ authorization = \"s3cret\" }}\n"))
                .unwrap();
            let environment: Environment = [(name, value)].into_iter().collect();
            let loaded = load(Some(&path), &environment, Purpose::Dispatch).unwrap();
            let warnings = warnings(&loaded.config);
            assert_eq!(warnings.len(), expected.len(), "{value}: {warnings:?}");
            for (warning, part) in warnings.iter().zip(expected) {
                assert!(warning.contains(part) && !warning.contains("s3cret"), "{value}: {warning}");
            }
        };
        let (broker, ledger) = ("LANEKEEPER_BROKER__URL", "LANEKEEPER_LEDGER__URL");
        check(broker, "amqp://u:s3cret@127.0.0.1,amqp://u:s3cret@localhost", &[]);
        check(broker, "amqps://u:s3cret@mq", &[]);
        check(broker, "amqp://u:s3cret@mq", &["travel to mq"]);
        check(broker, "amqps://u:s3cret@a,amqp://u:s3cret@b", &["travel to b"]);
        check("LANEKEEPER_BROKER__MANAGEMENT_URL", "http://u:s3cret@ui", &["travel to ui"]);
        check("LANEKEEPER_BROKER__MANAGEMENT_URL", "https://u:s3cret@ui", &[]);
        check(ledger, "postgres://u:s3cret@127.0.0.1/d,postgres://u:s3cret@localhost/d", &[]);
        check(ledger, "postgres://u:s3cret@db/d", &["sslmode=verify-full then"]);
        check(ledger, "postgres://u:s3cret@a,b/d", &["no sslmode for a", "no sslmode for b"]);
        check(ledger, "postgres://u:s3cret@db/d?sslmode=prefer", &["offers no TLS"]);
        check(ledger, "postgres://u:s3cret@db/d?sslmode=disable", &["without TLS"]);
        check(ledger, "postgres://u:s3cret@db/d?sslmode=verify-full", &[]);
    }

    #[test]
    fn a_header_with_a_credential_is_warned_of() {
        let check = |url: &str, header: &str, expected: bool| {
            let text = format!(
                "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"{url}\"\nheaders = {{ {header} = \"s3cret\" }}\n"
            );
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("lk.toml");
            std::fs::write(&path, text).unwrap();
            let loaded = load(Some(&path), &Environment::default(), Purpose::Dispatch).unwrap();
            assert_eq!(warnings(&loaded.config).len(), usize::from(expected), "{url} {header}");
        };
        check("http://crm/{record_key}", "authorization", true);
        check("http://crm/{record_key}", "X-Api-Key", true);
        check("http://crm/{record_key}", "accept", false);
        check("https://crm/{record_key}", "authorization", false);
        check("http://127.0.0.1:1/{record_key}", "authorization", false);
    }

    #[test]
    fn what_auth_sends_and_a_token_server_is_sent_is_warned_of() {
        let check = |url: &str, auth: &str, expected: &[&str]| {
            let text = format!("[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"{url}\"\nauth.{auth}\n");
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("lk.toml");
            std::fs::write(&path, text).unwrap();
            let loaded = load(Some(&path), &Environment::default(), Purpose::Dispatch).unwrap();
            let warnings = warnings(&loaded.config);
            assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
            assert!(warnings.iter().zip(expected).all(|(text, part)| text.contains(part)), "{warnings:?}");
        };
        let oauth2 = |token_url: &str| {
            format!(
                "oauth2 = {{ token_url = \"{token_url}\", client_id = \"a\", client_secret = \"s3cret\" }}"
            )
        };
        let plain = "http://crm/{record_key}";
        check(plain, "bearer = \"s3cret\"", &["travels to crm"]);
        check("https://crm/{record_key}", "bearer = \"s3cret\"", &[]);
        check("https://crm/{record_key}", &oauth2("http://login/token"), &["to and from login"]);
        check("https://crm/{record_key}", &oauth2("http://127.0.0.1/token"), &[]);
        check(plain, &oauth2("http://login/token"), &["travels to crm", "to and from login"]);
    }
}
