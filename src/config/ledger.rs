//! The keys of `[ledger]`.

use std::time::Duration;

use serde_json::Value as Json;
use url::Url;

use super::fault::Problem;
use super::parse::{duration, flag, integer, text};
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
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "options"];

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
    let text = text(raw)?;
    if text == "none" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("sqlite://") {
        return match path {
            "" => Err(Problem::new("names no file", EXAMPLE)),
            ":memory:" => Err(Problem::new(
                "would lose everything at the end of the process",
                "name a file, or \"none\"",
            )),
            path if path.contains('?') => Err(Problem::new(
                "has a \"?\"",
                "leave the parameters out: how the file is opened cannot be changed",
            )),
            path => Ok(Some(LedgerPlace::Sqlite(path.into()))),
        };
    }
    // No problem quotes the URL: one that cannot be parsed cannot be masked either.
    let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), EXAMPLE))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(Problem::new("begins with neither sqlite:// nor postgres://", EXAMPLE));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Problem::new("has no host", EXAMPLE));
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err(Problem::new("names no database", EXAMPLE));
    }
    if let Some((name, _)) = url.query_pairs().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
        // A name is no secret; a value may be.
        let known = PARAMETERS.join(", ");
        return Err(Problem::new(
            format!("has the unknown query parameter {name:?}"),
            format!("known are {known}"),
        ));
    }
    let mut shown = url;
    if shown.password().is_some() && shown.set_password(Some(MASK)).is_err() {
        *raw = Json::from(MASK);
    } else {
        *raw = Json::from(String::from(shown));
    }
    Ok(Some(LedgerPlace::Postgres(Secret::new(text))))
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
                Some(LedgerPlace::Postgres(_)) => format!("server {}", raw.as_str().unwrap()),
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
    }
}
