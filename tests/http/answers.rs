//! What comes back.

use std::time::Duration;

use lanekeeper::config::{AnswerBody, TargetConfig};
use lanekeeper::http::Target;
use lanekeeper_core::outcome::{Cause, Failure, Outcome, OutcomeKind};
use lanekeeper_core::pacing::Quota;
use lanekeeper_core::update::Update;

use crate::server::{Server, answer};
use crate::{attempt, attempt_of, target, targets, update};

async fn outcome_of(bytes: impl Into<Vec<u8>>) -> Outcome {
    let server = Server::answering(bytes, true).await;
    attempt(target(server.address)).await
}

fn failure(cause: Cause, detail: &str) -> Failure {
    Failure { cause, detail: detail.into() }
}

#[tokio::test]
async fn a_status_gives_the_outcome_and_the_body_the_reason() {
    assert_eq!(outcome_of(answer("200 OK", "", "fine")).await, Outcome::Applied);
    assert_eq!(
        outcome_of(answer(
            "422 No",
            "content-type: application/problem+json\r\n",
            r#"{"title":"Bad","detail":"age"}"#
        ))
        .await,
        Outcome::Rejected(failure(Cause::Status(422), "Bad: age"))
    );
    assert_eq!(
        outcome_of(answer("409 No", "", "newer exists\r\n")).await,
        Outcome::Conflict(failure(Cause::Status(409), "newer exists"))
    );
    assert_eq!(outcome_of(answer("401 No", "", "")).await, Outcome::Refused(failure(Cause::Status(401), "")));
    assert_eq!(
        outcome_of(answer("503 No", "", "x")).await,
        Outcome::Retryable { failure: failure(Cause::Status(503), "x"), retry_after: None }
    );
}

#[tokio::test]
async fn a_target_may_override_a_status() {
    let server = Server::answering(answer("404 No", "", "gone"), true).await;
    let mut config = target(server.address);
    config.outcomes.insert(404, OutcomeKind::Applied);
    assert_eq!(attempt(config).await, Outcome::Applied);
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    let check = async |status: &str, headers: &str, expected: Option<u64>| match outcome_of(answer(
        status, headers, "",
    ))
    .await
    {
        Outcome::Retryable { retry_after, .. } => {
            assert_eq!(retry_after, expected.map(Duration::from_secs), "{headers}");
        }
        other => panic!("{other:?}"),
    };
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    check("429 No", "retry-after: 7\r\n", Some(7)).await;
    check("503 No", "Retry-After: 0\r\n", Some(0)).await;
    check("500 No", "retry-after: 3\r\n", Some(3)).await;
    check("503 No", &format!("{date}retry-after: Sun, 06 Nov 1994 08:51:37 GMT\r\n"), Some(120)).await;
    check("503 No", "retry-after: Sun, 06 Nov 1994 08:51:37 GMT\r\n", Some(0)).await;
    check("503 No", "retry-after: soon\r\n", None).await;
    check("503 No", "retry-after: \u{e9}\r\n", None).await;
    check("503 No", "", None).await;
}

