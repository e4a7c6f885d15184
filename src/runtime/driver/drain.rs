//! Deliveries that are no updates but belong to layouts (witnesses, markers), and when a partition is drained.

use tracing::warn;

use super::Driver;
use super::phase::{DriverExit, Phase, Then};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::drain::Drained;
use lanekeeper_core::message::{DeliveryTag, Event};
use lanekeeper_core::tick::Tick;
use lanekeeper_ledger::Ledger;

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// A witness carries no update: it is settled at once.
    ///
    /// It shows that the partition is ours, which matters if the ledger holds released updates and the broker holds none.
    /// Not so if the layout drains: nobody claims a partition that may be drained, so that what is released goes out from
    /// one layout alone.
    pub(super) fn witnessed(&mut self, delivery: DeliveryTag) {
        let Some(session) = self.phase.session() else { return };
        session.deliveries.settle(delivery);
        let tenure = session.tenure;
        self.context.metrics.witness();
        if self.context.ledger_client.is_some() && !self.context.source.drains() {
            self.notify(Event::OwnershipHint(tenure));
        }
    }

    /// A partition of the previous layout is drained.
    pub(super) fn on_previous_drained(&mut self) {
        let undrained = self.previous.borrow_and_update().clone();
        self.notify(Event::PreviousDrained { undrained });
    }

    /// A marker of a layout that drains is held and never settled, so that it comes back behind whatever is not settled. If
    /// the layout does not drain, this process may only not know it yet.
    pub(super) fn marked(&mut self, marker: DeliveryTag) {
        let now = self.now();
        if self.context.source.drains() {
            self.drain.marker_came(now);
        } else {
            self.unexpected_markers.marker_came(marker, now);
        }
    }

    /// The layout has not begun to drain in time: somebody else has put the marker here.
    pub(super) fn settle_unexpected_markers(&mut self, now: Tick) {
        while let Phase::Attached(_) = self.phase
            && let Some(marker) = self.unexpected_markers.take_due(now)
        {
            self.strayed(marker);
        }
    }

    /// A message of Lanekeeper's own that belongs elsewhere carries no update. Settled, it does no harm.
    pub(super) fn strayed(&mut self, delivery: DeliveryTag) {
        let Some(session) = self.phase.session() else { return };
        session.deliveries.settle(delivery);
        self.context.metrics.stray_message();
        let now = self.now();
        if let Some(messages) = self.stray_log.count(now) {
            warn!(partition = %self.context.partition, messages, "markers or witnesses that do not belong into the queue were settled: somebody has moved or published them there, and what was moved with them is dead-lettered as misplaced");
        }
    }

    /// Hands the partition back if that can show that it is drained, and ends the driver if it is shown. Returns true if it
    /// does either.
    pub(super) fn check_drained(&mut self) -> bool {
        let Phase::Attached(_) = self.phase else { return false };
        if self.context.source.drains() && self.unexpected_markers.layout_drains() {
            self.drain.marker_came(self.context.clock.now());
        }
        let view = self.core.view();
        let at_rest =
            self.pending.is_at_rest() && view.held == 0 && view.released == 0 && self.core.is_quiet();
        match self.drain.look(self.context.clock.now(), at_rest) {
            None => return false,
            Some(Drained::Proven) => self.stop(DriverExit::Drained),
            Some(Drained::GiveBack) => {
                self.leave(Then::Attach);
                self.notify(Event::StopRequested);
            }
        }
        true
    }
}
