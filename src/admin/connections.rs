//! How many connections there are at once: short ones, of which a new one pushes the oldest out, and long ones, which have
//! places of their own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Connections at once. Monitoring needs few, and a browser six. A further one takes the place of the oldest: a probe has its
/// answer within milliseconds, so what is oldest is idle, silent or slow.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Answers at once that go on for long: event streams and exports. Nothing pushes them out, and there is no further one.
pub(super) const LONG_ANSWERS_MAX: usize = 16;

/// The connections of the port.
#[derive(Debug)]
pub(super) struct Connections {
    /// Oldest first.
    short: Mutex<VecDeque<(u64, AbortHandle)>>,
    long: Arc<Semaphore>,
}

impl Default for Connections {
    fn default() -> Self {
        let short = Mutex::new(VecDeque::with_capacity(CONNECTIONS_MAX));
        Self { short, long: Arc::new(Semaphore::new(LONG_ANSWERS_MAX)) }
    }
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) ip: IpAddr,
    /// It speaks TLS with us.
    pub(super) has_tls: bool,
    connection: u64,
    is_long: Arc<AtomicBool>,
    connections: Arc<Connections>,
}

impl Connections {
    /// The client of a new connection. Numbers are never used twice.
    pub(super) fn client(self: &Arc<Self>, connection: u64, ip: IpAddr, has_tls: bool) -> Client {
        Client { ip, has_tls, connection, is_long: Arc::default(), connections: Arc::clone(self) }
    }

    /// Adds a short connection; it may push out the oldest.
    pub(super) fn add(&self, connection: u64, task: AbortHandle) {
        let mut short = self.short.lock().unwrap_or_else(PoisonError::into_inner);
        short.retain(|(_, task)| !task.is_finished());
        if short.len() == CONNECTIONS_MAX
            && let Some((_, oldest)) = short.pop_front()
        {
            oldest.abort();
        }
        short.push_back((connection, task));
    }
}

impl Client {
    /// The connection does not count as a short one any more, until it ends. `None`: there are too many long answers. The
    /// answer holds what is returned.
    pub(super) fn answers_long(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.connections.long).try_acquire_owned().ok()?;
        self.is_long.store(true, Ordering::Relaxed);
        let mut short = self.connections.short.lock().unwrap_or_else(PoisonError::into_inner);
        short.retain(|(connection, _)| *connection != self.connection);
        Some(permit)
    }

    /// Returns true if [`Self::answers_long`] was called and gave a permit.
    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }
}
