//! Which replicas reach what they need to dispatch, as their notes say, and if this one has stepped down for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Replicas that are known of; of more, some are not.
const REPLICAS_MAX: usize = 1024;
/// How long a replica that has stepped down waits before it consumes again, as the last in line.
const PAUSE: Duration = Duration::from_secs(5);

/// Shared by all layouts and partitions of a process.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<ReachState>);

#[derive(Debug, Default)]
struct ReachState {
    /// `None`: nothing shows it.
    works: Mutex<Option<bool>>,
    /// Until when what another replica says holds.
    others: Mutex<BTreeMap<String, (bool, Instant)>>,
    /// Until when this process is behind all others, and when it may consume again.
    stepped_down: watch::Sender<Option<SteppedDown>>,
}

#[derive(Clone, Copy, Debug)]
struct SteppedDown {
    until: Instant,
    paused_until: Instant,
}

impl Reach {
    /// For the notes of this process.
    pub fn set_works(&self, works: Option<bool>) {
        *self.0.works.lock().unwrap_or_else(PoisonError::into_inner) = works;
    }

    pub(crate) fn works(&self) -> Option<bool> {
        *self.0.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another replica says that it works, or that it does not, which holds for so long.
    pub(crate) fn observe(&self, process: &str, works: bool, valid_for: Duration) {
        let (now, mut others) = (Instant::now(), self.others());
        others.retain(|_, (_, until)| *until > now);
        if others.len() < REPLICAS_MAX || others.contains_key(process) {
            others.insert(process.to_owned(), (works, now + valid_for));
        }
    }

    /// Returns true if another replica says that it works.
    #[must_use]
    pub fn another_works(&self) -> bool {
        self.any(true)
    }

    /// Returns true if another replica says that it does not work.
    #[must_use]
    pub fn another_fails(&self) -> bool {
        self.any(false)
    }

    fn any(&self, wanted: bool) -> bool {
        let now = Instant::now();
        self.others().values().any(|(works, until)| *works == wanted && *until > now)
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<String, (bool, Instant)>> {
        self.0.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives all partitions back; for so long this process is the last that gets one.
    pub fn step_down(&self, lasts: Duration) {
        let now = Instant::now();
        self.0.stepped_down.send_replace(Some(SteppedDown { until: now + lasts, paused_until: now + PAUSE }));
    }

    /// Changes with each step down.
    pub(crate) fn watch(&self) -> StepDowns {
        StepDowns(self.0.stepped_down.subscribe())
    }

    pub(crate) fn is_last_in_line(&self) -> bool {
        self.0.stepped_down.borrow().is_some_and(|stepped_down| stepped_down.until > Instant::now())
    }

    /// Returns when this process may consume.
    pub(crate) async fn may_consume(&self) {
        let paused_until = self.0.stepped_down.borrow().map(|stepped_down| stepped_down.paused_until);
        if let Some(paused_until) = paused_until {
            sleep_until(paused_until).await;
        }
    }
}

/// The steps down from some moment on.
#[derive(Debug)]
pub(crate) struct StepDowns(watch::Receiver<Option<SteppedDown>>);

impl StepDowns {
    /// Returns at the next one. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await; // the process ends
        }
    }
}
