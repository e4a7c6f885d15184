//! Answers what people ask of a partition. It reads, and changes nothing.

use super::Driver;
use super::phase::Phase;
use crate::http::Target;
use crate::runtime::inspection::{DriverQuestion, DriverState, FoundRecord};
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::why::WaitCause;
use lanekeeper_ledger::Ledger;

/// Records that are named because another one waits for the room that they take.
const HOLDERS_MAX: usize = 3;

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// Who has asked may have given up by now.
    pub(super) fn asked(&mut self, question: DriverQuestion) {
        let now = self.now();
        match question {
            DriverQuestion::State(answer) => drop(answer.send(self.state())),
            DriverQuestion::Record(matcher, answer) => {
                let explained = self.core.explain(now, |record_key| matcher.fits(record_key));
                let holders = match explained.as_ref().map(|explained| &explained.cause) {
                    Some(WaitCause::Room { .. }) => self.core.explain_in_flight(now, HOLDERS_MAX),
                    None if self.core.view().held >= self.core.limits().window.get() => {
                        self.core.explain_largest(now, HOLDERS_MAX)
                    }
                    Some(_) | None => Vec::new(),
                };
                drop(answer.send(FoundRecord { explained, holders }));
            }
            DriverQuestion::Oldest(limit, answer) => drop(answer.send(self.core.explain_oldest(now, limit))),
        }
    }

    fn state(&mut self) -> DriverState {
        let attached = matches!(self.phase, Phase::Attached(_));
        let ownership = self.core.ownership_state();
        let has_begun = self.phase.session().is_some_and(|session| session.deliveries.has_begun());
        DriverState {
            attached,
            owns: has_begun && ownership != OwnershipState::Lost,
            ownership,
            view: self.core.view(),
            limits: self.core.limits(),
            oldest: self.core.explain_oldest(self.now(), 1).pop(),
        }
    }
}
