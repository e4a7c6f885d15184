//! The keys of `[ledger]`.

use std::time::Duration;

use serde_json::Value as Json;
use url::Url;

use super::fault::Problem;
use super::parse::{duration, flag, integer, one_or_several, text};
use super::reader::Reader;
use lanekeeper_core::secret::{MASK, Secret};
use lanekeeper_ledger::{LedgerConfig, LedgerPlace};

const MINUTE: Duration = Duration::from_secs(60);
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);
const PARKED_MAX: u64 = 1_000_000_000;
/// The server has a limit of its own, `max_connections`.
const CONNECTIONS_MAX: u64 = 10_000;

const EXAMPLE: &str = "write \"sqlite://PATH\", \"postgres://USER:PASSWORD@HOST:PORT/DATABASE\", or \"none\"";

/// Query parameters that the PostgreSQL client uses. It ignores others silently, so they are refused here. Parameters with
/// secrets are not among them, because they would be shown.
const PARAMETERS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "options", CONNECT_TIMEOUT_PARAMETER];
/// libpq's, in seconds.
const CONNECT_TIMEOUT_PARAMETER: &str = "connect_timeout";
const CONNECT_TIMEOUT_SECONDS_MAX: u64 = 60;
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// Reads the section. `Some(None)`: there is no ledger; `None`: a fault was noted.
#[expect(clippy::option_option, reason = "a section without faults can say that there is no ledger")]
pub fn read(reader: &mut Reader<'_>) -> Option<Option<LedgerConfig>> {
    let mut section = reader.section("ledger");
    let place = section.read("url", place);
    let retention = section.read("retention", duration(MINUTE..=TEN_YEARS));
    let row_lock = section.read("row_lock", flag);
    let parked_max = section.read("parked_max", integer(1..=PARKED_MAX));
    let parked_record_max = section.read("parked_record_max", integer(1..=PARKED_MAX));
    let connections_max = section.read("connections_max", integer(1..=CONNECTIONS_MAX));
    if let (Some(place), Some(true)) = (&place, row_lock)
        && !matches!(place, Some(LedgerPlace::Postgres(_)))
    {
        section.fault(
            "row_lock",
            Problem::new(
                "is true, but only PostgreSQL has row locks, and ledger.url names none",
                "set ledger.url to a postgres:// URL, or row_lock to false",
            ),
        );
    }
    section.finish();
    let (retention, row_lock) = (retention?, row_lock?);
    let (parked_max, parked_record_max, connections_max) =
        (parked_max?, parked_record_max?, connections_max?);
    let config =
        |place| LedgerConfig { place, retention, row_lock, parked_max, parked_record_max, connections_max };
    Some(place?.map(config))
}

/// `ledger.url`; `None`: no ledger.
fn place(raw: &mut Json) -> Result<Option<LedgerPlace>, Problem> {
    if let Json::String(text) = &*raw
        && let Some(place) = none_or_file(text)
    {
        return place;
    }
    if let Json::String(text) = &*raw
        && let Some(urls) = one_for_each_host(text)
    {
        *raw = Json::from(urls);
    }
    let urls = one_or_several(raw, &SCHEMES, server)?;
    let database = |url: &Secret| Url::parse(url.reveal()).ok().map(|url| url.path().to_owned());
    if urls.iter().any(|url| database(url) != database(&urls[0])) {
        return Err(Problem::new(
            "names several databases, and each would be a ledger of its own",
            "write the same database in each URL: those of one primary and its standbys",
        ));
    }
    Ok(Some(LedgerPlace::Postgres(urls)))
}

/// `None`: it is neither.
fn none_or_file(text: &str) -> Option<Result<Option<LedgerPlace>, Problem>> {
    if text == "none" {
        return Some(Ok(None));
    }
    Some(match text.strip_prefix("sqlite://")? {
        "" => Err(Problem::new("names no file", EXAMPLE)),
        ":memory:" => {
            Err(Problem::new("would lose everything at the end of the process", "name a file, or \"none\""))
        }
        path if path.contains('?') => Err(Problem::new(
            "has a \"?\"",
            "leave the parameters out: how the file is opened cannot be changed",
        )),
        path => Ok(Some(LedgerPlace::Sqlite(path.into()))),
    })
}

