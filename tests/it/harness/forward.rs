//! Addresses that lead elsewhere.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

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
