//! Decides at the last moment whether a request is sent, and remembers whether it was.
//!
//! Between the decision to send and the write to the connection the process can be stopped, cut off or starved of CPU
//! time; when it goes on, a standby may own the partition. So [`GatedIo`](super::gate::GatedIo) asks in the step in which
//! it writes the first byte of a request. When a wait is over it matters whether the request was sent: only then can
//! there be an answer worth waiting for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

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

/// Why a request was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Withheld {
    /// It had waited for a connection for too long.
    #[error("the request was withheld: it waited too long for a connection")]
    Late,
    /// The guard denied it.
    #[error("the request was withheld: another process may own the partition")]
    Denied,
}

/// The check of one request. A clone is the same check: the attempt has one, and the connection another.
#[derive(Clone, Debug)]
pub(super) struct SendCheck(Arc<Check>);

#[derive(Debug)]
struct Check {
    send_guard: SendGuard,
    write_by: Instant,
    /// When its first bytes were written.
    written_at: OnceLock<Instant>,
    withheld: OnceLock<Withheld>,
}

impl SendCheck {
    /// `write_by`: when the attempt gives up waiting for a connection.
    pub(super) fn new(send_guard: SendGuard, write_by: Instant) -> Self {
        let (written_at, withheld) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Check { send_guard, write_by, written_at, withheld }))
    }

    /// Returns whether the request may be written now.
    pub(super) fn ask(&self) -> Result<(), Withheld> {
        if Instant::now() >= self.0.write_by {
            return Err(*self.0.withheld.get_or_init(|| Withheld::Late));
        }
        self.ask_guard()
    }

    /// As `ask`, but does not look at the time.
    pub(super) fn ask_guard(&self) -> Result<(), Withheld> {
        if (self.0.send_guard.0)() { Ok(()) } else { Err(*self.0.withheld.get_or_init(|| Withheld::Denied)) }
    }

    /// Notes that bytes of the request were written.
    pub(super) fn written(&self) {
        self.0.written_at.get_or_init(Instant::now);
    }

    pub(super) fn write_by(&self) -> Instant {
        self.0.write_by
    }

    /// When the first bytes were written; `None`: none were.
    pub(super) fn written_at(&self) -> Option<Instant> {
        self.0.written_at.get().copied()
    }

    /// Why the request was withheld; `None`: it was not, or bytes of it were written.
    pub(super) fn withheld(&self) -> Option<Withheld> {
        self.0.withheld.get().copied().filter(|_| self.written_at().is_none())
    }
}
