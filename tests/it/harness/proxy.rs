//! A way to the target that can fail: between the dispatcher and the receiver.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::pace;

/// Between a connection that could not be taken and the next one.
const REFUSED_DELAY: Duration = Duration::from_millis(50);

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections end as soon as they are made, and those that exist are cut.
    Refused,
    /// Connections are taken and nothing is answered; those that exist go on.
    Silent,
}

/// Listens on a port of its own.
pub struct Proxy {
    pub address: String,
    way: Arc<watch::Sender<Way>>,
}

impl Proxy {
    pub async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let ways = Arc::clone(&way);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((connection, _)) => {
                        tokio::spawn(carry(connection, target.clone(), ways.subscribe()));
                    }
                    // That one is gone; the next one can be taken.
                    Err(error) => {
                        eprintln!("the proxy could not take a connection: {error}");
                        pace(REFUSED_DELAY).await;
                    }
                }
            }
        });
        Self { address, way }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Cuts all connections; new ones are taken.
    pub fn cut(&self) {
        self.set(Way::Refused);
        self.set(Way::Open);
    }
}

async fn carry(mut connection: TcpStream, target: String, mut ways: watch::Receiver<Way>) {
    let begun = *ways.borrow_and_update();
    let cut = async {
        // Also a change that was over before it was seen.
        while ways.changed().await.is_ok() && *ways.borrow_and_update() == Way::Silent {}
    };
    let carried = async {
        match begun {
            Way::Refused => {}
            Way::Silent => std::future::pending().await,
            Way::Open => {
                if let Ok(mut onward) = TcpStream::connect(&target).await {
                    let _ = copy_bidirectional(&mut connection, &mut onward).await;
                }
            }
        }
    };
    tokio::select! {
        () = carried => {}
        () = cut => {}
    }
}
