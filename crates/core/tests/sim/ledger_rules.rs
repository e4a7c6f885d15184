//! What must hold where there is a ledger, told from what is on disk, what left the queue and what the target applied.
//! That nothing is sent too early or again is judged by `Ledger::judge_sending`.

use lanekeeper_core::message::Holder;
use lanekeeper_core::policy::Resolution;

use crate::judge::{Judge, fault};
use crate::world::World;

impl World {
    /// What is settled needs no broker any more: its turn is over, or it is parked, and that is on disk.
    pub fn judge_safe(&self, name: usize) {
        let Some(ledger_client) = &self.ledger_client else { return };
        let malformed = self.setup.publications[name].record.is_none();
        if !malformed && !ledger_client.ledger.is_done(name) && !ledger_client.ledger.is_parked(name) {
            fault!("settle, I3", "#{name} was settled, and the ledger knows nothing of it");
        }
    }

    /// Nothing is left out that has not had its turn.
    pub fn judge_known(&self, name: usize, holder: Holder, resolution: &Resolution) {
        let Some(ledger_client) = &self.ledger_client else { return };
        let parked = matches!(holder, Holder::Broker(_)) && ledger_client.ledger.is_parked(name);
        if *resolution == Resolution::Duplicate && !parked && !ledger_client.ledger.is_done(name) {
            fault!("resolution", "#{name} counts as a duplicate, and its turn is not over");
        }
    }

    /// When an update reaches the target for the first time, the earlier ones of its record have had their turn.
    pub fn judge_order_of_applying(&self, name: usize) {
        let Some(ledger_client) = &self.ledger_client else { return };
        if self.judge.is_applied(name) {
            return;
        }
        for earlier in self.judge.earlier_of(self.record_of(name), name) {
            if !ledger_client.ledger.is_done(earlier) && !self.judge.is_applied(earlier) {
                fault!("order", "#{name} was first applied before #{earlier} of its record");
            }
        }
    }

    /// The world has come to rest.
    pub fn judge_rest(&self) {
        let Some(ledger_client) = &self.ledger_client else { return };
        if !ledger_client.ledger.is_empty() {
            fault!(
                "liveness",
                "updates stay parked, though all are released: {:?}",
                ledger_client.ledger.releasing()
            );
        }
        for name in 0..self.setup.publications.len() {
            if self.setup.publications[name].record.is_some() && !ledger_client.ledger.is_done(name) {
                fault!("nothing is lost", "the turn of #{name} never came");
            }
        }
    }
}

impl Judge {
    /// It is on disk that the target has it.
    pub fn judge_kept_as_applied(&self, name: usize) {
        if !self.is_applied(name) {
            fault!("the ledger lies", "#{name} is kept as applied, and the target never had it");
        }
    }
}
