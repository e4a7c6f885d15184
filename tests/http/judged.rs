//! What `[[target.answers]]` makes of answers whose status does not say what they mean.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use lanekeeper::config::TargetConfig;
use lanekeeper::http::Target;
use lanekeeper::http::judge::{Answer, BodyEnd, judge};
use lanekeeper_core::outcome::{Cause, Failure, Outcome, OutcomeKind};

use crate::server::{Server, answer};
use crate::{attempt, attempt_of, target_with, targets, update};

/// What most such APIs need: busy is for later, any other error is final, and a duplicate is as good as applied.
const ROWS: &str = r#"
[[target.answers]]
status = 200
pointer = "/error/code"
value = "locked"
outcome = "retryable"

[[target.answers]]
status = "2xx"
pointer = "/error/code"
pattern = "^(4\\d\\d|conflict)$"
outcome = "conflict"

[[target.answers]]
status = 200
pointer = "/error"
outcome = "rejected"

[[target.answers]]
status = 409
pointer = "/code"
value = 1062
outcome = "applied"

[[target.answers]]
status = 404
outcome = "refused"

[[target.answers]]
status = 422
pattern = "(?i)try again"
outcome = "retryable"
"#;

fn config(address: &str) -> TargetConfig {
    target_with(&format!(
        "url = \"http://{address}/{{record_key}}\"\noutcomes = {{ 410 = \"applied\" }}\n{ROWS}"
    ))
}

fn judged(status: u16, headers: &HeaderMap, body: &[u8], end: BodyEnd) -> (Option<usize>, Outcome) {
    let judged = judge(&config("h"), &Answer { status, headers, body, end });
    (judged.row, judged.outcome)
}

fn check(status: u16, body: &str, row: Option<usize>, kind: OutcomeKind, detail: &str) {
    let (found, outcome) = judged(status, &HeaderMap::new(), body.as_bytes(), BodyEnd::Complete);
    assert_eq!((found, outcome.kind()), (row, kind), "{status} {body}: {outcome:?}");
    let failure = outcome.failure().map(|failure| (failure.cause, failure.detail.as_str()));
    let expected = (kind != OutcomeKind::Applied).then_some((Cause::Status(status), detail));
    assert_eq!(failure, expected, "{status} {body}");
}

