//! A partition whose layout drains: markers, and how its driver ends.

use std::time::Duration;

use super::{Driver, Tenancy};
use crate::core::drain::Drained;
use crate::core::message::DeliveryTag;
use crate::core::tick::Tick;
use crate::source::{Deliveries, Holding, Source};
use crate::target::Target;

const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Records that are named.
const RETRIED_MAX: usize = 3;

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
    /// What keeps the partition from being drained, told now and then: `lanekeeper topology` names it.
    pub(super) fn tell_holding(&self, told: &mut Tick) {
        let now = self.clock.now();
        if self.source.drains() && now.since(*told) >= TOLD_EVERY {
            *told = now;
            let retried = self.core.retried(RETRIED_MAX).into_iter();
            let retried = retried.map(|of| (of.record_key.as_str().to_owned(), of.updates, of.attempts));
            self.source.tell_holding(Holding { updates: self.core.view().held, retried: retried.collect() });
        }
    }

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
