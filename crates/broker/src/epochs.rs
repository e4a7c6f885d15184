//! The epochs that this process knows of: what all its readers of the stream of members share.

use tokio::sync::watch;

use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::numbering::Numbering;

/// The newest epoch and the highest number of the ledger that this process knows of.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    newest: watch::Sender<u64>,
    floor: watch::Sender<Option<TenureNumber>>,
}

impl Epochs {
    /// What a reader knows before it reads.
    pub(crate) fn numbering(&self) -> Numbering {
        Numbering::new(self.newest(), self.floor())
    }

    pub(crate) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    pub(crate) fn floor(&self) -> Option<TenureNumber> {
        *self.floor.borrow()
    }

    /// The ledger has this number now. Another owner may have written it whose claim is not read yet.
    pub fn ledger_has(&self, highest: Option<TenureNumber>) {
        self.floor.send_if_modified(|floor| *floor < highest && std::mem::replace(floor, highest) < highest);
    }

    /// There is such an epoch. Lower ones change nothing.
    pub fn observe(&self, epoch: u64) {
        self.newest.send_if_modified(|newest| *newest < epoch && std::mem::replace(newest, epoch) < epoch);
    }

    /// For who records it in the layout document.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}
