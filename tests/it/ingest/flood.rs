//! Floods: of connections, headers, bodies, nested JSON and batches. Beside each, somebody sends who behaves.

use std::fmt::Write as _;
use std::process::Command;

use lanekeeper_lab::testbed::raise_open_files_max;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::hostile::{begin, begin_from, read};
use super::sender::Sender;
use super::{Ingest, answer, config};
use crate::harness::{StandIn, World, assert_flawless, http, until};

const CONNECTIONS: usize = 10_000;
/// So many of them share an address, which has 28,000 ports.
const OF_ADDRESS: usize = 5_000;

const HOOK: &str = r#"
[[ingest.hook]]
name = "github"
verify = "github"
secrets = ["a secret of the sender"]
record_key = ["/record"]
id = "/id"
"#;

/// Another client than the one that behaves.
const OTHER_CLIENT: &str = "\n[[ingest.client]]\nname = \"flood\"\ntokens = [\"0123456789abcdef-flood\"]\n";

/// MiB of memory that the door has taken since `before`.
fn grown(door: &Ingest, before: f64) -> f64 {
    door.process.memory().peak_mb - before
}

async fn ends(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_take_little_and_the_oldest_makes_room() {
    raise_open_files_max();
    let world = World::new("ingest-idle").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, &format!("connections_max = {CONNECTIONS}")).await;
    let sender = Sender::start(&door, "good");
    sender.sends(20).await;
    let before = door.process.memory().now_mb;
    let mut idle = Vec::new();
    for number in 0..CONNECTIONS + 100 {
        let last = u8::try_from(2 + number / OF_ADDRESS).expect("few addresses");
        let text = ["", "PUT /updates/r/1 HTTP/1.1\r\nx: "][number % 2];
        idle.push(begin_from(&door, [127, 0, 0, last], text).await);
    }
    // All but one are those of strangers: the sender keeps its own.
    for stream in &mut idle[..100] {
        assert!(ends(stream).await, "the oldest idle one makes room");
    }
    let newest = idle.last_mut().expect("there are some");
    tokio::io::AsyncWriteExt::write_all(newest, b"y\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read(newest).await.starts_with("HTTP/1.1 401"), "the newest one is served");
    sender.sends(20).await;
    let grown = grown(&door, before);
    println!(
        "{CONNECTIONS} idle connections: {grown:.0} MiB, {:.1} KiB each",
        grown * 1024.0 / CONNECTIONS as f64
    );
    assert!(grown < 250.0, "{grown} MiB");
    let sent = sender.stopped("10,000 idle connections").await;
    assert_flawless(&world.applied(sent).await, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_headers_and_slow_headers_are_bounded() {
    let world = World::new("ingest-headers").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, "").await;
    let sender = Sender::start(&door, "good");
    sender.sends(20).await;
    let before = door.process.memory().now_mb;
    let head = "PUT /updates/r/1 HTTP/1.1\r\nhost: h\r\n";
    let many = format!("{head}{}\r\n", "x-a: b\r\n".repeat(129));
    let large = format!("{head}x-a: {}", "b".repeat(70_000));
    for _ in 0..100 {
        for text in [&many, &large] {
            // It is refused while it is written.
            let mut stream = TcpStream::connect(&door.address).await.expect("the door takes connections");
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await;
            let answered = read(&mut stream).await;
            assert!(answered.is_empty() || answered.starts_with("HTTP/1.1 431"), "{answered}");
        }
    }
    // Twice as many as there may be at once, each with as much of its headers as the door holds.
    let mut slow = Vec::new();
    for _ in 0..512 {
        slow.push(begin(&door, &format!("{head}x-a: {}", "b".repeat(60_000))).await);
    }
    sender.sends(20).await;
    let grown = grown(&door, before);
    println!("256 connections with 60 kB of headers each: {grown:.0} MiB");
    assert!(grown < 100.0, "{grown} MiB");
    let sent = sender.stopped("floods of headers").await;
    assert_flawless(&world.applied(sent).await, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_strangers_take_no_room_from_those_who_are_known() {
    let world = World::new("ingest-slow-bodies").await;
    let _dispatcher = world.dispatcher("").await;
    let extra = "connections_max = 1024\npending_bytes_max = 8_388_608\n";
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), extra) + HOOK)).await;
    door.process.ready().await;
    let sender = Sender::start(&door, "good");
    sender.sends(20).await;
    let before = door.process.memory().now_mb;
    let signature = "x-hub-signature-256: sha256=00\r\n";
    let head =
        format!("POST /hooks/github HTTP/1.1\r\nhost: h\r\n{signature}content-length: 1000000\r\n\r\n");
    let mut slow = Vec::new();
    // The last byte of room is taken, too. What finds none is answered, and closed, before its body is complete.
    for (count, bytes) in [(200, 100_000), (20, 10_000), (20, 1_000), (20, 100), (20, 10), (20, 1)] {
        for _ in 0..count {
            let mut stream = begin(&door, &head).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &vec![b'x'; bytes]).await;
            slow.push(stream);
        }
    }
    until("a webhook without room", || async {
        let metrics = door.process.metrics().await;
        let full = metrics.lines().find(|line| line.contains("ingest_problems_total{code=\"full\"}"));
        full.map(drop).ok_or(metrics)
    })
    .await;
    sender.sends(50).await;
    let grown = grown(&door, before);
    println!("200 slow bodies of 1 MB: {grown:.0} MiB");
    assert!(grown < 100.0, "{grown} MiB");
    let sent = sender.stopped("slow bodies").await;
    assert_flawless(&world.applied(sent).await, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_sent_on_and_not_unpacked() {
    let mut world = World::new("ingest-bomb").await;
    let target = StandIn::start(|_| (200, "{}".to_owned())).await;
    world.target = format!("http://{}", target.address());
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + HOOK)).await;
    door.process.ready().await;
    let gzip = Command::new("sh").args(["-c", "head -c 536870912 /dev/zero | gzip -9"]).output();
    let bomb = gzip.expect("gzip runs").stdout;
    assert!((100_000..1_000_000).contains(&bomb.len()), "{}", bomb.len());
    let before = door.process.memory().now_mb;
    for number in 0..20 {
        let request = door.request(Method::PUT, &format!("/updates/r/{number}"));
        let request = request.header("content-type", "application/json").header("content-encoding", "gzip");
        assert_eq!(answer(request.body(bomb.clone())).await.0, StatusCode::ACCEPTED);
    }
    let signature = super::hooks::hex("a secret of the sender", &bomb);
    let hook =
        http().post(format!("http://{}/hooks/github", door.address)).header("content-encoding", "gzip");
    let hook = hook.header("x-hub-signature-256", format!("sha256={signature}")).body(bomb.clone());
    assert_eq!(answer(hook).await.0, StatusCode::BAD_REQUEST, "it is no JSON as it is");
    until("20 requests at the target", || async {
        let seen = target.seen().len();
        if seen >= 20 { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    for seen in target.seen() {
        assert!(seen.header("content-encoding") == Some("gzip") && seen.body == bomb, "{:?}", seen.headers);
    }
    let grown = grown(&door, before);
    println!("21 bodies of {} bytes that unpack to 512 MiB: {grown:.0} MiB", bomb.len());
    assert!(grown < 100.0, "{grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_nested_without_end_ends_nothing() {
    let world = World::new("ingest-nested").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + HOOK)).await;
    door.process.ready().await;
    let sender = Sender::start(&door, "good");
    sender.sends(1).await;
    let before = door.process.memory().now_mb;
    let (open, closed) = ("[".repeat(400_000), "]".repeat(400_000));
    let objects = "{\"a\":".repeat(100_000);
    for nested in [format!("{open}{closed}"), open.clone(), objects] {
        let event = format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"r","data":{nested}}}"#
        );
        let line = format!(r#"{{"key":"r","id":"1","body":{nested}}}"#);
        let extension = format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"r","extra":{nested}}}"#
        );
        let of_key = format!(r#"{{"key":{nested},"id":"1","body":1}}"#);
        for (media_type, body) in [
            ("application/cloudevents+json", &extension),
            ("application/cloudevents+json", &nested),
            ("application/cloudevents-batch+json", &nested),
            ("application/x-ndjson", &of_key),
            ("application/x-ndjson", &nested),
        ] {
            let request = door.request(Method::POST, "/updates").header("content-type", media_type);
            let (status, answered) = answer(request.body(body.clone())).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{media_type}: {answered}");
        }
        // The body of an update is sent on as it is: whoever reads it must bound its depth.
        for (media_type, body) in [
            ("application/cloudevents+json", event.clone()),
            ("application/cloudevents-batch+json", format!("[{event}]")),
            ("application/x-ndjson", line),
        ] {
            let request = door.request(Method::POST, "/updates").header("content-type", media_type);
            let (status, answered) = answer(request.body(body)).await;
            assert!(!status.is_server_error(), "{answered}");
        }
        let hook = format!(r#"{{"record":"r","id":"1","more":{nested}}}"#);
        let signature = super::hooks::hex("a secret of the sender", hook.as_bytes());
        let request = http().post(format!("http://{}/hooks/github", door.address));
        let request = request.header("x-hub-signature-256", format!("sha256={signature}")).body(hook);
        assert_eq!(answer(request).await.0, StatusCode::BAD_REQUEST);
    }
    sender.sends(1).await;
    let grown = grown(&door, before);
    println!("nested JSON: {grown:.0} MiB");
    assert!(grown < 100.0, "{grown} MiB");
    sender.stopped("nested JSON").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_many_records_leave_room_for_others() {
    const BATCHES: usize = 40;
    let world = World::new("ingest-batches").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + OTHER_CLIENT)).await;
    door.process.ready().await;
    let sender = Sender::start(&door, "good");
    sender.sends(20).await;
    let before = door.process.memory().now_mb;
    let post = |body: String| {
        let request = http().post(format!("http://{}/updates", door.address)).body(body);
        request.header("content-type", "application/x-ndjson").bearer_auth("0123456789abcdef-flood")
    };
    let lines = |batch: usize, count: usize, filling: usize| {
        let filling = "x".repeat(filling);
        (0..count).fold(String::new(), |mut lines, number| {
            let body = json!({"sequence": 1, "filling": filling});
            writeln!(lines, r#"{{"key":"r-{batch}-{number}","id":"1","body":{body}}}"#)
                .expect("a string takes all");
            lines
        })
    };
    let (status, body) = answer(post(lines(0, 1_001, 0))).await;
    assert_eq!((status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large")));
    let (status, body) = answer(post(lines(0, 1_000, 10_000))).await;
    assert_eq!((status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large")));
    let sent: Vec<_> =
        (1..=BATCHES).map(|batch| tokio::spawn(answer(post(lines(batch, 1_000, 1_024))))).collect();
    let mut accepted = 0;
    for sent in sent {
        match sent.await.unwrap() {
            (StatusCode::ACCEPTED, _) => accepted += 1_000,
            // Its own bound, and the sender's is another one.
            (status, body) => {
                assert_eq!((status, &body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("too_many")));
            }
        }
    }
    sender.sends(20).await;
    let grown = grown(&door, before);
    println!("{BATCHES} batches at once, {accepted} of {BATCHES}000 updates accepted: {grown:.0} MiB");
    assert!(accepted > 0 && grown < 300.0, "{accepted} accepted, {grown} MiB");
    let sent = sender.stopped("batches of 1,000 records").await;
    assert_flawless(&world.applied(sent + accepted).await, sent + accepted);
}
