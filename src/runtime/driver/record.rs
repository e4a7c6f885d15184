//! What is written down, and where: a resolution to the dead-letter queue, the ledger, both or neither, before it is settled;
//! a claim to the ledger. And what is read from the ledger: parked updates that were released.

use std::sync::Arc;

use super::{Driver, Loss};
use crate::http::{AttemptReceipt, Target};
use crate::runtime::notify::{Notifier, ParkedRecord};
use crate::runtime::releases::ReleasedHere;
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::message::{Event, Holder, ParkedSeq, Tenure, TenureNumber};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::policy::{DeadLetterReason, ParkReason, Resolution};
use lanekeeper_core::update::{RecordKey, Update};
use lanekeeper_ledger::{Ledger, RecordLock, Recorded};

/// What the core asks to write down.
pub(super) struct Resolved {
    pub(super) tenure: Tenure,
    pub(super) holder: Holder,
    /// `None`: malformed.
    pub(super) update: Option<Arc<Update>>,
    pub(super) resolution: Resolution,
}

/// A resolution that was written down, or could not be.
pub(super) struct Written {
    pub(super) tenure: Tenure,
    holder: Holder,
    record_key: Option<RecordKey>,
    recorded: Recorded,
}

impl Written {
    /// For the core.
    pub(super) fn into_event(self) -> Event {
        let Self { tenure, holder, record_key, recorded } = self;
        match (recorded, record_key) {
            (Recorded::NotParked | Recorded::Fenced, Some(record_key)) => {
                Event::NotRecorded { tenure, holder, record_key }
            }
            (_, record_key) => Event::Recorded { tenure, holder, record_key },
        }
    }
}

/// The tenure number that writes to the ledger carry: that of our first claim since another process claimed the partition.
/// Later claims of ours do not change it, so that the ledger does not refuse what is being written when they are made.
#[derive(Default)]
pub(super) struct LedgerTenure {
    number: Option<TenureNumber>,
    /// The newest claim of another process by then.
    rival_claim: Option<TenureNumber>,
    /// The ledger has refused the number: it has a higher one, of a claim that was perhaps never read.
    refused: bool,
}

impl LedgerTenure {
    fn is_outdated_by(&self, claimed: &Event) -> bool {
        let Event::Claimed { number, rival_claim, .. } = claimed else { return false };
        let is_newer = self.number.is_none() || *rival_claim > self.rival_claim || self.refused;
        number.is_some() && is_newer
    }

    pub(super) fn observe(&mut self, claimed: &Event) {
        if self.is_outdated_by(claimed)
            && let Event::Claimed { number, rival_claim, .. } = claimed
        {
            *self = Self { number: *number, rival_claim: *rival_claim, refused: false };
        }
    }

    /// The next claim counts for the ledger, too.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }
}

/// What an attempt that has just ended leaves to be written with its resolution. It is dropped if the core does not resolve the
/// update now.
pub(super) struct LastAnswer {
    pub(super) record_key: RecordKey,
    pub(super) receipt: AttemptReceipt,
    pub(super) lock: Option<RecordLock>,
}