/// libpq's form with several hosts in one URL, as `postgres://a,b:5433/database`; `None`: it has one host.
fn one_for_each_host(text: &str) -> Option<Vec<String>> {
    let (scheme, rest) = text.split_once("://")?;
    if !SCHEMES.contains(&scheme) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if authority.contains('@') { "@" } else { "" };
    hosts
        .contains(',')
        .then(|| hosts.split(',').map(|host| format!("{scheme}://{user}{at}{host}{path}")).collect())
}

/// One server.
fn server(raw: &mut Json) -> Result<Secret, Problem> {
    let text = text(raw)?;
    // No problem quotes the URL: one that cannot be parsed cannot be masked either.
    let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), EXAMPLE))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(Problem::new("begins with neither sqlite:// nor postgres://", EXAMPLE));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Problem::new("has no host", EXAMPLE));
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err(Problem::new("names no database", EXAMPLE));
    }
    for (name, value) in url.query_pairs() {
        if !PARAMETERS.contains(&&*name) {
            // A name is no secret; a value may be.
            let known = PARAMETERS.join(", ");
            return Err(Problem::new(
                format!("has the unknown query parameter {name:?}"),
                format!("known are {known}"),
            ));
        }
        let seconds = 1..=CONNECT_TIMEOUT_SECONDS_MAX;
        if name == CONNECT_TIMEOUT_PARAMETER && !value.parse().is_ok_and(|value| seconds.contains(&value)) {
            return Err(Problem::new(
                "has a connect_timeout that is no number of seconds",
                format!("write a whole number from 1 to {CONNECT_TIMEOUT_SECONDS_MAX}, or leave it out"),
            ));
        }
    }
    let mut shown = url;
    if shown.password().is_some() && shown.set_password(Some(MASK)).is_err() {
        *raw = Json::from(MASK);
    } else {
        *raw = Json::from(String::from(shown));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_a_server_or_nothing() {
        let check = |url: &str, expected: Result<&str, &str>| {
            let mut raw = Json::from(url);
            let got = place(&mut raw).map(|place| match place {
                None => "none".to_owned(),
                Some(LedgerPlace::Sqlite(path)) => format!("file {}", path.display()),
                Some(LedgerPlace::Postgres(_)) => {
                    format!("server {}", raw.as_str().map_or_else(|| raw.to_string(), str::to_owned))
                }
            });
            match expected {
                Ok(expected) => assert_eq!(got.as_deref(), Ok(expected), "{url}"),
                Err(part) => {
                    let problem = format!("{:?}", got.expect_err(url));
                    assert!(problem.contains(part) && !problem.contains("s3cret"), "{url}: {problem}");
                }
            }
        };
        check("none", Ok("none"));
        check("sqlite://lanekeeper.db", Ok("file lanekeeper.db"));
        check("sqlite:///var/lib/lanekeeper/ledger.db", Ok("file /var/lib/lanekeeper/ledger.db"));
        check("postgres://u:s3cret@db:5432/lanes", Ok("server postgres://u:***@db:5432/lanes"));
        check(
            "postgresql://db/lanes?sslmode=verify-full",
            Ok("server postgresql://db/lanes?sslmode=verify-full"),
        );
        check("", Err("is not a URL"));
        check("sqlite://", Err("names no file"));
        check("sqlite://:memory:", Err("would lose"));
        check("sqlite://x.db?mode=ro", Err("has a"));
        check("mysql://u:s3cret@db/lanes", Err("neither"));
        check("postgres:///lanes", Err("no host"));
        check("postgres://u:s3cret@db", Err("names no database"));
        check("postgres://db/lanes?password=s3cret", Err("unknown"));
        check("postgres://db/lanes?connect_timeout=3", Ok("server postgres://db/lanes?connect_timeout=3"));
        check("postgres://db/lanes?connect_timeout=soon", Err("connect_timeout"));
        let two = r#"server ["postgres://u:***@a/lanes","postgres://u:***@b:5433/lanes"]"#;
        check("postgres://u:s3cret@a,b:5433/lanes", Ok(two));
        check("postgres://u:s3cret@a/lanes,postgres://u:s3cret@b:5433/lanes", Ok(two));
        check(
            "postgresql://a,b/lanes?sslmode=require",
            Ok(r#"server ["postgresql://a/lanes?sslmode=require","postgresql://b/lanes?sslmode=require"]"#),
        );
        check("postgres://u:s3cret@a/lanes,postgres://u:s3cret@b/other", Err("several databases"));
        check("postgres://u:s3cret@a,/lanes", Err("URL 2 of the list is not a URL"));
    }
}
