//! Masks what may be a secret in values that are shown.
//!
//! What came from `${…}` or `file:` is masked because of where it came from. In URLs as they are written, passwords, the
//! values of query parameters and path segments that look like tokens are masked.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::fault::Problem;
use lanekeeper_core::secret::MASK;

/// Query parameters of `broker.url` and `ledger.url` whose values are settings.
const SETTINGS: [&str; 9] = [
    "frame_max",
    "channel_max",
    "connection_timeout",
    "auth_mechanism",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
];

/// A word of letters and digits, both of them, is a token from this length on.
const TOKEN_LENGTH_MIN: usize = 16;

/// A problem quotes a secret if it has so many characters of it in a row. What is shorter is no secret.
const QUOTE_LENGTH_MIN: usize = 4;

/// The value to show. `parsed` is what the parser of the key left to show, `written` the value with its references replaced,
/// `masked` the same with each reference replaced by [`MASK`]. Numbers and flags are shown, whatever they came from.
pub(super) fn shown(parsed: Json, written: &Json, masked: &Json) -> Json {
    if written == masked || !(parsed.is_string() || parsed.is_array() || parsed.is_object()) {
        return parsed;
    }
    match (parsed, written, masked) {
        (Json::Array(parsed), Json::Array(written), Json::Array(masked)) if parsed.len() == written.len() => {
            let each = parsed.into_iter().zip(written.iter().zip(masked));
            Json::Array(each.map(|(parsed, (written, masked))| shown(parsed, written, masked)).collect())
        }
        (Json::String(parsed), Json::String(_), Json::String(masked)) if parsed != MASK => {
            Json::from(url(masked))
        }
        _ => Json::from(MASK),
    }
}

/// A problem that does not quote what a reference stands for. `secrets`: what references stand for.
pub(super) fn problem(problem: Problem, secrets: &[String]) -> Problem {
    let text = problem.to_string();
    if problem.is_constant() || !secrets.iter().any(|secret| quotes(&text, secret)) {
        return problem;
    }
    Problem::new(
        "what a ${…} or file: in it stands for is no value of this key (it is not quoted here, since it may be a secret)",
        "correct the variable or the file; config/default.toml explains the key",
    )
}

fn quotes(text: &str, secret: &str) -> bool {
    let escaped = format!("{secret:?}");
    [secret, &escaped].iter().any(|secret| {
        let chars: Vec<char> = secret.chars().collect();
        chars.windows(QUOTE_LENGTH_MIN).any(|part| text.contains(&part.iter().collect::<String>()))
    })
}

/// A URL, or a list of them with commas between, without what may be a secret. Other texts stay as they are.
pub(super) fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (location, query) =
        rest.split_once('?').map_or((rest, None), |(location, query)| (location, Some(query)));
    let (authority, path) = location.split_at(location.find('/').unwrap_or(location.len()));
    let mut shown = format!("{scheme}://{}", without_password(authority));
    let segments: Vec<&str> =
        path.split('/').map(|segment| if is_token(segment) { MASK } else { segment }).collect();
    shown += &segments.join("/");
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if SETTINGS.contains(&name) => shown += parameter,
            Some((name, "")) => drop(write!(shown, "{name}=")),
            Some((name, _)) => drop(write!(shown, "{name}={MASK}")),
            None if parameter.is_empty() => {}
            None => shown += MASK,
        }
    }
    shown
}

/// Several hosts can have a user and a password each.
fn without_password(authority: &str) -> String {
    let hosts = authority.split(',').map(|host| match host.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{host}"),
            None => format!("{user}@{host}"),
        },
        None => host.to_owned(),
    });
    hosts.collect::<Vec<_>>().join(",")
}

/// Random letters and digits without a break, or a UUID.
fn is_token(segment: &str) -> bool {
    let mixed = |word: &str| {
        word.len() >= TOKEN_LENGTH_MIN
            && word.contains(|c: char| c.is_ascii_digit())
            && word.contains(|c: char| c.is_ascii_alphabetic())
    };
    uuid::Uuid::try_parse(segment).is_ok() || segment.split(|c: char| !c.is_ascii_alphanumeric()).any(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_a_secret() {
        let check = |written: &str, expected: &str| assert_eq!(url(written), expected, "{written}");
        for plain in [
            "text",
            "https://api.example:8443/v2/customers-and-orders/{record_key}",
            "https://api.example/internationalisation/{record_key}/20260131",
            "amqp://app@mq:5672/%2f?frame_max=32768",
            "postgres://db/lanes?sslmode=verify-full",
        ] {
            check(plain, plain);
        }
        check("https://h/{record_key}?key=s3cret&s3cret&x=", "https://h/{record_key}?key=***&***&x=");
        check("https://h?a=b", "https://h?a=***");
        check(
            "https://h/services/T00000000/B0000/q7Rw4kZPabLmndYV9hjkTU0s/{record_key}",
            "https://h/services/T00000000/B0000/***/{record_key}",
        );
        check("https://h/6ba7b810-9dad-11d1-80b4-00c04fd430c8/{record_key}", "https://h/***/{record_key}");
        check("amqp://u:s3@cret@a,v:s3cret@b/x", "amqp://u:***@a,v:***@b/x");
    }

    #[test]
    fn a_problem_that_quotes_a_secret_is_replaced() {
        let secrets = ["hunter\"22".to_owned(), "8".to_owned()];
        let check = |what: &str, quoted: bool| {
            let problem = problem(Problem::new(what, "fix"), &secrets).to_string();
            assert_eq!(problem.contains("not quoted here"), quoted, "{what}: {problem}");
        };
        check("8 is too much", false);
        check("\"hunter\\\"22\" is no number", true);
        check("unknown placeholder {hunt}", true);
        check("the hun", false);
    }
}