/// Parked updates of a record, read from the ledger.
pub(super) type Loaded = (RecordKey, Vec<(ParkedSeq, Arc<Update>)>);

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// Begins to write a resolution down; [`Self::written`] follows. The write goes on if the session ends, unless the
    /// delivery is malformed.
    pub(super) fn record(&mut self, Resolved { tenure, holder, update, resolution }: Resolved) {
        let dead_letter = if let Resolution::DeadLettered(reason) = &resolution {
            // The delivery is gone with its session: the update comes back, and is resolved again.
            let Some(session) = self.phase.session_of(tenure) else { return };
            Some(session.deliveries.dead_letter(holder, update.as_deref(), reason.clone()))
        } else {
            None
        };
        let record_key = update.as_ref().map(|update| update.record_key.clone());
        let written = move |recorded| Written { tenure, holder, record_key, recorded };
        let Some(update) = update else {
            let dead_letter = dead_letter.expect("what is malformed is dead-lettered");
            return self.pending.recording_of_session(Box::pin(async move {
                dead_letter.await;
                written(Recorded::Done)
            }));
        };
        let Some(ledger_client) = self.context.ledger_client.clone() else {
            return match dead_letter {
                None => self.notify(written(Recorded::Done).into_event()),
                Some(dead_letter) => self.pending.recording(Box::pin(async move {
                    dead_letter.await;
                    written(Recorded::Done)
                })),
            };
        };
        let answer = self.last_answer.take_if(|answer| answer.record_key == update.record_key);
        let (receipt, lock) = answer.map(|answer| (answer.receipt, answer.lock)).unwrap_or_default();
        let parked = self.parked_record(&update, &resolution);
        let writing =
            ledger_client.write(self.ledger_tenure.number, update, holder, resolution, (receipt, lock));
        self.pending.recording(Box::pin(async move {
            if let Some(dead_letter) = dead_letter {
                dead_letter.await;
            }
            let recorded = writing.await;
            if let Some((notifier, record)) = parked.filter(|_| recorded == Recorded::Done) {
                notifier.parked(record);
            }
            written(recorded)
        }));
    }

    /// What people are told once it is written down that the record is parked.
    fn parked_record(&self, update: &Update, resolution: &Resolution) -> Option<(Notifier, ParkedRecord)> {
        let Resolution::Parked(ParkReason::Failed { reason, attempts }) = resolution else { return None };
        let cause = match reason {
            DeadLetterReason::Rejected(failure)
            | DeadLetterReason::Exhausted { failure, .. }
            | DeadLetterReason::Conflict(failure) => failure.cause.to_string(),
            DeadLetterReason::IdReused | DeadLetterReason::Malformed(_) => String::new(),
        };
        let record = ParkedRecord {
            target: self.context.target_metrics[update.target.0].name().to_owned(),
            layout: self.context.layout.number,
            partition: self.context.partition,
            update_id: update.id.as_str().to_owned(),
            record_key: update.record_key.clone(),
            reason: reason.name(),
            cause,
            attempts: *attempts,
        };
        Some((self.context.notifier.clone(), record))
    }

    /// A resolution was written down, or could not be.
    pub(super) fn written(&mut self, written: Written) {
        if written.recorded == Recorded::Fenced {
            self.ledger_tenure.refuse();
        }
        if written.recorded == Recorded::Fenced && self.phase.session_of(written.tenure).is_some() {
            self.loss = Some(Loss::fenced(Some(written)));
            return;
        }
        let of_ledger = matches!(written.holder, Holder::Ledger(_)) && written.recorded == Recorded::Done;
        if of_ledger {
            self.held_spans.settled(written.holder, &self.context.target_metrics);
        }
        let further = if of_ledger { written.record_key.clone() } else { None };
        self.notify(written.into_event());
        // The ledger may hold more released updates of the record than were read together.
        if let Some(record_key) = further {
            self.load(record_key);
        }
    }

    /// Our claim was read back. The ledger is told before the core is.
    pub(super) fn record_claim(&mut self, claimed: Event) {
        let Event::Claimed { number, .. } = claimed else { unreachable!("it is a claim") };
        let ledger_client =
            self.context.ledger_client.clone().filter(|_| self.ledger_tenure.is_outdated_by(&claimed));
        self.pending.claim(Box::pin(async move {
            let result = match ledger_client.zip(number) {
                Some((ledger_client, number)) => ledger_client.claim(number).await,
                None => Ok(()),
            };
            (claimed, result)
        }));
    }

    /// A person has released these parked records.
    pub(super) fn released(&mut self, mut released: ReleasedHere) {
        released.record_keys.retain(|key| !self.core.is_blocked_by_previous(key));
        let ownership_state = self.core.ownership_state();
        if self.releases.need_claim(&released, ownership_state) {
            self.context.source.ask_for_delivery();
        }
        // Only an owner sends them.
        let ours = matches!(ownership_state, OwnershipState::Claimed(_) | OwnershipState::Lapsed(_));
        if ours && !self.pending.is_loading() {
            for record_key in released.record_keys {
                self.load(record_key);
            }
        }
    }

    /// Reads the oldest parked updates of a record, unless some of them were read before and have not had their turn.
    fn load(&mut self, record_key: RecordKey) {
        if let Some(ledger_client) =
            self.context.ledger_client.clone().filter(|_| !self.core.has_released(&record_key))
        {
            self.pending.loading(Box::pin(ledger_client.released(record_key)));
        }
    }

    pub(super) fn loaded(&mut self, (record_key, updates): Loaded) {
        if let Some(session) = self.phase.session() {
            let tenure = session.tenure;
            self.notify(Event::Released { tenure, record_key, updates });
        }
    }
}
