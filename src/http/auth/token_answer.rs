//! What a token server answers (RFC 6749, sections 5.1 and 5.2).

use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value as Json};

use super::super::detail::one_line;

/// The longest token that is used: the header that carries it must fit what targets take.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// What is said to be shorter counts as this, so that the server is not asked all the time.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// What is said to be longer counts as this.
const LIFE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Of an error and its description, and of a type.
const QUOTE_CHARS_MAX: usize = 200;

/// A token as its server gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewToken {
    /// `Bearer TOKEN`.
    pub(super) header: HeaderValue,
    /// How long it is good for; `None`: the server has not said.
    pub(super) life: Option<Duration>,
}

/// Reads an answer.
///
/// # Errors
/// Why there is no token, in words. Only members that describe an error are quoted.
pub(super) fn parse(status: u16, body: &[u8]) -> Result<NewToken, String> {
    let fault = |what: &str| Err(format!("status {status}: {what}"));
    let answer: Option<Map<String, Json>> = serde_json::from_slice(body).ok();
    if let Some(error) = answer.as_ref().and_then(error_in) {
        return fault(&error);
    }
    match (status, answer) {
        (200..=299, Some(answer)) => token(&answer).or_else(|what| fault(&what)),
        (200..=299, None) => fault("the answer is not a JSON object"),
        (300..=399, _) => fault("redirects are not followed; correct token_url"),
        _ => Err(format!("status {status}")),
    }
}

/// `error: error_description`.
fn error_in(answer: &Map<String, Json>) -> Option<String> {
    let member = |name: &str| answer.get(name).and_then(Json::as_str).map(quote);
    let error = member("error")?;
    Some(match member("error_description") {
        Some(description) if !description.is_empty() => format!("{error}: {description}"),
        _ => error,
    })
}

fn token(answer: &Map<String, Json>) -> Result<NewToken, String> {
    let Some(token) = answer.get("access_token").and_then(Json::as_str) else {
        return Err("the answer has no access_token".to_owned());
    };
    // Some servers leave it out, although it is required.
    let token_type = answer.get("token_type").and_then(Json::as_str).unwrap_or("Bearer");
    if !token_type.eq_ignore_ascii_case("bearer") {
        let token_type = quote(token_type);
        return Err(format!("the token is of type {token_type:?}, and only Bearer tokens can be sent"));
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(format!("the token has {} bytes, more than {TOKEN_BYTES_MAX}", token.len()));
    }
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token is empty, or has characters that cannot be sent".to_owned());
    }
    let mut header =
        HeaderValue::from_str(&format!("Bearer {token}")).expect("graphic characters can be sent");
    header.set_sensitive(true);
    Ok(NewToken { header, life: answer.get("expires_in").and_then(life) })
}

/// A number of seconds; some servers write it as a string.
fn life(expires_in: &Json) -> Option<Duration> {
    let seconds = match expires_in {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite())?;
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LIFE_MAX).clamp(LIFE_MIN, LIFE_MAX))
}

fn quote(text: &str) -> String {
    one_line(&text.chars().take(QUOTE_CHARS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: Result<(&str, Option<u64>), &str>) {
        let got = parse(status, body.as_bytes());
        let got = got.map(|token| (token.header, token.life.map(|life| life.as_secs())));
        let expected = expected
            .map(|(token, life)| (HeaderValue::from_str(token).unwrap(), life))
            .map_err(ToOwned::to_owned);
        assert_eq!(got, expected, "{status} {body}");
    }

    #[test]
    fn a_token_is_read_as_servers_write_it() {
        let ok = |body, life| check(200, body, Ok(("Bearer t0k.en", life)));
        ok(r#"{"access_token":"t0k.en","token_type":"Bearer","expires_in":3600}"#, Some(3600));
        ok(r#"{"access_token":"t0k.en","token_type":"bearer","expires_in":"3599","scope":"a"}"#, Some(3599));
        ok(r#"{"access_token":"t0k.en","expires_in":1.5}"#, Some(1));
        ok(r#"{"access_token":"t0k.en","expires_in":0}"#, Some(1));
        ok(r#"{"access_token":"t0k.en","expires_in":-5}"#, Some(1));
        ok(r#"{"access_token":"t0k.en","expires_in":1e300}"#, Some(315_360_000));
        ok(r#"{"access_token":"t0k.en","expires_in":null}"#, None);
        ok(r#"{"access_token":"t0k.en","expires_in":"soon"}"#, None);
        ok(r#"{"access_token":"t0k.en","error":null}"#, None);
        check(201, r#"{"access_token":"a"}"#, Ok(("Bearer a", None)));
    }

    #[test]
    fn what_is_no_token_is_said_in_words_without_quoting_it() {
        let fault = |status, body: &str, expected: &str| check(status, body, Err(expected));
        fault(400, r#"{"error":"invalid_scope"}"#, "status 400: invalid_scope");
        fault(
            401,
            "{\"error\":\"invalid_client\",\"error_description\":\"no\\nsuch client\"}",
            "status 401: invalid_client: no such client",
        );
        fault(200, r#"{"error":"slow_down","access_token":"a"}"#, "status 200: slow_down");
        fault(500, "<html>s3cret</html>", "status 500");
        fault(400, r#"{"error":{"code":5}}"#, "status 400");
        fault(302, "", "status 302: redirects are not followed; correct token_url");
        fault(200, "", "status 200: the answer is not a JSON object");
        fault(200, r#"["s3cret"]"#, "status 200: the answer is not a JSON object");
        fault(200, r#"{"accessToken":"s3cret"}"#, "status 200: the answer has no access_token");
        fault(200, r#"{"access_token":7}"#, "status 200: the answer has no access_token");
        for token in ["", "a b", "a\\n", "ü"] {
            let body = format!(r#"{{"access_token":"{token}"}}"#);
            fault(200, &body, "status 200: the token is empty, or has characters that cannot be sent");
        }
        fault(
            200,
            r#"{"access_token":"a","token_type":"mac"}"#,
            "status 200: the token is of type \"mac\", and only Bearer tokens can be sent",
        );
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(16 * 1024 + 1));
        fault(200, &long, "status 200: the token has 16385 bytes, more than 16384");
    }
}
