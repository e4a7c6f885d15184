//! Finds out what this process reaches, says it to the other replicas, and gives its partitions to one that reaches more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::http::current::CurrentTargets;
use lanekeeper_broker::{Clock, Reach};
use lanekeeper_core::breaker::HealthSignal;
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::step_down::{Reachability, STEP_DOWN_INTERVAL};

const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What this process has reached. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReachWatch {
    reached: Arc<Mutex<Reachability>>,
    clock: Clock,
}

impl ReachWatch {
    pub fn new(clock: Clock) -> Self {
        Self { reached: Arc::default(), clock }
    }

    fn reached(&self) -> MutexGuard<'_, Reachability> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger was asked; true: it has answered.
    pub fn asked_ledger(&self, answered: bool) {
        self.reached().asked_ledger(self.clock.now(), answered);
    }

    /// An attempt ended. Any status is an answer.
    pub fn attempted(&self, outcome: &Outcome, signal: HealthSignal) {
        let answered = match outcome.failure().map(|failure| failure.cause) {
            None if *outcome == Outcome::Applied => true,
            Some(Cause::Status(_)) => true,
            Some(Cause::Connection | Cause::Timeout) if signal.is_failure() => false,
            // Nothing was sent, or it was aborted.
            None | Some(Cause::Connection | Cause::Timeout | Cause::Unsendable | Cause::NoCredential) => {
                return;
            }
        };
        self.reached().asked_target(self.clock.now(), answered);
    }
}

/// Looks until it is dropped.
pub fn begin(watch: ReachWatch, reach: Reach, targets: Arc<CurrentTargets>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(look_for_ever(watch, reach, targets)))
}

async fn look_for_ever(watch: ReachWatch, reach: Reach, targets: Arc<CurrentTargets>) {
    let mut interval = interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let works = watch.reached().works(watch.clock.now());
        // A replica that has nothing to send does not know. If another one asks for help, it finds out.
        if works.is_none() && reach.another_fails() {
            let addresses = targets.addresses(); // of now: URLs can change
            let answered =
                join_all(addresses.iter().map(connects)).await.into_iter().all(|connected| connected);
            watch.reached().asked_target(watch.clock.now(), answered);
        }
        let now = watch.clock.now();
        reach.set_works(watch.reached().works(now));
        if watch.reached().steps_down(now, reach.another_works()) {
            warn!(
                "this process has not reached its ledger or its targets for a minute, and another replica reaches them: giving it the partitions, and consuming them as the last in line for ten minutes"
            );
            reach.step_down(STEP_DOWN_INTERVAL);
        }
    }
}

async fn connects((host, port): &(String, u16)) -> bool {
    matches!(timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port))).await, Ok(Ok(_)))
}
