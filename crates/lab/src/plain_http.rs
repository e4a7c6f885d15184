//! One request over a connection of its own: what little of HTTP demo and benchmark themselves speak.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take: their own servers are on this machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) etag: Option<String>,
    pub(super) body: String,
}

/// Sends a request. `headers` have a name and a value each.
pub(super) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Reply> {
    let mut head = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.extend([*name, ": ", *value, "\r\n"]);
    }
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok::<_, io::Error>(response)
    };
    let response = timeout(TIMEOUT, exchange).await??;
    parsed(&response).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parsed(response: &str) -> Option<Reply> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let named = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("etag").then(|| value.trim().to_owned())
    };
    Some(Reply { status, etag: lines.find_map(named), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::parsed;

    #[test]
    fn a_reply_has_a_status_perhaps_an_etag_and_a_body() {
        let reply = parsed("HTTP/1.0 200 OK\r\nETag: \"3\"\r\n\r\nbody").unwrap();
        assert_eq!((reply.status, reply.etag.as_deref(), reply.body.as_str()), (200, Some("\"3\""), "body"));
        assert_eq!(parsed("HTTP/1.0 404 Not Found\r\n\r\n").unwrap().etag, None);
        assert!(parsed("nonsense").is_none());
    }
}
