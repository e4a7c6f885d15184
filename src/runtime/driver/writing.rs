//! How a resolution is written down before it is settled: dead letter, ledger, both or neither.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Driver, Tenancy};
use crate::http::{Receipt, Target};
use crate::runtime::books::{Books, Fenced};
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::message::{Event, Holder, ParkedSeq, Tenure, TenureNumber};
use lanekeeper_core::policy::Resolution;
use lanekeeper_core::update::{RecordKey, Update};
use lanekeeper_ledger::{RecordLock, Recorded};

/// What the core asks to write down.
pub(super) struct Resolved {
    pub(super) tenure: Tenure,
    pub(super) holder: Holder,
    /// `None`: malformed.
    pub(super) update: Option<Arc<Update>>,
    pub(super) resolution: Resolution,
}

type WrittenLater = Pin<Box<dyn Future<Output = Written> + Send>>;

/// How far that is.
pub(super) enum Writing {
    /// There is nothing to write.
    Done(Written),
    /// It goes on, whatever becomes of the tenure.
    Begun(WrittenLater),
    /// It ends with the tenure: the next one does not recognise what is malformed, and writes it down anew.
    BegunOfTenure(WrittenLater),
    /// The delivery is gone with its tenure: the update comes back, and so does this.
    Void,
}

/// A resolution that was written down, or could not be.
pub(super) struct Written {
    pub(super) tenure: Tenure,
    pub(super) holder: Holder,
    pub(super) record_key: Option<RecordKey>,
    pub(super) recorded: Recorded,
}

/// As which tenure the ledger is written to: the first one since another process claimed the partition. A later claim of
/// ours changes nothing there, so that what is being written meanwhile is not taken for another's.
#[derive(Default)]
pub(super) struct WrittenAs {
    pub(super) number: Option<TenureNumber>,
    /// The newest claim of another process by then.
    other: Option<TenureNumber>,
}

impl WrittenAs {
    pub(super) fn is_outdated_by(&self, claimed: &Event) -> bool {
        let Event::Claimed { number, other, .. } = claimed else { return false };
        number.is_some() && (self.number.is_none() || *other > self.other)
    }

    pub(super) fn heed(&mut self, claimed: &Event) {
        if self.is_outdated_by(claimed)
            && let Event::Claimed { number, other, .. } = claimed
        {
            (self.number, self.other) = (*number, *other);
        }
    }
}

/// What an attempt that has just ended leaves for its resolution: dropped if it has none yet.
pub(super) type Leftover = Option<(RecordKey, Receipt, Option<RecordLock>)>;

/// Parked updates of a record, out of the ledger.
pub(super) type Loaded = (RecordKey, Vec<(ParkedSeq, Arc<Update>)>);

impl<S: Source, T: Target + 'static> Driver<S, T> {
    pub(super) fn written(&mut self, Written { tenure, holder, record_key, recorded }: Written) {
        let event = match (recorded, record_key) {
            (Recorded::NotParked | Recorded::Fenced, Some(record_key)) => {
                Event::NotRecorded { tenure, holder, record_key }
            }
            (_, record_key) => Event::Recorded { tenure, holder, record_key },
        };
        self.core.handle(self.clock.now(), event);
    }

    /// After the last of the released updates that were taken out of the ledger together there may be more.
    pub(super) fn further(&self, written: &Written) -> Option<(Books, RecordKey)> {
        let of_ledger = matches!(written.holder, Holder::Ledger(_)) && written.recorded == Recorded::Done;
        self.books.clone().filter(|_| of_ledger).zip(written.record_key.clone())
    }

    /// `tenancy`: that of the resolution, if it lasts. `number`: of the tenure, as the ledger knows it.
    pub(super) fn write_down(
        &self,
        tenancy: Option<&Tenancy<S::Deliveries>>,
        Resolved { tenure, holder, update, resolution }: Resolved,
        number: Option<TenureNumber>,
        leftover: &mut Leftover,
    ) -> Writing {
        let letter = match (&resolution, tenancy) {
            (Resolution::DeadLettered(_), None) => return Writing::Void,
            (Resolution::DeadLettered(reason), Some(tenancy)) => {
                Some(tenancy.deliveries.dead_letter(holder, update.as_deref(), reason.clone()))
            }
            _ => None,
        };
        let record_key = update.as_ref().map(|update| update.record_key.clone());
        let written = move |recorded| Written { tenure, holder, record_key, recorded };
        let published = async move {
            if let Some(letter) = letter {
                letter.await;
            }
        };
        match (update, &self.books) {
            (None, _) => Writing::BegunOfTenure(Box::pin(async move {
                published.await;
                written(Recorded::Done)
            })),
            (Some(_), None) if !matches!(resolution, Resolution::DeadLettered(_)) => {
                Writing::Done(written(Recorded::Done))
            }
            (Some(_), None) => Writing::Begun(Box::pin(async move {
                published.await;
                written(Recorded::Done)
            })),
            (Some(update), Some(books)) => {
                let left = leftover.take_if(|(of, ..)| *of == update.record_key);
                let (receipt, lock) = left.map(|(_, receipt, lock)| (receipt, lock)).unwrap_or_default();
                let writing = books.clone().write(number, update, holder, resolution, (receipt, lock));
                Writing::Begun(Box::pin(async move {
                    published.await;
                    written(writing.await)
                }))
            }
        }
    }
}

/// Tells the ledger of a claim.
pub(super) async fn claim(books: Option<Books>, claimed: Event) -> (Event, Result<(), Fenced>) {
    let result = match (books, &claimed) {
        (Some(books), Event::Claimed { number: Some(number), .. }) => books.claim(*number).await,
        _ => Ok(()),
    };
    (claimed, result)
}

/// Pends for ever where nothing is being loaded.
pub(super) async fn loaded<F: Future<Output = Loaded>>(loadings: &mut FuturesUnordered<F>) -> Loaded {
    match loadings.next().await {
        Some(loaded) => loaded,
        None => std::future::pending().await,
    }
}
