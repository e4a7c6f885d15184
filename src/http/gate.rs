//! Withholds requests at their connection, in the step that writes their first byte.
//!
//! The HTTP client writes to a [`GatedIo`]. Before it queues the head of a request, it asks the request's body whether it
//! is empty; there [`GatedBody`] enters the request's [`SendCheck`] at the [`Gate`] of the connection. The check is asked
//! when the first byte is about to be written, for requests with and without a body. If the answer is no, the write fails,
//! and with it the connection.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::Extensions;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use rustls::AlertDescription;

use super::detail::causes;
use super::h2_frames::{Frames, RequestStart};
use super::send_guard::SendCheck;

/// The requests of one connection that were queued and may not be written yet, in the order in which they were queued.
#[derive(Clone, Debug)]
struct Gate {
    queue: Arc<Mutex<Queue>>,
    early: EarlyAlerts,
}

#[derive(Debug, Default)]
struct Queue {
    /// How many requests were queued since the connection was made.
    queued: u32,
    checks: VecDeque<(u32, SendCheck)>,
    /// Why the server has ended the TLS session.
    alert: Option<AlertDescription>,
}

/// Why the server has ended the TLS session of the connection that a request was sent on. Over HTTP/2 the error of the
/// request has it as text alone.
pub(super) fn alert(connection: &CaptureConnection) -> Option<AlertDescription> {
    gate(connection)?.lock().alert
}

/// The latest alert on a connection of a target that no request was queued at. Over HTTP/2, the client hands a connection out
/// only when it can be used: if the server refuses our certificate before that, no request has a connection to ask, and its
/// error does not say why. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct EarlyAlerts(Arc<Mutex<Option<(Instant, AlertDescription)>>>);

impl EarlyAlerts {
    fn note(&self, alert: AlertDescription) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), alert));
    }

    /// Why the server has ended a TLS session since then, before a request was queued at its connection.
    pub(super) fn since(&self, begun: Instant) -> Option<AlertDescription> {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.filter(|(at, _)| *at >= begun).map(|(_, alert)| alert)
    }
}

/// Returns true if the client has found no connection for the request: no byte of it was written.
pub(super) fn has_no_connection(connection: &CaptureConnection) -> bool {
    connection.connection_metadata().is_none()
}

fn gate(connection: &CaptureConnection) -> Option<Gate> {
    let mut extensions = Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extensions);
    extensions.remove()
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, check: SendCheck) {
        let mut queue = self.lock();
        let number = queue.queued;
        queue.queued += 1;
        queue.checks.push_back((number, check));
    }

    /// The oldest check. HTTP/1 has no other.
    fn oldest(&self) -> Option<SendCheck> {
        self.lock().checks.front().map(|(_, check)| check.clone())
    }

    /// Returns true if the error is an alert of the server.
    fn note_alert(&self, error: &io::Error) -> bool {
        let alert = causes(error).find_map(|error| error.downcast_ref());
        let Some(rustls::Error::AlertReceived(alert)) = alert else { return false };
        let mut queue = self.lock();
        queue.alert = Some(*alert);
        if queue.queued == 0 {
            self.early.note(*alert);
        }
        true
    }

    fn remove_oldest(&self) {
        self.lock().checks.pop_front();
    }

    /// The check of the request with this number. Earlier requests are forgotten: they were written, or never will be.
    fn of(&self, number: u32) -> Option<SendCheck> {
        let mut queue = self.lock();
        while queue.checks.front().is_some_and(|(first, _)| *first < number) {
            queue.checks.pop_front();
        }
        queue.checks.front().filter(|(first, _)| *first == number).map(|(_, check)| check.clone())
    }
}

/// The body of a request, which enters its check at the connection that the client has chosen for it.
pub(super) struct GatedBody {
    /// `None`: it was handed out, or there is none.
    bytes: Option<Bytes>,
    /// `None`: it was entered.
    check: Cell<Option<(SendCheck, CaptureConnection)>>,
}

