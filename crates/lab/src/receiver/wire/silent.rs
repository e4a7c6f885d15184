//! An address that swallows packets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// A queue of 1 is full after two or three connections.
const QUEUED_MAX: usize = 100;
/// A connection on this machine that takes longer was not queued.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// An address that swallows packets, as behind a firewall that drops them: nothing is accepted there, and the queue for it is
/// full, so that the kernel drops what comes. It answers nothing until this value is dropped.
#[derive(Debug)]
pub struct SilentAddress {
    /// Where it is.
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl SilentAddress {
    /// Port 0 means any free port. When this has returned, connecting there gets no answer.
    ///
    /// # Errors
    /// The address is taken, or this system accepts without end.
    pub async fn at(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(address)?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            queued.push(connected?);
            if queued.len() == QUEUED_MAX {
                return Err(io::Error::other("this system queues connections without end"));
            }
        }
        Ok(Self { address, _listener: listener, _queued: queued })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_nothing_and_the_same_port_of_another_address_is_free() {
        let silent = SilentAddress::at(([127, 0, 0, 1], 0).into()).await.unwrap();
        timeout(CONNECT_MAX, TcpStream::connect(silent.address)).await.expect_err("it answers nothing");
        let other: SocketAddr = ([127, 0, 0, 9], silent.address.port()).into();
        let _listener = TcpListener::bind(other).await.unwrap();
        TcpStream::connect(other).await.unwrap();
        let taken = SilentAddress::at(other).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
