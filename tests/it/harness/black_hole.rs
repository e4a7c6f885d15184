//! Addresses that lead nowhere, and ones that lead elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// An address that swallows packets, as behind a firewall that drops them: nothing is accepted there, and the queue for it is
/// full.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// # Panics
    /// The address is taken, or this system accepts without end.
    pub async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.bind(address).expect("the address is free");
        let listener = socket.listen(1).expect("it is ours");
        let address = listener.local_addr().expect("it is bound");
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            queued.push(connected.expect("it is queued or dropped"));
            assert!(queued.len() < 100, "the queue is never full");
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

/// Leads from one address to another until the test ends.
pub async fn forward(from: SocketAddr, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(from).await.expect("the address is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(to).await {
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    address
}
