//! Decides at the last moment whether a request is sent, and remembers whether it was.
//!
//! Between the decision to send and the write to the connection the process can be stopped, cut off or starved of CPU
//! time; when it goes on, a standby may own the partition. The HTTP client polls the body in the same step in which it
//! writes the request, so the body is the place to withhold it. At the deadline it matters whether the request was sent:
//! only then can there be an answer worth waiting for.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

/// How long an answer is waited for after the deadline, if this process itself was late.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Decides whether a request may be sent. Asked when the request is written to its connection.
#[derive(Clone)]
pub struct SendGuard(Arc<dyn Fn() -> bool + Send + Sync>);

impl SendGuard {
    /// A guard that calls `ask`, which returns true if the request may be sent.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// A guard that allows every request.
    #[must_use]
    pub fn always() -> Self {
        Self::new(|| true)
    }
}

impl fmt::Debug for SendGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendGuard")
    }
}

/// Whether a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SendState {
    /// Not written yet; or it has no body, and nobody can tell.
    Waiting,
    /// Written to a connection.
    Sent,
    /// Withheld: the deadline had passed.
    Late,
    /// Withheld: the guard denied it.
    Withheld,
}

/// The state of the request with a [`GuardedBody`], shared with the body.
#[derive(Clone, Debug)]
pub(super) struct SendProgress(Arc<AtomicU8>);

impl SendProgress {
    pub(super) fn state(&self) -> SendState {
        let all = [SendState::Waiting, SendState::Sent, SendState::Late, SendState::Withheld];
        all[usize::from(self.0.load(Ordering::Acquire))]
    }
}

/// A body that is handed out only before the deadline and if the guard allows it.
#[derive(Debug)]
pub(super) struct GuardedBody {
    /// `None`: it was polled, or it is empty.
    bytes: Option<Bytes>,
    deadline: Instant,
    send_guard: SendGuard,
    send_progress: SendProgress,
}

impl GuardedBody {
    pub(super) fn new(bytes: Bytes, deadline: Instant, send_guard: SendGuard) -> (Self, SendProgress) {
        let send_progress = SendProgress(Arc::new(AtomicU8::new(SendState::Waiting as u8)));
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        (Self { bytes, deadline, send_guard, send_progress: send_progress.clone() }, send_progress)
    }
}

/// The request was not written.
#[derive(Debug, thiserror::Error)]
#[error("the request was withheld")]
pub(super) struct SendWithheld;

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = SendWithheld;

    /// An error here closes the connection (HTTP/1) or the stream (HTTP/2) before any byte of the request is flushed.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendWithheld>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        let state = if Instant::now() >= self.deadline {
            SendState::Late
        } else if (self.send_guard.0)() {
            SendState::Sent
        } else {
            SendState::Withheld
        };
        self.send_progress.0.store(state as u8, Ordering::Release);
        Poll::Ready(Some(if state == SendState::Sent { Ok(Frame::data(bytes)) } else { Err(SendWithheld) }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// The deadline has passed.
#[derive(Debug)]
pub(super) struct TimeUp;

/// A deadline that is extended if this process itself was late: stopped, or starved of CPU time. An answer that came in
/// the meantime is still in the socket, and to treat it as a timeout would send the update a second time.
#[derive(Debug)]
pub(super) struct Deadline {
    deadline: Instant,
    /// The extended deadline: later by as much as this process was late.
    extended: Option<Instant>,
}

impl Deadline {
    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, extended: None }
    }

    pub(super) fn instant(&self) -> Instant {
        self.deadline
    }

    /// Waits for something that does no harm if it is repeated, or that was not sent.
    pub(super) async fn wait<F: Future>(&mut self, future: F) -> Result<F::Output, TimeUp> {
        timeout_at(self.deadline, future).await.map_err(|_| TimeUp)
    }

    /// Waits for an answer. Waits beyond the deadline only if the request `was_sent`.
    pub(super) async fn wait_for_answer<F: Future>(
        &mut self,
        was_sent: impl Fn() -> bool,
        future: F,
    ) -> Result<F::Output, TimeUp> {
        let mut future = pin!(future);
        // After the deadline a request that was not sent is not polled: the poll could be the one that sends it.
        let mut future = pin!(poll_fn(|context| {
            let go_on = was_sent() || Instant::now() < self.deadline;
            if go_on { future.as_mut().poll(context).map(Ok) } else { Poll::Ready(Err(TimeUp)) }
        }));
        if self.extended.is_none()
            && let Ok(answer) = timeout_at(self.deadline, future.as_mut()).await
        {
            return answer;
        }
        if !was_sent() {
            return Err(TimeUp);
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(self.deadline).min(LATE_MAX);
        let extended = *self.extended.get_or_insert(now + late);
        timeout_at(extended, future).await.unwrap_or(Err(TimeUp))
    }
}
