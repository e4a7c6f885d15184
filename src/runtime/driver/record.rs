//! How a resolution is written down before it is settled: dead letter, ledger, both or neither. And what else passes between
//! the core and the ledger: claims, and parked updates that were released.

use std::sync::Arc;

use super::{Driver, Loss};
use crate::http::{AttemptReceipt, Target};
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::message::{Event, Holder, ParkedSeq, Tenure, TenureNumber};
use lanekeeper_core::policy::Resolution;
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

/// As which tenure the ledger is written to: the first one since another process claimed the partition. A later claim of
/// ours changes nothing there, so that what is being written at that moment is not taken for another's.
#[derive(Default)]
pub(super) struct WrittenAs {
    number: Option<TenureNumber>,
    /// The newest claim of another process by then.
    rival_claim: Option<TenureNumber>,
}

impl WrittenAs {
    fn is_outdated_by(&self, claimed: &Event) -> bool {
        let Event::Claimed { number, rival_claim, .. } = claimed else { return false };
        number.is_some() && (self.number.is_none() || *rival_claim > self.rival_claim)
    }

    pub(super) fn observe(&mut self, claimed: &Event) {
        if self.is_outdated_by(claimed)
            && let Event::Claimed { number, rival_claim, .. } = claimed
        {
            (self.number, self.rival_claim) = (*number, *rival_claim);
        }
    }
}

/// What an attempt that has just ended leaves for its resolution: dropped if it has none yet.
pub(super) type Leftover = Option<(RecordKey, AttemptReceipt, Option<RecordLock>)>;

/// Parked updates of a record, out of the ledger.
pub(super) type Loaded = (RecordKey, Vec<(ParkedSeq, Arc<Update>)>);

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// Begins to write a resolution down. The write goes on whatever becomes of the session, but for malformed deliveries;
    /// [`Self::written`] follows.
    pub(super) fn record(&mut self, Resolved { tenure, holder, update, resolution }: Resolved) {
        let dead_letter = if let Resolution::DeadLettered(reason) = &resolution {
            // Without its session the delivery is gone: the update comes back, and is resolved again.
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
        let left = self.leftover.take_if(|(of, ..)| *of == update.record_key);
        let (receipt, lock) = left.map(|(_, receipt, lock)| (receipt, lock)).unwrap_or_default();
        let writing =
            ledger_client.write(self.written_as.number, update, holder, resolution, (receipt, lock));
        self.pending.recording(Box::pin(async move {
            if let Some(dead_letter) = dead_letter {
                dead_letter.await;
            }
            written(writing.await)
        }));
    }

    /// A resolution was written down, or could not be.
    pub(super) fn written(&mut self, written: Written) {
        if written.recorded == Recorded::Fenced && self.phase.session_of(written.tenure).is_some() {
            self.loss = Some(Loss::fenced(Some(written)));
            return;
        }
        let of_ledger = matches!(written.holder, Holder::Ledger(_)) && written.recorded == Recorded::Done;
        let further = if of_ledger { written.record_key.clone() } else { None };
        self.notify(written.into_event());
        // After the last of the released updates that were taken out of the ledger together there may be more.
        if let Some(record_key) = further {
            self.load(record_key);
        }
    }

    /// The ledger is to know of a claim before the core does.
    pub(super) fn record_claim(&mut self, claimed: Event) {
        let Event::Claimed { number, .. } = claimed else { unreachable!("it is a claim") };
        let ledger_client =
            self.context.ledger_client.clone().filter(|_| self.written_as.is_outdated_by(&claimed));
        self.pending.claim(Box::pin(async move {
            let result = match ledger_client.zip(number) {
                Some((ledger_client, number)) => ledger_client.claim(number).await,
                None => Ok(()),
            };
            (claimed, result)
        }));
    }

    /// Records of this partition wait in the ledger to go out.
    pub(super) fn released(&mut self, mut record_keys: Vec<RecordKey>) {
        record_keys.retain(|key| !self.core.is_blocked_by_previous(key));
        if self.releases.need_claim(&record_keys, self.core.ownership_state()) {
            self.context.source.ask_for_delivery();
        }
        if !self.pending.is_loading() {
            for record_key in record_keys {
                self.load(record_key);
            }
        }
    }

    /// Reads the oldest parked updates of a record, unless some of it are here.
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
