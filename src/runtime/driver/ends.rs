//! What other replicas are told when a tenure of ours is over, so that they do not wait as if this process had died.

use std::time::Duration;

use super::Driver;
use crate::http::Target;
use lanekeeper_broker::Source;
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::tick::Tick;
use lanekeeper_ledger::Ledger;

/// Tenures of this driver whose end the others do not know.
#[derive(Debug, Default)]
pub(super) struct TenureEnds {
    /// Of the present claim.
    number: Option<TenureNumber>,
    /// Its channel was lost, and requests of it may still be at work.
    lost: Option<TenureNumber>,
    /// When requests were cut off, whose targets may go on with them.
    aborted_at: Option<Tick>,
}

impl TenureEnds {
    /// A further claim of ours says that the one before is over.
    pub(super) fn claimed(&mut self, number: Option<TenureNumber>) {
        (self.number, self.lost) = (number, None);
    }

    /// The end was published with the session or the claim.
    pub(super) fn said(&mut self) {
        self.number = None;
    }

    /// The channel is lost, and nothing could be said.
    pub(super) fn lost(&mut self) {
        self.lost = self.number.take().or(self.lost);
    }

    pub(super) fn attempts_aborted(&mut self, now: Tick) {
        self.aborted_at = Some(now);
    }
}

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// For how long requests can still be at work, of ours or of a tenure that we wait for.
    pub(super) fn rest(&self) -> Duration {
        let now = self.now();
        let wait = self.core.take_over_wait().map_or(Duration::ZERO, |until| until.since(now));
        let aborted = self.ends.aborted_at.map(|at| at.after(self.context.at_work).since(now));
        let ours = if self.core.view().in_flight > 0 { self.context.at_work } else { Duration::ZERO };
        wait.max(ours).max(aborted.unwrap_or_default())
    }

    /// Says that a tenure is over whose channel was lost, once none of our requests is at work.
    pub(super) fn publish_end(&mut self) {
        if self.core.view().in_flight == 0
            && let Some(number) = self.ends.lost.take()
        {
            self.context.source.publish_end(number, self.rest());
        }
    }
}
