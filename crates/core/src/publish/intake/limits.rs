//! The bounds of what waits.

use std::collections::HashMap;
use std::time::Duration;

use super::allowance::Allowance;
use super::{Intake, Offer, Place};
use crate::pacing::Rate;
use crate::tick::Tick;
use crate::update::RecordKey;

/// Bounds of an [`Intake`].
#[derive(Clone, Debug)]
pub struct IntakeLimits {
    /// Updates between submission and receipt.
    pub pending_max: usize,
    /// Their bytes. If nothing waits, one request is admitted, however large.
    pub pending_bytes_max: usize,
    /// Updates of one record.
    pub pending_per_record_max: usize,
    /// How long a confirmed update is known.
    pub remember: Duration,
    /// How many are known at most.
    pub remembered_max: usize,
    /// Of each client. [`Intake::change_client`] and [`Intake::add_client`] change them.
    pub clients: Vec<ClientLimits>,
}

/// Bounds of one client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientLimits {
    /// Its updates between submission and receipt.
    pub pending_max: usize,
    /// Updates in a time; `None`: no bound.
    pub rate_max: Option<Rate>,
}

/// Why a request is not admitted. Nothing of it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The id of this line was used for another body of the record.
    IdReused {
        /// Its index.
        line: usize,
    },
    /// The request alone has more updates than there is room for: it must be split.
    TooManyLines {
        /// The first one that is too many.
        line: usize,
    },
    /// Too many updates of the record of this line wait.
    TooManyOfRecord {
        /// Its index.
        line: usize,
    },
    /// Too many updates of the client wait.
    TooManyOfClient,
    /// The client sends more than its rate.
    TooFast {
        /// When it may send again.
        retry_after: Duration,
    },
    /// Too many updates or bytes wait.
    Full,
}

impl Intake {
    /// The client has these bounds from now on. What it has sent counts on; so does what it owes, unless its rate changes.
    ///
    /// # Panics
    /// There is no such client.
    pub fn change_client(&mut self, client: usize, limits: ClientLimits) {
        if self.limits.clients[client].rate_max != limits.rate_max {
            self.allowances[client] = Allowance::new(limits.rate_max);
        }
        self.limits.clients[client] = limits;
    }

    /// The number goes to another client: nothing of the one before counts, but for what waits.
    ///
    /// # Panics
    /// There is no such client.
    pub fn replace_client(&mut self, client: usize, limits: ClientLimits) {
        self.allowances[client] = Allowance::new(limits.rate_max);
        self.limits.clients[client] = limits;
    }

    /// A further client; returns its number.
    pub fn add_client(&mut self, limits: ClientLimits) -> usize {
        self.limits.clients.push(limits);
        self.allowances.push(Allowance::new(limits.rate_max));
        self.of_client.push(0);
        self.of_client.len() - 1
    }

    /// Its updates between submission and receipt.
    ///
    /// # Panics
    /// There is no such client.
    #[must_use]
    pub fn load_of_client(&self, client: usize) -> usize {
        self.of_client[client]
    }

    pub(super) fn check_limits(
        &self,
        client: usize,
        lines: &[Offer],
        places: &[Place],
        now: Tick,
    ) -> Result<(), NotAdmitted> {
        let limits = &self.limits;
        let mut of_record: HashMap<&RecordKey, usize> = HashMap::new();
        let (mut updates, mut bytes, mut full_record) = (0, 0, None);
        let of_client = &limits.clients[client];
        let new = places.iter().enumerate().filter(|(_, place)| matches!(place, Place::New));
        for (index, line) in new.map(|(index, _)| (index, &lines[index])) {
            let of_request = of_record.entry(&line.record_key).or_default();
            (*of_request, updates, bytes) = (*of_request + 1, updates + 1, bytes + line.bytes);
            if *of_request > limits.pending_per_record_max
                || updates > of_client.pending_max.min(limits.pending_max)
            {
                return Err(NotAdmitted::TooManyLines { line: index });
            }
            let waiting = self.of_record.get(&line.record_key).copied().unwrap_or_default();
            if waiting + *of_request > limits.pending_per_record_max {
                full_record.get_or_insert(index);
            }
        }
        if let Some(retry_after) = self.allowances[client].wait(now) {
            return Err(NotAdmitted::TooFast { retry_after });
        }
        if updates > 0 && self.of_client[client] + updates > of_client.pending_max {
            return Err(NotAdmitted::TooManyOfClient);
        }
        if let Some(line) = full_record {
            return Err(NotAdmitted::TooManyOfRecord { line });
        }
        let (waiting, waiting_bytes) = self.load();
        let is_full = waiting + updates > limits.pending_max
            || (waiting > 0 && waiting_bytes + bytes > limits.pending_bytes_max);
        if updates > 0 && is_full { Err(NotAdmitted::Full) } else { Ok(()) }
    }
}
