//! Clients that are slow, silent or many.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{Ingest, TOKEN, answer};
use crate::harness::{World, assert_flawless};

pub async fn begin(door: &Ingest, text: &str) -> TcpStream {
    begin_from(door, [127, 0, 0, 1], text).await
}

/// From this address of this host: each has its own ports.
pub async fn begin_from(door: &Ingest, from: [u8; 4], text: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind((from, 0).into()).expect("the address is of this host");
    let address = door.address.parse().expect("it is an address");
    let mut stream = socket.connect(address).await.expect("the door takes connections");
    stream.write_all(text.as_bytes()).await.expect("it can be written");
    stream
}

/// What comes until the connection ends, or for a while.
pub async fn read(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_connections_keep_nobody_out() {
    let world = World::new("ingest-silent-clients").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, "connections_max = 64").await;
    let mut held = Vec::new();
    for number in 0..2_000 {
        let text = ["", "PUT /updates/r/1 HTTP/1.1\r\nx: "][number % 2];
        held.push(begin(&door, text).await);
        if number % 500 == 499 {
            let sequence = number / 500 + 1;
            let update = door.put("r", &sequence.to_string(), &json!({"sequence": sequence}));
            assert_eq!(answer(update).await.0, StatusCode::ACCEPTED);
        }
    }
    assert_flawless(&world.applied(4).await, 4);
    let memory = door.process.memory();
    println!("resident after 2,000 connections: {memory:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_slowly_or_is_too_large_is_refused() {
    let world = World::new("ingest-bodies").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, "").await;
    let head = format!("PUT /updates/r/1 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {TOKEN}\r\n");
    let mut slow = begin(&door, &format!("{head}content-length: 10\r\n\r\n{{")).await;
    let mut unbounded = begin(&door, &format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..17 {
        if unbounded.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    assert!(read(&mut unbounded).await.starts_with("HTTP/1.1 413"), "1 MiB is the limit");
    let mut strange =
        begin(&door, &format!("{head}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{{}}")).await;
    let answered = read(&mut strange).await;
    assert!(!answered.starts_with("HTTP/1.1 202"), "{answered}");
    let mut headers =
        begin(&door, &format!("PUT /updates/r/1 HTTP/1.1\r\n{}\r\n", "x-a: b\r\n".repeat(500))).await;
    assert!(read(&mut headers).await.starts_with("HTTP/1.1 431"));
    // Without a token, its body is not waited for.
    let mut nobody = begin(&door, "PUT /updates/r/1 HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n").await;
    assert!(read(&mut nobody).await.starts_with("HTTP/1.1 401"));
    assert!(read(&mut slow).await.starts_with("HTTP/1.1 408"));
    assert_eq!(answer(door.put("r", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    assert_flawless(&world.applied(1).await, 1);
}
