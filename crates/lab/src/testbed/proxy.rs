//! A TCP proxy that fails on purpose, between a client and its server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Wait after an error of `accept`, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Forwards them.
    Forward,
    /// Closes new ones at once, and those that exist.
    Refuse,
    /// Accepts new ones and never answers. Those that exist go on.
    Silent,
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
    let closed = async {
        // A change to `Refuse` that was taken back before it was seen here closes the connection too.
        while modes.changed().await.is_ok() {
            match *modes.borrow_and_update() {
                ProxyMode::Silent => {}
                ProxyMode::Forward | ProxyMode::Refuse => return,
            }
        }
    };
    let forwarded = async {
        match mode {
            ProxyMode::Refuse => {}
            ProxyMode::Silent => std::future::pending().await,
            ProxyMode::Forward => {
                if let Ok(mut onward) = TcpStream::connect(&target).await {
                    // An error is the end of the connection, as its ends see it.
                    let _ = copy_bidirectional(&mut connection, &mut onward).await;
                }
            }
        }
    };
    tokio::select! {
        () = forwarded => {}
        () = closed => {}
    }
}
