//! The runtime that the client gets: Tokio, but that its TCP streams are screened.
//!
//! The client takes the type of its stream from its runtime kit, and the stream itself from a function that it calls; so
//! the screen needs no change to the client (lapin 4.12.3, `Connection::connector`).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use lapin::tcp::AsyncTcpStream;

use super::cut::CutStream;
use super::stream::ScreenedStream;

/// TCP, or TLS over it.
pub(super) type PlainStream = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// What the client runs on.
pub(super) type ScreenedRuntime = Runtime<RuntimeParts<Tokio, ScreenedReactor>>;

/// On the Tokio runtime that this is called on.
pub(super) fn screened_runtime() -> ScreenedRuntime {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), ScreenedReactor(tokio)))
}

/// The reactor of Tokio, with another type of stream.
#[derive(Clone, Debug)]
pub(super) struct ScreenedReactor(Tokio);

impl Reactor for ScreenedReactor {
    type TcpStream = ScreenedStream<CutStream<PlainStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    // The trait asks for `AsSysFd`, which has no public name: on Unix it is these two.
    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    // The client does not call it: `connect` opens the stream.
    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
