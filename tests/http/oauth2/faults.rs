//! Token servers that are away, or answer with anything but a token: the target refuses us all, in words, and without a secret.

use lanekeeper_core::outcome::Outcome;
use tokio::net::TcpListener;

use super::world::{Behaviour, World, attempt, config, why_without};
use crate::server::{Server, answer};
use crate::targets;

/// What a token server that answers so makes of an attempt, without "token server URL: ".
async fn why(bytes: impl Into<Vec<u8>>, close: bool) -> String {
    let mut target = Server::answering(answer("204 No Content", "", ""), false).await;
    let server = Server::answering(bytes, close).await;
    let targets = targets(config(target.address, server.address, "")).unwrap();
    let outcome = attempt(&targets).await;
    assert!(target.no_further_request(), "nothing goes out without a token");
    let detail = why_without(&outcome);
    for secret in ["s3cret", "qu3ry", "t0ken"] {
        assert!(!detail.contains(secret), "{detail}");
    }
    let url = format!("token server http://{}/token: ", server.address);
    detail.strip_prefix(&url).unwrap_or_else(|| panic!("{url} {detail}")).to_owned()
}

#[tokio::test]
async fn an_answer_without_a_token_is_said_in_words() {
    let json = |status: &str, body: &str| answer(status, "content-type: application/json\r\n", body);
    for (bytes, expected) in [
        (
            json(
                "401 Unauthorized",
                r#"{"error":"invalid_client","error_description":"no client with s3cret"}"#,
            ),
            "status 401: invalid_client: no client with ***",
        ),
        (json("400 Bad Request", r#"{"error":"invalid_scope"}"#), "status 400: invalid_scope"),
        (json("503 Service Unavailable", "s3cret"), "status 503"),
        (json("200 OK", r#"{"token":"t0ken"}"#), "status 200: the answer has no access_token"),
        (json("200 OK", "t0ken"), "status 200: the answer is not a JSON object"),
        (
            answer("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
            "status 302: redirects are not followed; correct token_url",
        ),
        (json("200 OK", &"t0ken ".repeat(20_000)), "status 200: the answer has more than 65536 bytes"),
    ] {
        assert_eq!(why(bytes, false).await, expected);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_token() {
    let whole = answer("200 OK", "", r#"{"access_token":"t0ken"}"#);
    assert_eq!(
        why(&whole[..whole.len() - 1], true).await,
        "status 200: the answer breaks off: the server closed the connection before its answer was complete"
    );
    assert_eq!(why(&whole[..20], true).await, "the server closed the connection before it had answered");
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let mut target = Server::answering(answer("204 No Content", "", ""), false).await;
    let away = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let targets = targets(config(target.address, away, "")).unwrap();
    for _ in 0..3 {
        let outcome = attempt(&targets).await;
        let expected = format!("token server http://{away}/token: connection refused by {away}");
        assert_eq!(why_without(&outcome), expected);
    }
    assert!(target.no_further_request());
}

#[tokio::test]
async fn a_token_that_was_refused_is_not_sent_again_while_its_server_gives_no_other() {
    let world = World::new(Behaviour { open: 1, ..Behaviour::default() }).await;
    let targets = targets(world.config("connect_timeout = \"200ms\"")).unwrap();
    assert_eq!(attempt(&targets).await, Outcome::Applied);
    world.revoke("t1");
    for _ in 0..3 {
        let outcome = attempt(&targets).await;
        assert!(why_without(&outcome).contains("no token yet"), "{outcome:?}");
    }
    let tokens: Vec<String> =
        world.seen().into_iter().map(|(token, status)| format!("{token} {status}")).collect();
    assert_eq!(tokens, ["t1 200", "t1 401"]);
}
