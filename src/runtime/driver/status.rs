//! Publishes what a driver holds: when somebody asks (`lanekeeper topology show`), and regularly while its layout drains.

use std::time::Duration;

use super::Driver;
use crate::http::Target;
use crate::runtime::age::age;
use lanekeeper_broker::{Deliveries, PartitionStatus, RetriedRecord, Source};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::tick::Tick;
use lanekeeper_ledger::Ledger;

/// Requests that come sooner than this after an answer are answered together.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// How often the status is published without a request, while the layout drains.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// How many of the records that are retried are named.
const RETRIED_MAX: usize = 3;

/// The requests of a session, and when they were last answered.
#[derive(Debug, Default)]
pub(super) struct StatusReporter {
    last_report: Option<Tick>,
    /// The newest request.
    requested: Option<u64>,
    /// The newest request that was answered.
    answered: Option<u64>,
}

impl StatusReporter {
    pub(super) fn requested(&mut self, request: u64) {
        self.requested = Some(request);
    }

    /// When the next request is to be answered; `None`: all are.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        let earliest = self.last_report.map_or(Tick::ZERO, |last| last.after(ANSWER_INTERVAL));
        (self.requested != self.answered).then_some(earliest)
    }

    /// Returns true if the status is to be published now. It then counts as published.
    fn is_due(&mut self, now: Tick, drains: bool) -> bool {
        let unasked = drains && self.last_report.is_none_or(|last| now.since(last) >= REPORT_INTERVAL);
        let is_due = unasked || self.next_deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            (self.last_report, self.answered) = (Some(now), self.requested);
        }
        is_due
    }
}

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// Publishes the status if that is due.
    pub(super) fn report_status(&mut self) {
        let Some(session) = self.phase.session() else { return };
        let (now, drains) = (self.context.clock.now(), self.context.source.drains());
        if !session.status.is_due(now, drains) {
            return;
        }
        let (view, oldest, ownership_state) =
            (self.core.view(), self.core.oldest(), self.core.ownership_state());
        let held_since = oldest.delivery.and_then(|delivery| session.deliveries.received_at(delivery));
        // They keep the layout from being drained. The stream is kept: no record keys.
        let retried = if drains { self.core.retried(RETRIED_MAX) } else { Vec::new() }.into_iter();
        let tenure = match ownership_state {
            OwnershipState::Claimed(number) | OwnershipState::Lapsed(number) => number,
            OwnershipState::Unclaimed | OwnershipState::Claiming | OwnershipState::Lost => None,
        };
        self.context.source.publish_status(PartitionStatus {
            updates: view.held,
            retried: Vec::new(),
            retried_records: retried
                .map(|of| RetriedRecord {
                    update_id: of.update_id.as_str().to_owned(),
                    updates: of.updates,
                    attempts: of.attempts,
                })
                .collect(),
            answers: session.status.answered,
            owns: ownership_state != OwnershipState::Lost && session.deliveries.has_begun(),
            tenure: tenure.map(|number| number.0),
            oldest_held_seconds: held_since.map(|came| came.elapsed().as_secs()),
            oldest_published_seconds: oldest.published_at.and_then(age).map(|age| age.as_secs()),
            records: view.lanes,
            waiting: view.waiting + view.paced,
            target_shut: view.target_shut,
            target_paused: view.target_paused,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, one letter after another, a quarter of a second apart: `?` a question, `d` the layout drains, `.`
    /// nothing. In which places the status is published.
    fn check(script: &str, expected: &[usize]) {
        let (mut status, mut last_report, mut drains) = (StatusReporter::default(), Vec::new(), false);
        for (place, letter) in script.chars().enumerate() {
            let now = Tick::from_micros(u64::try_from(place).unwrap() * 250_000);
            match letter {
                '?' => status.requested(place as u64),
                'd' => drains = true,
                _ => {}
            }
            let awaited = status.next_deadline().is_some_and(|deadline| deadline <= now);
            if status.is_due(now, drains) {
                last_report.push(place);
            } else {
                assert!(!awaited, "{script}: {place}");
            }
        }
        assert_eq!(last_report, expected, "{script}");
    }

    #[test]
    fn every_question_is_answered_and_none_more_often_than_once_a_second() {
        check("..........", &[]);
        check("?.........", &[0]);
        check("????????????????????", &[0, 4, 8, 12, 16]);
        check("?..?.........", &[0, 4]);
        check("?.....?......", &[0, 6]);
    }

    #[test]
    fn while_the_layout_drains_the_status_is_published_every_two_seconds() {
        check("d................", &[0, 8, 16]);
        check("d...?............", &[0, 4, 12]);
    }
}
