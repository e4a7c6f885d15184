//! The moment at which a request leaves: looked at once more, and remembered.
//!
//! Between the decision to send and the write to a connection there is time in which a process can be stopped, cut off or
//! starved; by then a standby may own the partition. The client asks for the body in the very step in which it writes the
//! request, so the body is where it is held. What has left and what has not are also different things once the time is
//! up: only the former can have an answer.

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

/// How long after its deadline an answer is waited for at most, where this process was late itself.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Whether a request may still leave, asked when it is written to its connection.
#[derive(Clone)]
pub struct SendGuard(Arc<dyn Fn() -> bool + Send + Sync>);

impl SendGuard {
    /// One that is asked of somebody.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// One that always holds.
    #[must_use]
    pub fn always() -> Self {
        Self::new(|| true)
    }
}

impl fmt::Debug for SendGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clearance")
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SendState {
    /// Not written yet, or it has no body and nobody can tell.
    Waiting,
    /// Written to a connection.
    Left,
    /// Held back: its time was up.
    Late,
    /// Held back: it may not leave any more.
    Withheld,
}

/// Remembers how far the request with a [`GuardedBody`] has come.
#[derive(Clone, Debug)]
pub(super) struct SendProgress(Arc<AtomicU8>);

impl SendProgress {
    pub(super) fn progress(&self) -> SendState {
        let all = [SendState::Waiting, SendState::Left, SendState::Late, SendState::Withheld];
        all[usize::from(self.0.load(Ordering::Acquire))]
    }
}

/// A body that is given out only in time and with clearance.
#[derive(Debug)]
pub(super) struct GuardedBody {
    /// `None`: it was asked for, or it is empty.
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
#[error("the request was held back")]
pub(super) struct SendWithheld;

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = SendWithheld;

    /// An error here ends the connection with nothing of the request flushed to it (HTTP/1), or the stream (HTTP/2).
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendWithheld>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        let progress = if Instant::now() >= self.deadline {
            SendState::Late
        } else if (self.send_guard.0)() {
            SendState::Left
        } else {
            SendState::Withheld
        };
        self.send_progress.0.store(progress as u8, Ordering::Release);
        Poll::Ready(Some(if progress == SendState::Left {
            Ok(Frame::data(bytes))
        } else {
            Err(SendWithheld)
        }))
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

/// A deadline that knows when it is this process that was late: stopped, or starved by others on the machine. What was
/// answered meanwhile lies in a socket, and taking it for a timeout would send the update a second time.
#[derive(Debug)]
pub(super) struct Deadline {
    deadline: Instant,
    /// The deadline, as much later as this process was late when it looked.
    extended: Option<Instant>,
}

impl Deadline {
    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, extended: None }
    }

    pub(super) fn instant(&self) -> Instant {
        self.deadline
    }

    /// Waits for what can be begun again without harm, or has not left yet.
    pub(super) async fn wait<F: Future>(&mut self, future: F) -> Result<F::Output, TimeUp> {
        timeout_at(self.deadline, future).await.map_err(|_| TimeUp)
    }

    /// Waits for an answer. It is waited for longer only where something has `left`.
    pub(super) async fn wait_for_answer<F: Future>(
        &mut self,
        left: impl Fn() -> bool,
        future: F,
    ) -> Result<F::Output, TimeUp> {
        let mut future = pin!(future);
        // What has not left is not taken a step further once the time is up: the step could be the one that sends it.
        let mut future = pin!(poll_fn(|context| {
            let go_on = left() || Instant::now() < self.deadline;
            if go_on { future.as_mut().poll(context).map(Ok) } else { Poll::Ready(Err(TimeUp)) }
        }));
        if self.extended.is_none()
            && let Ok(answer) = timeout_at(self.deadline, future.as_mut()).await
        {
            return answer;
        }
        if !left() {
            return Err(TimeUp);
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(self.deadline).min(LATE_MAX);
        let extended = *self.extended.get_or_insert(now + late);
        timeout_at(extended, future).await.unwrap_or(Err(TimeUp))
    }
}