#[test]
fn the_first_row_that_fits_counts() {
    use OutcomeKind::{Applied, Conflict, Refused, Rejected, Retryable};
    let locked = r#"{"error":{"code":"locked"}}"#;
    check(200, locked, Some(0), Retryable, "answers[0]: /error/code is \"locked\"");
    check(201, locked, None, Applied, "");
    check(200, &format!("\u{feff}{locked}"), Some(0), Retryable, "answers[0]: /error/code is \"locked\"");
    check(201, r#"{"error":{"code":409}}"#, Some(1), Conflict, "answers[1]: /error/code is \"409\"");
    check(200, r#"{"error":{"code":"x"}}"#, Some(2), Rejected, "answers[2]: /error is \"an object\"");
    check(200, r#"{"error":false}"#, Some(2), Rejected, "answers[2]: /error is \"false\"");
    check(200, r#"{"error":null,"id":5}"#, None, Applied, "");
    check(200, "[]", None, Applied, "");
    check(409, r#"{"code":1062}"#, Some(3), Applied, "");
    check(409, r#"{"code":1062.0}"#, Some(3), Applied, "");
    check(409, r#"{"code":"1062"}"#, None, Conflict, r#"{"code":"1062"}"#);
    check(404, "gone", Some(4), Refused, "answers[4]: gone");
    check(404, "", Some(4), Refused, "answers[4]");
    check(422, "Please TRY AGAIN later", Some(5), Retryable, "answers[5]: \"TRY AGAIN\"");
    check(422, "no", None, Rejected, "no");
    check(204, "", None, Applied, "");
    check(410, "", None, Applied, "");
    let long = format!(r#"{{"error":"{}"}}"#, "é\\n".repeat(300));
    let (_, outcome) = judged(200, &HeaderMap::new(), long.as_bytes(), BodyEnd::Complete);
    assert!(outcome.failure().unwrap().detail.chars().count() < 150, "{outcome:?}");
}

/// It must not count as applied: what the rows were made to find may be in it.
#[test]
fn an_answer_that_cannot_be_judged_is_not_applied() {
    let mut compressed = HeaderMap::new();
    compressed.insert("content-encoding", HeaderValue::from_static("gzip"));
    let none = HeaderMap::new();
    let broken = Outcome::Retryable {
        failure: Failure { cause: Cause::Connection, detail: "reset".into() },
        retry_after: None,
    };
    let check = |headers: &HeaderMap, body: &str, end: BodyEnd, expected: &str| {
        let (row, outcome) = judged(200, headers, body.as_bytes(), end);
        assert!(row.is_none() && matches!(outcome, Outcome::Retryable { .. }), "{outcome:?}");
        let text = outcome.failure().unwrap().to_string();
        assert!(text.contains(expected) && !text.contains("s3cret"), "{expected} in {text}");
    };
    check(&none, "<html>s3cret", BodyEnd::Complete, "status 200: answers[0] cannot judge this answer");
    check(&none, "<html>s3cret", BodyEnd::Complete, "not JSON");
    check(&none, "", BodyEnd::Complete, "not JSON");
    check(&none, "{\"a\":", BodyEnd::Longer, "longer than 1 MiB");
    check(&none, "{}", BodyEnd::Broken(broken), "connection: reset");
    check(&compressed, "{}", BodyEnd::Complete, "content-encoding");
    // What is no success without the rows stays what it is.
    let (row, outcome) = judged(409, &none, b"<html>", BodyEnd::Complete);
    assert_eq!((row, outcome.kind()), (None, OutcomeKind::Conflict));
}

async fn sent(answer: impl Into<Vec<u8>>) -> Outcome {
    let server = Server::answering(answer, true).await;
    attempt(config(&server.address.to_string())).await
}

#[tokio::test]
async fn an_error_inside_a_200_is_found_and_the_answer_believed() {
    let error = answer("200 OK", "retry-after: 7\r\n", r#"{"error":{"code":"locked"}}"#);
    let mut server = Server::answering(error, true).await;
    let targets = targets(config(&server.address.to_string())).unwrap();
    let (outcome, receipt) = targets.send(attempt_of(update("k"))).await;
    assert!(receipt.of_target);
    let request = server.next_request().await;
    assert!(
        request.contains("\r\naccept-encoding: identity\r\n"),
        "it asks for a body that it can judge: {request}"
    );
    match outcome {
        Outcome::Retryable { retry_after, .. } => assert_eq!(retry_after, Some(Duration::from_secs(7))),
        other => panic!("{other:?}"),
    }
    assert_eq!(sent(answer("200 OK", "", r#"{"id":5}"#)).await, Outcome::Applied);
    let padded = format!(r#"{{"padding":"{}","error":"x"}}"#, "x".repeat(600_000));
    assert!(matches!(sent(answer("200 OK", "", &padded)).await, Outcome::Rejected(_)));
}

#[tokio::test]
async fn a_body_that_is_too_long_or_breaks_off_is_not_applied() {
    let check = async |bytes: String, expected: &str| match sent(bytes).await {
        Outcome::Retryable { failure, .. } => {
            assert!(failure.to_string().contains(expected), "{failure}");
        }
        other => panic!("{other:?}"),
    };
    let long = format!(r#"{{"padding":"{}"}}"#, "x".repeat(1_100_000));
    check(answer("200 OK", "", &long), "longer than 1 MiB").await;
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    check(chunked, "longer than 1 MiB").await;
    check("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"id\":5}".into(), "before its answer was complete")
        .await;
    // Without a length, the end of the connection is the end of the body, which is cut here all the same.
    check("HTTP/1.1 200 OK\r\n\r\n{\"id\":5".into(), "not JSON").await;
}
