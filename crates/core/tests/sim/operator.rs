//! Persons who release and discard what is parked; and another process that uses the same ledger while it owns the
//! partition.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::message::{Holder, ParkedSeq};
use lanekeeper_core::outcome::Known;
use lanekeeper_core::policy::FailurePolicy;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::UpdateId;

use crate::ledger::{LedgerWrite, WriteKind};
use crate::ledger_setup::LedgerBehaviour;
use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

impl World {
    pub fn ledger_behaviour(&self) -> &LedgerBehaviour {
        self.setup.ledger.as_ref().expect("there is a ledger")
    }

    /// Nothing is left to do, and nothing will come.
    pub fn is_over(&self) -> bool {
        self.judge.all_gone()
            && self.ledger_client.as_ref().is_none_or(|ledger_client| ledger_client.ledger.is_empty())
    }

    /// An operator looks at what is parked. In the end everything is released, and dropped only where it cannot go out.
    pub fn operate(&mut self) {
        if self.is_over() {
            return;
        }
        self.pause_records();
        let calm = self.now >= self.setup.calm_at;
        let LedgerBehaviour { operator, released, discarded, .. } = *self.ledger_behaviour();
        self.at(
            self.now.after(Duration::from_millis(operator)),
            SimEvent::Ledger(crate::ledger_client::LedgerEvent::Operate),
        );
        for record in 0..self.setup.record_keys.len() {
            let Some(parked) = self.ledger_client().ledger.parked(record) else { continue };
            let (count, reused) = (parked.updates.len(), parked.updates[0].reused);
            if !parked.releasing && (reused && calm || !calm && self.rng.chance(discarded)) {
                let first = if calm { 1 } else { self.rng.index(count) + 1 };
                let updates = self.ledger_client().ledger.discard(record, first);
                self.trace(TraceLine::Discarded { record, updates });
            } else if (calm || self.rng.chance(released)) && self.ledger_client().ledger.release(record) {
                self.trace(TraceLine::ReleaseAsked { record });
            }
        }
    }

    /// An operator drops what is parked just when an update is to join it.
    pub fn discard_at_once(&mut self, name: usize) {
        let (record, discarded) = (self.record_of(name), self.ledger_behaviour().discarded);
        if self.now < self.setup.calm_at && self.rng.chance(discarded) {
            let updates = self.ledger_client().ledger.discard(record, usize::MAX);
            self.trace(TraceLine::Discarded { record, updates });
        }
    }

    /// Another process owns the partition, with the same ledger. Answers how many of `taken` it may ack, and how many
    /// requests it has made.
    pub fn other_process_uses_ledger(&mut self, number: u64, taken: &[usize]) -> (usize, usize) {
        self.ledger_client().ledger.claim(number);
        for record in self.ledger_client().ledger.releasing() {
            while let Some(head) = self.ledger_client().ledger.oldest(record, 1).pop() {
                if !self.ledger_client().ledger.parked(record).is_some_and(|parked| parked.releasing) {
                    break;
                }
                if self.rng.chance(100) {
                    return (0, 0); // it dies
                }
                if !self.other_process_resolves(number, head.name, Holder::Ledger(head.seq)) {
                    return (0, 0);
                }
            }
        }
        let most = self.rng.index(taken.len() + 1);
        for (handled, name) in taken[..most].iter().enumerate() {
            if !self.other_process_resolves(
                number,
                *name,
                Holder::Broker(lanekeeper_core::message::DeliveryTag(1)),
            ) {
                return (handled, handled + 1);
            }
        }
        (most, most)
    }

    /// Whether it lives to write it down.
    fn other_process_resolves(&mut self, number: u64, name: usize, holder: Holder) -> bool {
        let Some(record) = self.setup.publications[name].record else {
            self.judge.dead_lettered(name);
            return true;
        };
        let parked = match holder {
            Holder::Broker(_) => None,
            Holder::Ledger(seq) => Some(seq),
        };
        let id = self.setup.publications[name].id.clone();
        let id = id.unwrap_or_else(|| UpdateId::made(format!("rival-{number}-{name}")));
        let known = self.ledger_client().ledger.lookup(record, name, &id, holder);
        let target = TargetId(self.setup.publications[name].target);
        let conflict = self.setup.policy.failure_of(target).conflict;
        let what = match known {
            Some(Known::Resolved) if parked.is_none() => return true,
            Some(Known::Resolved | Known::Superseded) => WriteKind::Resolved { parked },
            Some(Known::IdReused) if conflict == FailurePolicy::DeadLetter => {
                self.judge.dead_lettered(name);
                WriteKind::Resolved { parked }
            }
            Some(Known::IdReused) => self.other_process_parks(name, &id, parked, true),
            Some(Known::RecordParked) => self.other_process_parks(name, &id, parked, false),
            Some(Known::RecordPaused) => self.other_process_parks_paused(name, &id, parked),
            None if self.now < self.setup.calm_at && self.rng.chance(150) => {
                self.other_process_parks(name, &id, parked, false)
            }
            None => {
                self.judge_order_of_applying(name);
                self.judge.applied_by_other_process(name);
                WriteKind::Applied { parked }
            }
        };
        if self.rng.chance(50) {
            return false;
        }
        self.ledger_client().ledger.write(&LedgerWrite { number, record, update: name, id, what });
        true
    }

    /// The record is paused.
    fn other_process_parks_paused(
        &mut self,
        name: usize,
        id: &UpdateId,
        parked: Option<ParkedSeq>,
    ) -> WriteKind {
        match self.other_process_parks(name, id, parked, false) {
            WriteKind::Repark { seq, reused, .. } => WriteKind::Repark { seq, reused, of_pause: true },
            WriteKind::Park { update, reused, .. } => WriteKind::Park { update, reused, only_behind: true },
            other => other,
        }
    }

    fn other_process_parks(
        &mut self,
        name: usize,
        id: &UpdateId,
        parked: Option<ParkedSeq>,
        reused: bool,
    ) -> WriteKind {
        let record = self.record_of(name);
        let mut update = self.dispatcher.update(&self.setup, name, record);
        Arc::make_mut(&mut update).id = id.clone();
        match parked {
            Some(seq) => WriteKind::Repark { seq, reused, of_pause: false },
            None => WriteKind::Park { update, reused, only_behind: false },
        }
    }
}
