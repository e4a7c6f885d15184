//! What is no update but tells of layouts: witnesses, markers, what is drained of the layout before; and how a driver ends.

use super::{Driver, Tenancy};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::drain::Drained;
use lanekeeper_core::message::{DeliveryTag, Event};

/// Why a driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
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
    pub(super) fn witnessed(&mut self, tenancy: &mut Option<Tenancy<S::Deliveries>>, delivery: DeliveryTag) {
        let Some(tenancy) = tenancy else { return };
        tenancy.deliveries.settle(delivery);
        self.metrics.witness();
        if self.books.is_some() && !self.source.drains() {
            self.core.handle(self.clock.now(), Event::Nudged(tenancy.tenure));
        }
    }

    /// A partition of the layout before is drained.
    pub(super) fn hear_former(&mut self) {
        let undrained = self.former.borrow_and_update().clone();
        self.core.handle(self.clock.now(), Event::FormerDrained { undrained });
    }

    /// A marker is held and never settled, so that it comes back behind whatever is not settled.
    pub(super) fn marked(&mut self) {
        self.drain.marker_came(self.clock.now());
    }

    /// `at_rest`: nothing is under way besides what the core knows of.
    pub(super) fn look_at_drain<D: Deliveries>(
        &mut self,
        tenancy: Option<&Tenancy<D>>,
        at_rest: bool,
    ) -> Option<Drained> {
        tenancy?;
        let view = self.core.view();
        let at_rest = at_rest && view.held == 0 && view.released == 0 && self.core.is_quiet();
        self.drain.look(self.clock.now(), at_rest)
    }
}
