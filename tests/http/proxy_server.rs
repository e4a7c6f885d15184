//! An HTTP proxy that connects whoever asks to one address, wherever they want to go.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What an untouched proxy answers.
const CONNECTED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

pub struct ConnectProxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Connects everybody to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        Self::answering(target, CONNECTED).await
    }

    /// Answers CONNECT with these bytes; only if they say 200 it connects.
    pub async fn answering(target: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let of_server = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, target, answer, Arc::clone(&of_server)));
            }
        });
        Self { address, asked }
    }

    /// The heads of all CONNECT requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, target: SocketAddr, answer: &str, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(client.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    asked.lock().unwrap().push(String::from_utf8(head).unwrap());
    // Connected first, so that what the target says first can come in one segment with the answer.
    let server = if answer.contains(" 200 ") { TcpStream::connect(target).await.ok() } else { None };
    if client.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    if let Some(mut server) = server {
        // Either side closes as it likes.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
