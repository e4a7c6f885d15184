//! Deliveries that are no updates but belong to layouts (witnesses, markers), and when a partition is drained.

use super::Driver;
use super::phase::{DriverExit, Phase, Then};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::drain::Drained;
use lanekeeper_core::message::{DeliveryTag, Event};
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

    /// A marker is held and never settled, so that it comes back behind whatever is not settled.
    pub(super) fn marked(&mut self) {
        self.drain.marker_came(self.context.clock.now());
    }

    /// Hands the partition back if that can show that it is drained, and ends the driver if it is shown. Returns true if it
    /// does either.
    pub(super) fn check_drained(&mut self) -> bool {
        let Phase::Attached(_) = self.phase else { return false };
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
