//! What is no update but tells of layouts: witnesses, markers, what is drained of the layout before; and how a driver ends.

use super::{Driver, Session};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::drain::Drained;
use lanekeeper_core::message::{DeliveryTag, Event};

/// Why a driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverExit {
    /// It was asked to.
    Stopped,
    /// The partition's layout drains, and it holds nothing more.
    Drained,
    /// The partition's layout drains, and its queue is not there any more.
    Gone,
}

impl<S: Source, T: Target + 'static> Driver<S, T> {
    /// It carries no update: the core does not see it, it only takes its turn among the acks.
    ///
    /// With a ledger, parked updates may wait to go out while the broker holds none: a witness tells whose they are. Where
    /// the layout drains they wait for the next one: nobody claims a partition that may be drained, so that what is
    /// released goes out from one layout alone.
    pub(super) fn witnessed(&mut self, session: &mut Option<Session<S::Deliveries>>, delivery: DeliveryTag) {
        let Some(session) = session else { return };
        session.deliveries.settle(delivery);
        self.metrics.witness();
        if self.ledger_client.is_some() && !self.source.drains() {
            self.core.handle(self.clock.now(), Event::OwnershipHint(session.tenure));
        }
    }

    /// A partition of the layout before is drained.
    pub(super) fn on_previous_drained(&mut self) {
        let undrained = self.previous.borrow_and_update().clone();
        self.core.handle(self.clock.now(), Event::PreviousDrained { undrained });
    }

    /// A marker is held and never settled, so that it comes back behind whatever is not settled.
    pub(super) fn marked(&mut self) {
        self.drain.marker_came(self.clock.now());
    }

    /// `at_rest`: nothing is under way besides what the core knows of.
    pub(super) fn look_at_drain<D: Deliveries>(
        &mut self,
        session: Option<&Session<D>>,
        at_rest: bool,
    ) -> Option<Drained> {
        session?;
        let view = self.core.view();
        let at_rest = at_rest && view.held == 0 && view.released == 0 && self.core.is_quiet();
        self.drain.look(self.clock.now(), at_rest)
    }
}