impl GatedBody {
    pub(super) fn new(bytes: Bytes, check: SendCheck, connection: CaptureConnection) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self { bytes, check: Cell::new(Some((check, connection))) }
    }

    /// # Panics
    /// If the client has chosen a connection that is not a [`GatedIo`]: a fault of ours.
    fn enter(&self) {
        let Some((check, connection)) = self.check.take() else { return };
        gate(&connection).expect("a request has a connection with a gate").enter(check);
    }
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    /// hyper 1.12 asks this first just before it queues the head, in `proto::h1::dispatch` and `proto::h2::client`. A test
    /// of each protocol would find it if a later one does not: the target would see requests that the guard denies.
    fn is_end_stream(&self) -> bool {
        self.enter();
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// A connection to a target that asks the check of each request before its first byte is written.
#[derive(Debug)]
pub(super) struct GatedIo<T> {
    io: T,
    gate: Gate,
    /// `None`: HTTP/1.
    frames: Option<Frames>,
}

impl<T> GatedIo<T> {
    /// `is_http2`: the client writes frames of HTTP/2.
    pub(super) fn new(io: T, is_http2: bool, early: EarlyAlerts) -> Self {
        let frames = is_http2.then(Frames::default);
        Self { io, gate: Gate { queue: Arc::default(), early }, frames }
    }
}

impl<T: Connection> Connection for GatedIo<T> {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.gate.clone())
    }
}

impl<T: Read + Unpin> Read for GatedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read {
            self.gate.note_alert(error);
        }
        read
    }
}

/// What a write has come to. If it failed: a server that refuses our certificate may have reset the connection, and its alert
/// waits to be read. The client, whose write has failed, would not read it, so the alert is the error instead.
fn with_alert<T: Read + Unpin, W>(
    written: Poll<io::Result<W>>,
    io: &mut T,
    gate: &Gate,
    context: &mut Context<'_>,
) -> Poll<io::Result<W>> {
    if !matches!(written, Poll::Ready(Err(_))) {
        return written;
    }
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    match Pin::new(io).poll_read(context, buffer.unfilled()) {
        Poll::Ready(Err(error)) if gate.note_alert(&error) => Poll::Ready(Err(error)),
        _ => written,
    }
}

impl<T: Write + Unpin> GatedIo<T> {
    /// All bytes up to the end of the answer belong to one request.
    fn poll_write_http1(
        &mut self,
        write: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let check = self.gate.oldest();
        if let Some(check) = &check {
            check.ask().map_err(io::Error::other)?;
        }
        let written = ready!(write(Pin::new(&mut self.io)))?;
        if let Some(check) = check
            && written > 0
        {
            check.written();
            self.gate.remove_oldest();
        }
        Poll::Ready(Ok(written))
    }
}

impl<T: Read + Write + Unpin> Write for GatedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(frames) = &mut this.frames else {
            let written = this.poll_write_http1(|io| io.poll_write(context, bytes));
            return with_alert(written, &mut this.io, &this.gate, context);
        };
        let (bytes, check) = match frames.next_request(bytes) {
            None => (bytes, None),
            Some(RequestStart { at, .. }) if at > 0 => (&bytes[..at], None),
            Some(request) => {
                let check = this.gate.of(request.number).ok_or_else(|| {
                    io::Error::other(format!("request {} of the connection has no check", request.number))
                })?;
                // A request that is not complete without its body is not applied. It can be cancelled, and its connection
                // goes on.
                let asked = if request.is_complete { check.ask() } else { check.ask_guard() };
                asked.map_err(io::Error::other)?;
                (&bytes[..request.end], Some(check))
            }
        };
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        let written = ready!(with_alert(written, &mut this.io, &this.gate, context))?;
        frames.advance(&bytes[..written]);
        if let Some(check) = check
            && written > 0
        {
            check.written();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.frames.is_some() {
            let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
            return self.poll_write(context, first);
        }
        let this = &mut *self;
        let written = this.poll_write_http1(|io| io.poll_write_vectored(context, parts));
        with_alert(written, &mut this.io, &this.gate, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.frames.is_none() && self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        with_alert(flushed, &mut this.io, &this.gate, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
