//! A partition whose layout drains: markers, and how its driver ends.

use super::{Driver, Tenancy};
use crate::core::drain::Drained;
use crate::core::message::DeliveryTag;
use crate::source::{Deliveries, Source};
use crate::target::Target;

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
    /// A marker is held and never settled, so that it comes back behind whatever is not settled.
    pub(super) fn marked(&mut self, tenancy: &mut Option<Tenancy<S::Deliveries>>, delivery: DeliveryTag) {
        let Some(tenancy) = tenancy else { return };
        let now = self.clock.now();
        tenancy.acks.delivered(delivery, now);
        self.drain.marker_came(now);
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
