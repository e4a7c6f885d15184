//! Connections, with or without TLS, and those that hang.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::super::settings::ReceiverSettings;
use super::folding::Folding;
use super::{AnswerEnd, ConnectionPeriods};

/// The first byte of a client that speaks TLS: the type of a handshake record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Accepts connections that are as the settings say.
pub(in super::super) struct WireListener {
    tcp: TcpListener,
    /// `None`: no TLS.
    acceptor: Option<TlsAcceptor>,
    periods: Arc<ConnectionPeriods>,
    hang_for: Duration,
    says_farewell: bool,
    folds: bool,
}

impl WireListener {
    /// # Errors
    /// The certificate or its key cannot be read, or they do not belong together.
    pub(in super::super) fn new(
        tcp: TcpListener,
        settings: &ReceiverSettings,
        periods: Arc<ConnectionPeriods>,
    ) -> io::Result<Self> {
        let acceptor = settings.tls.as_ref().map(|files| files.acceptor(settings.answer_end)).transpose()?;
        Ok(Self {
            tcp,
            acceptor,
            periods,
            hang_for: settings.hang_for,
            says_farewell: settings.answer_end != AnswerEnd::CloseWithoutNotify,
            folds: settings.folded_field,
        })
    }
}

impl Listener for WireListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (tcp, address) = Listener::accept(&mut self.tcp).await;
        // Only latency is at stake.
        let _ = tcp.set_nodelay(true);
        let connection = Connection {
            transport: match &self.acceptor {
                Some(acceptor) => Transport::Unknown(tcp, acceptor.clone()),
                None => Transport::Plain(tcp),
            },
            period: self.periods.current(),
            periods: Arc::clone(&self.periods),
            hang_for: self.hang_for,
            hangs: None,
            says_farewell: self.says_farewell,
            folding: self.folds.then(Folding::default),
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// One connection.
pub(in super::super) struct Connection {
    transport: Transport,
    /// The one in which it was opened.
    period: u64,
    periods: Arc<ConnectionPeriods>,
    hang_for: Duration,
    /// When it is closed, if it hangs.
    hangs: Option<Pin<Box<Sleep>>>,
    says_farewell: bool,
    /// `None`: nothing is folded.
    folding: Option<Folding>,
}

/// What carries the bytes.
enum Transport {
    /// The client's first byte has not come: with TLS, plain HTTP is served too, so that curl can have the report.
    Unknown(TcpStream, TlsAcceptor),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
    /// The handshake failed.
    Failed,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl Transport {
    /// Ready when it can carry bytes.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Stream>>> {
        loop {
            match self {
                Self::Unknown(tcp, _) => {
                    let mut first = [0];
                    let mut peeked = ReadBuf::new(&mut first);
                    ready!(tcp.poll_peek(context, &mut peeked))?;
                    let speaks_tls = peeked.filled() == [HANDSHAKE];
                    let Self::Unknown(tcp, acceptor) = std::mem::replace(self, Self::Failed) else {
                        continue;
                    };
                    *self = if speaks_tls {
                        Self::Handshake(Box::new(acceptor.accept(tcp)))
                    } else {
                        Self::Plain(tcp)
                    };
                }
                Self::Handshake(handshake) => {
                    let accepted = ready!(Pin::new(handshake).poll(context));
                    *self = Self::Failed;
                    *self = Self::Tls(Box::new(accepted?));
                }
                Self::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Self::Tls(_) | Self::Plain(_) => break,
            }
        }
        match self {
            Self::Tls(tls) => Poll::Ready(Ok(Pin::new(&mut **tls))),
            Self::Plain(tcp) => Poll::Ready(Ok(Pin::new(tcp))),
            Self::Unknown(..) | Self::Handshake(_) | Self::Failed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }
}

impl Connection {
    /// Pending for good if the connection hangs, until it is closed.
    fn poll_usable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.period == self.periods.current() {
            return Poll::Ready(Ok(()));
        }
        let hang_for = self.hang_for;
        let hangs = self.hangs.get_or_insert_with(|| Box::pin(sleep(hang_for)));
        ready!(hangs.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Stream>>> {
        ready!(self.poll_usable(context))?;
        self.transport.poll_open(context)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(mut folding) = self.folding else {
            return ready!(self.poll_stream(context))?.poll_write(context, bytes);
        };
        let mut ahead = folding;
        let replaced: Vec<u8> = bytes.iter().map(|byte| ahead.replace(*byte)).collect();
        let written = ready!(ready!(self.poll_stream(context))?.poll_write(context, &replaced))?;
        for byte in &bytes[..written] {
            folding.replace(*byte);
        }
        self.folding = Some(folding);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.folding.is_some() {
            let bytes = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &**slice);
            return self.poll_write(context, bytes);
        }
        ready!(self.poll_stream(context))?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.folding.is_none()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_usable(context))?;
        let says_farewell = self.says_farewell;
        match &mut self.transport {
            Transport::Unknown(tcp, _) | Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Transport::Tls(tls) if says_farewell => Pin::new(&mut **tls).poll_shutdown(context),
            Transport::Tls(tls) => {
                // What was written is out before the end.
                ready!(Pin::new(&mut **tls).poll_flush(context))?;
                Pin::new(tls.get_mut().0).poll_shutdown(context)
            }
            Transport::Handshake(_) | Transport::Failed => Poll::Ready(Ok(())),
        }
    }
}
