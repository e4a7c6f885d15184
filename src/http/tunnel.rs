//! Goes through an HTTP proxy to a target, with CONNECT (RFC 9110, section 9.3.6).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Request, Uri};
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::error::{BoxError, ConnectFault};
use crate::config::ProxyConfig;

/// Asks a proxy to connect us to `authority`, a host and a port. Nothing but these two and the proxy's own password is sent.
pub(super) async fn open(
    tcp: TcpStream,
    proxy: &ProxyConfig,
    authority: String,
) -> Result<Upgraded, BoxError> {
    let broken = |source| ConnectFault::ProxyBroken { proxy: proxy.to_string(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(broken)?;
    let request = connect(proxy, &authority)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let (proxy, status) = (proxy.to_string(), status.as_u16());
            return Err(ConnectFault::ProxyRefused { proxy, authority, status }.into());
        }
        Ok(hyper::upgrade::on(response).await.map_err(broken)?)
    };
    let drive = async {
        // How it ended shows in the exchange.
        let _ = connection.with_upgrades().await;
        std::future::pending().await
    };
    tokio::select! {
        opened = exchange => opened,
        never = drive => never,
    }
}

fn connect(proxy: &ProxyConfig, authority: &str) -> Result<Request<String>, BoxError> {
    let uri = Uri::builder().authority(authority).build()?;
    let mut request = Request::connect(uri).body(String::new())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority)?);
    let agent = concat!("lanekeeper/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(authorization) = &proxy.authorization {
        let mut value = HeaderValue::from_str(authorization.reveal())?;
        value.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, value);
    }
    Ok(request)
}

/// A connection to a target, or to a proxy that has connected us to it.
#[derive(Debug)]
pub(super) enum Stream {
    Direct(TokioIo<TcpStream>),
    Tunnel(Upgraded),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(io) => Pin::new(io).poll_read(context, buffer),
            Self::Tunnel(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(io) => Pin::new(io).poll_write(context, bytes),
            Self::Tunnel(io) => Pin::new(io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(io) => Pin::new(io).poll_write_vectored(context, parts),
            Self::Tunnel(io) => Pin::new(io).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Direct(io) => io.is_write_vectored(),
            Self::Tunnel(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(io) => Pin::new(io).poll_flush(context),
            Self::Tunnel(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(io) => Pin::new(io).poll_shutdown(context),
            Self::Tunnel(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}