#[tokio::test]
async fn what_an_answer_says_about_the_limit_is_in_the_receipt() {
    for status in ["200 OK", "429 No", "503 No", "422 No"] {
        let fields = "ratelimit-policy: \"default\";q=100;w=60\r\nRateLimit: \"default\";r=3;t=20\r\n";
        let server = Server::answering(answer(status, fields, ""), true).await;
        let targets = targets(target(server.address)).unwrap();
        let (_, receipt) = targets.send(attempt_of(update("k"))).await;
        let expected = Quota {
            remaining: Some(3),
            reset: Some(Duration::from_secs(20)),
            limit: Some(100),
            window: Some(Duration::from_secs(60)),
        };
        assert_eq!(receipt.quota.as_deref().copied().unwrap_or_default(), expected, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_not_followed() {
    let mut elsewhere = Server::answering(answer("200 OK", "", ""), true).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("location: http://{}/evil\r\n", elsewhere.address);
        let outcome = outcome_of(answer(status, &location, "")).await;
        assert_eq!(outcome.kind(), OutcomeKind::Refused, "{status}");
    }
    assert!(elsewhere.no_further_request());
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_101_is_none() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    assert_eq!(outcome_of(interim.to_owned() + &answer("200 OK", "", "")).await, Outcome::Applied);
    let switched =
        outcome_of("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello")
            .await;
    assert_eq!(switched.kind(), OutcomeKind::Retryable);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_believed() {
    for broken in [
        &b""[..],
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 20000 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nna me: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &b"\xff".repeat(70_000),
    ] {
        match outcome_of(broken).await {
            Outcome::Retryable { failure, retry_after: None } => {
                assert_eq!(failure.cause, Cause::Connection, "{}", broken.escape_ascii());
                assert!(
                    !failure.detail.is_empty() && !failure.detail.contains("customers"),
                    "{}",
                    failure.detail
                );
            }
            other => panic!("{}: {other:?}", broken.escape_ascii()),
        }
    }
}

#[tokio::test]
async fn a_target_whose_bodies_say_nothing_is_believed_by_its_status() {
    let check = async |bytes: &str, expected: OutcomeKind| {
        let server = Server::answering(bytes, true).await;
        let config = TargetConfig { answer_body: AnswerBody::Ignore, ..target(server.address) };
        assert_eq!(attempt(config).await.kind(), expected, "{bytes}");
    };
    check("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", OutcomeKind::Applied).await;
    check("HTTP/1.1 422 No\r\ncontent-length: 10\r\n\r\nhalf", OutcomeKind::Rejected).await;
    check("HTTP/1.1 200 OK\r\ncontent-le", OutcomeKind::Retryable).await;
}

/// In the words of RFC 9110, 13.1.1: such a tag is never equal.
#[tokio::test]
async fn a_weak_etag_that_meets_412_is_named_as_the_cause() {
    let check = async |etag: &str, named: bool| {
        let server = Server::answering(answer("412 Precondition Failed", "", "changed"), false).await;
        let targets = targets(target(server.address)).unwrap();
        let update = Update { if_match: Some(etag.into()), ..update("k") };
        let Outcome::Conflict(failure) = targets.attempt(attempt_of(update)).await else {
            panic!("412 is a conflict")
        };
        assert_eq!(failure.detail.contains("is weak"), named, "{}", failure.detail);
        assert!(failure.detail.ends_with("changed"), "{}", failure.detail);
    };
    check("W/\"7\"", true).await;
    check("\"7\"", false).await;
}

#[tokio::test]
async fn a_failure_stands_although_its_body_breaks_off() {
    let outcome = outcome_of("HTTP/1.1 422 No\r\ncontent-length: 100\r\n\r\nage is mis").await;
    assert_eq!(outcome, Outcome::Rejected(failure(Cause::Status(422), "age is mis")));
}

#[tokio::test]
async fn odd_headers_do_no_harm() {
    assert_eq!(outcome_of("HTTP/1.1 200\r\nx: \u{fc}\r\ncontent-length: 0\r\n\r\n").await, Outcome::Applied);
    assert_eq!(outcome_of("HTTP/1.0 200 OK\r\n\r\nuntil the end").await, Outcome::Applied);
    assert_eq!(
        outcome_of("HTTP/1.1 999 ?\r\ncontent-length: 0\r\n\r\n").await.kind(),
        OutcomeKind::Retryable
    );
    assert_eq!(
        outcome_of("HTTP/1.1 200 OK\r\nx: folded\r\n  line\r\ncontent-length: 0\r\n\r\n").await,
        Outcome::Applied
    );
    let several = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(900));
    assert_eq!(outcome_of(several).await, Outcome::Applied);
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(outcome_of(huge).await.kind(), OutcomeKind::Retryable);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    assert_eq!(outcome_of(many).await.kind(), OutcomeKind::Retryable);
}

#[tokio::test]
async fn a_long_reason_is_cut() {
    match outcome_of(answer("400 No", "", &"long ".repeat(100_000))).await {
        Outcome::Rejected(failure) => {
            assert!(failure.detail.ends_with('…'), "{}", failure.detail);
            assert!(failure.detail.chars().count() <= 502);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_is_still_at_work_is_no_conflict_where_the_target_says_when_to_come_again() {
    let outcome = outcome_of("HTTP/1.1 409 Conflict\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n").await;
    let Outcome::Retryable { retry_after, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(3)));
    let outcome = outcome_of("HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").await;
    assert!(matches!(outcome, Outcome::Conflict(_)), "{outcome:?}");
}
