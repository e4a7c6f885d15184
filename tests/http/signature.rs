//! Signatures, verified by others: the library of Standard Webhooks, and Node.js for ed25519.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use lanekeeper::http::{Attempt, Target};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::update::Update;
use standardwebhooks::Webhook;

use crate::server::{Server, answer};
use crate::{attempt_of, target_at, targets, update};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// RFC 8032, 7.1, test 1: the seed and its public key.
const ED25519_SEED: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// Headers and body of a request of HTTP/1.
pub fn parsed(request: &str) -> (http::HeaderMap, &str) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let headers = head.lines().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse().unwrap(), value.parse().unwrap())
    });
    (headers.collect(), body)
}

/// The requests that these bodies become at a target that signs with these secrets.
async fn requests(secrets: &str, bodies: &[&str]) -> Vec<String> {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let lines = format!("[target.signature]\nstandard_webhooks = {secrets}");
    let targets = targets(target_at(server.address, &lines)).unwrap();
    let mut requests = Vec::new();
    for (number, body) in (1..).zip(bodies) {
        let update = Update { body: Bytes::copy_from_slice(body.as_bytes()), ..update("k") };
        let attempt = Attempt { number, ..attempt_of(update) };
        assert_eq!(targets.attempt(attempt).await, Outcome::Applied);
        requests.push(server.next_request().await);
    }
    requests
}

#[tokio::test]
async fn the_library_of_standard_webhooks_verifies_every_request() {
    let bodies = ["", "{}", r#"{"a": "ü\n"}"#, " [1 , 2]\n"];
    let secrets = format!("[\"{SECRET}\", \"{NEXT_SECRET}\"]");
    for request in requests(&secrets, &bodies).await {
        let (headers, body) = parsed(&request);
        assert_eq!(headers["webhook-id"], "u-1");
        for secret in [SECRET, NEXT_SECRET] {
            Webhook::new(secret).unwrap().verify(body.as_bytes(), &headers).unwrap();
        }
        let other = Webhook::new("whsec_JJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJ").unwrap();
        other.verify(body.as_bytes(), &headers).unwrap_err();
        let changed = format!("{body} ");
        Webhook::new(SECRET).unwrap().verify(changed.as_bytes(), &headers).unwrap_err();
    }
}

/// An SPKI is this and the 32 bytes of the key (RFC 8410, section 4).
const VERIFY_IN_NODE: &str = r#"
const [key, signature, content] = process.argv.slice(1);
const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(key, "base64")]);
const crypto = require("crypto");
const publicKey = crypto.createPublicKey({ key: spki, format: "der", type: "spki" });
const valid = crypto.verify(null, Buffer.from(content), publicKey, Buffer.from(signature, "base64"));
process.exit(valid ? 0 : 9);
"#;

#[tokio::test]
async fn node_verifies_what_ed25519_has_signed() {
    let verify = |content: &str, signature: &str| {
        let mut node = Command::new("node");
        let ran = node.args(["-e", VERIFY_IN_NODE, ED25519_PUBLIC, signature, content]).status();
        ran.expect("Node.js is installed: scripts/test installs it").code()
    };
    for request in requests(&format!("[\"{SECRET}\", \"{ED25519_SEED}\"]"), &["{}", r#"{"a":"ü"}"#]).await {
        let (headers, body) = parsed(&request);
        let signatures = headers["webhook-signature"].to_str().unwrap();
        let (symmetric, ed25519) = signatures.split_once(' ').unwrap();
        assert!(symmetric.starts_with("v1,"), "{signatures}");
        let ed25519 = ed25519.strip_prefix("v1a,").unwrap();
        assert_eq!(BASE64.decode(ed25519).unwrap().len(), 64);
        let time = headers["webhook-timestamp"].to_str().unwrap();
        let content = format!("u-1.{time}.{body}");
        assert_eq!(verify(&content, ed25519), Some(0));
        assert_eq!(verify(&format!("{content} "), ed25519), Some(9));
    }
}

/// What fetches the record's `ETag` is signed, too.
#[tokio::test]
async fn every_request_of_an_attempt_is_signed() {
    let mut server = Server::answering(answer("204 No Content", "etag: \"1\"\r\n", ""), false).await;
    let lines = format!("if_match = \"auto\"\n[target.signature]\nstandard_webhooks = \"{SECRET}\"");
    let targets = targets(target_at(server.address, &lines)).unwrap();
    assert_eq!(targets.attempt(attempt_of(update("k"))).await, Outcome::Applied);
    for method in ["GET ", "PUT "] {
        let request = server.next_request().await;
        assert!(request.starts_with(method), "{request}");
        let (headers, body) = parsed(&request);
        Webhook::new(SECRET).unwrap().verify(body.as_bytes(), &headers).unwrap();
    }
}

#[tokio::test]
async fn a_signature_replaces_headers_of_the_publisher() {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let lines = "[target.signature.hmac]\nheader = \"ce-signature\"\nsecret = \"s3cret\"";
    let targets = targets(target_at(server.address, lines)).unwrap();
    let update = Update { headers: vec![("ce-signature".into(), "forged".into())], ..update("k") };
    assert_eq!(targets.attempt(attempt_of(update)).await, Outcome::Applied);
    let request = server.next_request().await;
    let (headers, _) = parsed(&request);
    assert_eq!(headers.get_all("ce-signature").iter().count(), 1);
    assert_eq!(headers["ce-signature"].len(), 64);
}
