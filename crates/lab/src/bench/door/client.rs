//! Clients of a door that cost little: requests are made before they are sent, and of an answer only its end is looked for.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::super::error::BenchError;
use lanekeeper_broker::publisher::Outgoing;

/// The token of the clients.
pub(super) const TOKEN: &str = "token-of-the-benchmark";
/// Answers are shorter.
const ANSWER_BYTES_MAX: usize = 4096;

/// One connection.
pub(super) struct Client(TcpStream);

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Self(stream))
        };
        connecting.await.map_err(BenchError::system("connect to the door"))
    }

    /// Sends all requests, each after the answer to the one before.
    pub(super) async fn send_all(mut self, requests: Vec<Vec<u8>>) -> Result<(), BenchError> {
        for request in requests {
            self.send(&request).await?;
        }
        Ok(())
    }

    /// Sends each request when it is due, or as soon after it as there is an answer to the one before. Returns how long each
    /// took since it was due.
    pub(super) async fn send_paced(
        mut self,
        requests: Vec<(Instant, Vec<u8>)>,
    ) -> Result<Vec<Duration>, BenchError> {
        let mut took = Vec::with_capacity(requests.len());
        for (due, request) in requests {
            sleep_until(due).await;
            self.send(&request).await?;
            took.push(due.elapsed());
        }
        Ok(took)
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), BenchError> {
        let mut answer = [0; ANSWER_BYTES_MAX];
        let mut length = 0;
        let sending = async {
            self.0.write_all(request).await?;
            while !is_whole(&answer[..length]) {
                match self.0.read(&mut answer[length..]).await? {
                    0 => break,
                    bytes => length += bytes,
                }
            }
            Ok(())
        };
        sending.await.map_err(BenchError::system("send an update to the door"))?;
        let answer = &answer[..length];
        if answer.starts_with(b"HTTP/1.1 202 ") {
            return Ok(());
        }
        Err(BenchError::NotAccepted { answer: String::from_utf8_lossy(answer).into_owned() })
    }
}

/// True if head and body are there.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let text = std::str::from_utf8(&answer[..head]).unwrap_or_default();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    length.is_some_and(|length: usize| answer.len() >= head + 4 + length)
}

/// The request that brings an update.
pub(super) fn request(update: &Outgoing) -> Vec<u8> {
    let (key, id, length) = (update.record_key.as_str(), update.id.as_str(), update.body.len());
    let update_type = update.update_type.as_ref().map_or("", |update_type| update_type.as_str());
    let head = format!(
        "PUT /updates/{key}/{id} HTTP/1.1\r\nhost: door\r\nauthorization: Bearer {TOKEN}\r\nlanekeeper-type: {update_type}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &update.body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";
        assert!(is_whole(answer));
        for length in 0..answer.len() {
            assert!(!is_whole(&answer[..length]), "{length}");
        }
    }
}
