//! A TCP proxy that fails on purpose, between a client and its server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Wait after an error of `accept`, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
const CHUNK_BYTES: usize = 16 * 1024;

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Forwards them.
    Forward,
    /// Closes new ones at once, and those that exist.
    Refuse,
    /// Accepts new ones and never answers. Those that exist go on.
    Silent,
    /// The same, and nothing more passes on those that exist. With the next mode they are closed, and what was on its way is lost.
    Stall,
    /// What the server sends waits, and what the client sends passes. With `Forward`, what waits passes, too.
    Hold,
}

/// A proxy on a free port of 127.0.0.1. It ends with the runtime that it was started on.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: Arc<watch::Sender<ProxyMode>>,
    target: Arc<Mutex<String>>,
}

impl Proxy {
    /// Starts a proxy for `target`, a `HOST:PORT`.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = Arc::new(watch::Sender::new(ProxyMode::Forward));
        let target = Arc::new(Mutex::new(target));
        let (modes, targets) = (Arc::clone(&mode), Arc::clone(&target));
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((connection, _)) => {
                        let target = targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        tokio::spawn(forward(connection, target, modes.subscribe()));
                    }
                    Err(error) => {
                        eprintln!("warning: the proxy cannot accept a connection, retrying: {error}");
                        sleep(ACCEPT_RETRY_DELAY).await;
                    }
                }
            }
        });
        Ok(Self { address, mode, target })
    }

    /// Changes what it does with connections, from now on.
    pub fn set(&self, mode: ProxyMode) {
        self.mode.send_replace(mode);
    }

    /// Forwards to another `HOST:PORT`: new connections, and those that exist are closed.
    pub fn retarget(&self, target: String) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.close_connections();
    }

    /// Closes all connections. New ones are forwarded.
    pub fn close_connections(&self) {
        self.set(ProxyMode::Refuse);
        self.set(ProxyMode::Forward);
    }
}

async fn forward(mut connection: TcpStream, target: String, mut modes: watch::Receiver<ProxyMode>) {
    let mode = *modes.borrow_and_update();
    let answers = modes.clone();
    let forwarded = async {
        match mode {
            ProxyMode::Refuse => {}
            ProxyMode::Silent | ProxyMode::Stall => std::future::pending().await,
            ProxyMode::Forward | ProxyMode::Hold => {
                if let Ok(mut onward) = TcpStream::connect(&target).await {
                    // An error is the end of the connection, as its ends see it.
                    let _ = pass(&mut connection, &mut onward, answers).await;
                }
            }
        }
    };
    let mut forwarded = std::pin::pin!(forwarded);
    let (mut is_stalled, mut is_held) = (false, mode == ProxyMode::Hold);
    loop {
        tokio::select! {
            () = &mut forwarded, if !is_stalled => return,
            changed = modes.changed() => match (changed, *modes.borrow_and_update()) {
                (Ok(()), ProxyMode::Silent) => {}
                (Ok(()), ProxyMode::Stall) => is_stalled = true,
                (Ok(()), ProxyMode::Hold) => is_held = true,
                (Ok(()), ProxyMode::Forward) if is_held && !is_stalled => is_held = false,
                // A change to `Refuse` that was taken back before it was seen here closes the connection too.
                (Ok(()), ProxyMode::Forward | ProxyMode::Refuse) | (Err(_), _) => return,
            },
        }
    }
}

/// Passes what both send, until both have ended.
async fn pass(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mut modes: watch::Receiver<ProxyMode>,
) -> io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let requests = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answers = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let bytes = from_server.read(&mut chunk).await?;
            let _ = modes.wait_for(|mode| *mode != ProxyMode::Hold).await;
            if bytes == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&chunk[..bytes]).await?;
        }
    };
    tokio::try_join!(requests, answers).map(drop)
}
