//! Which addresses of the broker did not work a moment ago, and which one did last.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an address that did not work is tried after all others.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// Addresses that are remembered, the newest: more than a cluster has nodes.
const FAILURES_MAX: usize = 64;

/// What the connections of one process know of each other. It decides only in which order addresses are tried.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failed: Vec<(SocketAddr, Instant)>,
    /// The index of the host that worked last.
    worked: Option<usize>,
}

impl Failures {
    /// The address did not work.
    pub(super) fn failed(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.failed.retain(|(known, _)| *known != address);
        if state.failed.len() == FAILURES_MAX {
            state.failed.remove(0);
        }
        state.failed.push((address, Instant::now()));
    }

    /// This address of this host works.
    pub(super) fn worked(&self, host: usize, address: SocketAddr) {
        let mut state = self.lock();
        state.failed.retain(|(known, _)| *known != address);
        state.worked = Some(host);
    }

    /// Whether the address is tried after all others.
    pub(super) fn is_avoided(&self, address: SocketAddr) -> bool {
        self.lock().failed.iter().any(|(known, at)| *known == address && at.elapsed() < AVOIDED_FOR)
    }

    /// The order in which so many hosts are tried: the one that worked last comes first.
    pub(super) fn order(&self, hosts: usize) -> impl Iterator<Item = usize> + use<> {
        let worked = self.lock().worked;
        worked.into_iter().chain((0..hosts).filter(move |host| Some(*host) != worked))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_avoided_for_a_minute_or_until_it_works() {
        let failures = Failures::default();
        failures.failed(address(1));
        failures.failed(address(2));
        failures.worked(2, address(2));
        assert!(failures.is_avoided(address(1)) && !failures.is_avoided(address(2)));
        assert_eq!(failures.order(3).collect::<Vec<_>>(), [2, 0, 1]);
        tokio::time::advance(AVOIDED_FOR).await;
        assert!(!failures.is_avoided(address(1)));
        for port in 1..1000 {
            failures.failed(address(port));
        }
        assert_eq!(failures.lock().failed.len(), FAILURES_MAX);
        assert!(failures.is_avoided(address(999)));
    }
}
