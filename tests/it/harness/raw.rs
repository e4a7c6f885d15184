//! A publisher that no client library would be: it sends what it is told, byte for byte (AMQP 0-9-1, section 4.2).

use std::io::{Read, Write};
use std::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Property flag of the headers table (AMQP 0-9-1, basic class).
const HAS_HEADERS: u16 = 0x2000;
/// Of a body: also where the broker sets no bound on frames.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// Publishes one message, and waits until the broker has seen it. `headers` are the bytes inside the headers table.
pub fn publish_raw(url: &str, exchange: &str, routing_key: &[u8], headers: &[u8], body: &[u8]) {
    let address =
        url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("a URL of the harness");
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.write_all(b"AMQP\x00\x00\x09\x01").expect("it is sent");
    expect(&mut stream, 10, 10);
    let start = [&table(b""), &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")]
        .map(Vec::as_slice)
        .concat();
    method(&mut stream, 0, 10, 11, &start);
    let tune = expect(&mut stream, 10, 30);
    method(&mut stream, 0, 10, 31, &[&tune[..6], &[0, 0]].concat());
    method(&mut stream, 0, 10, 40, &[short(b"/"), short(b""), vec![0]].concat());
    expect(&mut stream, 10, 41);
    method(&mut stream, 1, 20, 10, &short(b""));
    expect(&mut stream, 20, 11);
    let publish = [vec![0, 0], short(exchange.as_bytes()), short(routing_key), vec![0]].concat();
    method(&mut stream, 1, 60, 40, &publish);
    let size = u64::try_from(body.len()).expect("it fits").to_be_bytes();
    let properties = [&[0, 60, 0, 0], &size[..], &HAS_HEADERS.to_be_bytes(), &table(headers)].concat();
    frame(&mut stream, HEADER, 1, &properties);
    let frame_max = u32::from_be_bytes(tune[2..6].try_into().expect("four bytes"));
    let piece = usize::try_from(frame_max).expect("it fits").saturating_sub(8).clamp(1, PIECE_BYTES_MAX);
    for piece in body.chunks(piece) {
        frame(&mut stream, BODY, 1, piece);
    }
    method(&mut stream, 1, 20, 40, &[vec![0, 200], short(b"done"), vec![0; 4]].concat());
    expect(&mut stream, 20, 41);
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("a short string")], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("a long string").to_be_bytes(), bytes].concat()
}

fn table(bytes: &[u8]) -> Vec<u8> {
    long(bytes)
}

fn method(stream: &mut TcpStream, channel: u16, class: u16, method: u16, arguments: &[u8]) {
    let payload = [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat();
    frame(stream, METHOD, channel, &payload);
}

fn frame(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let frame = [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xCE]].concat();
    stream.write_all(&frame).expect("it is sent");
}

/// Reads one frame, which must be this method; its arguments.
fn expect(stream: &mut TcpStream, class: u16, method: u16) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).expect("the broker answers");
    let size = u32::from_be_bytes(head[3..7].try_into().expect("four bytes"));
    let mut payload = vec![0; usize::try_from(size).expect("it is small") + 1];
    stream.read_exact(&mut payload).expect("the broker answers");
    let got = (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
    assert_eq!(got, (class, method), "{}", String::from_utf8_lossy(&payload));
    payload[4..payload.len() - 1].to_vec()
}
