//! Small targets on a port of their own that answer with whatever bytes a test gives them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A target for one test.
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Server {
    /// Hands every connection to `serve`.
    pub async fn start<S, F>(serve: S) -> Self
    where
        S: Fn(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, requests) = mpsc::unbounded_channel();
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(Connection { stream, requests: sender.clone() }));
            }
        });
        Self { address, connections, requests }
    }

    /// Answers every request with these bytes; closes the connection after the first where `close`.
    pub async fn answering(answer: impl Into<Vec<u8>>, close: bool) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                while connection.request().await {
                    connection.send(&answer).await;
                    if close {
                        return;
                    }
                }
            }
        })
        .await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The head and body of the next request, as it came.
    pub async fn next_request(&mut self) -> String {
        self.requests.recv().await.expect("the server lives as long as the test")
    }

    pub fn no_further_request(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// One connection to it.
pub struct Connection {
    pub stream: TcpStream,
    requests: mpsc::UnboundedSender<String>,
}

impl Connection {
    /// Reads one whole request; false: the client closed the connection.
    pub async fn request(&mut self) -> bool {
        self.next_request().await.is_some()
    }

    /// As `request`, and returns it as it came.
    pub async fn next_request(&mut self) -> Option<String> {
        let mut seen = Vec::new();
        loop {
            if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if seen.len() >= end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap()) {
                    let request = String::from_utf8_lossy(&seen).into_owned();
                    let _ = self.requests.send(request.clone());
                    return Some(request);
                }
            }
            match self.stream.read_buf(&mut seen).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends; false: the client closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Waits until the client closes.
    pub async fn closed(&mut self) {
        let mut rest = [0; 4096];
        while !matches!(self.stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}

/// An answer with a body of known length.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}
