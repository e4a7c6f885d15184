//! Tokens and signatures that somebody guesses.

use reqwest::StatusCode;
use serde_json::json;

use super::hooks::hex;
use super::hostile::{begin_from, read};
use super::sender::Sender;
use super::{Ingest, TOKEN, answer, config};
use crate::harness::{World, assert_flawless};

/// Wrong ones of an address in a minute that are answered 401.
const LOOKED_AT: usize = 10;

const HOOK: &str = r#"
[[ingest.hook]]
name = "github"
verify = "github"
secrets = ["a secret of the sender"]
record_key = ["/record"]
id = "/id"
"#;
const SIGNED: &str = r#"{"record":"hook","id":"1","sequence":1}"#;

/// Status and `Retry-After` of a request from this address.
async fn asked(door: &Ingest, from: [u8; 4], head: &str, body: &str) -> (u16, Option<u64>) {
    let text = format!("{head}host: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answered = read(&mut begin_from(door, from, &text).await).await;
    let status = answered.get(9..12).and_then(|status| status.parse().ok());
    let wait = answered.lines().find_map(|line| line.strip_prefix("retry-after: ")?.trim().parse().ok());
    (status.unwrap_or_else(|| panic!("{answered:?}")), wait)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_is_refused_and_a_right_token_is_taken_from_any_address() {
    let world = World::new("ingest-guesses").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + HOOK)).await;
    door.process.ready().await;
    let sender = Sender::start(&door, "good");
    let with =
        |token: &str, id: usize| format!("PUT /updates/r/{id} HTTP/1.1\r\nauthorization: Bearer {token}\r\n");
    for number in 0..300 {
        let guess = format!("{}{number:03}", &TOKEN[..TOKEN.len() - 3]);
        let (status, wait) = asked(&door, [127, 0, 0, 2], &with(&guess, 9), "{}").await;
        if number < LOOKED_AT {
            assert_eq!((status, wait), (401, None), "guess {number}");
        } else {
            assert!(status == 429 && wait.is_some_and(|wait| (1..=60).contains(&wait)), "{number}: {status}");
        }
    }
    // A wrong one from another address counts for itself; a right one is taken, also from where somebody guesses.
    assert_eq!(asked(&door, [127, 0, 0, 3], &with("wrong", 9), "{}").await.0, 401);
    assert_eq!(asked(&door, [127, 0, 0, 3], &with(TOKEN, 1), r#"{"sequence":1}"#).await.0, 202);
    assert_eq!(asked(&door, [127, 0, 0, 2], &with(TOKEN, 2), r#"{"sequence":2}"#).await.0, 202);
    // Nobody has guessed who shows nothing.
    assert_eq!(asked(&door, [127, 0, 0, 2], "PUT /updates/r/9 HTTP/1.1\r\n", "{}").await, (401, None));

    let signed = |signature: &str| {
        format!("POST /hooks/github HTTP/1.1\r\nx-hub-signature-256: sha256={signature}\r\n")
    };
    for number in 0..40 {
        let (status, _) = asked(&door, [127, 0, 0, 4], &signed(&format!("{number:064x}")), SIGNED).await;
        assert_eq!(status, if number < LOOKED_AT { 401 } else { 429 }, "signature {number}");
    }
    let right = signed(&hex("a secret of the sender", SIGNED.as_bytes()));
    assert_eq!(asked(&door, [127, 0, 0, 4], &right, SIGNED).await.0, 202);
    let refused = door.process.log().iter().filter(|line| line.contains("webhook refused")).count();
    assert_eq!(refused, LOOKED_AT, "not each guess is a line of the log");
    sender.sends(1).await;
    let sent = sender.stopped("340 guesses").await;
    assert_flawless(&world.applied(sent + 3).await, sent + 3);
    assert_eq!(answer(door.put("s", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    println!("resident after the guesses: {:?}", door.process.memory());
}
