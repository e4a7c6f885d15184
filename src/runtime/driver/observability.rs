//! What a driver tells people: log lines and metrics.

use std::time::Duration;

use tracing::{Level, debug, info, warn};

use super::Driver;
use crate::http::Target;
use crate::runtime::age::age;
use crate::runtime::breakers::Why;
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::policy::{ParkReason, Resolution};
use lanekeeper_core::update::Update;
use lanekeeper_ledger::Ledger;

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// One line if the ownership has changed in a way that an operator wants to know of.
    fn log_ownership(&mut self) {
        let (ownership_state, last_logged) = (self.core.ownership_state(), self.last_logged);
        if ownership_state == last_logged {
            return;
        }
        match ownership_state {
            // It is claimed again, for a higher number: nothing to log yet.
            OwnershipState::Claiming if matches!(last_logged, OwnershipState::Claimed(_)) => {
                return self.context.metrics.active(false);
            }
            OwnershipState::Claimed(Some(TenureNumber(number)))
                if matches!(last_logged, OwnershipState::Claimed(Some(_))) =>
            {
                debug!(partition = %self.context.partition, tenure = number, "partition claimed again");
            }
            OwnershipState::Claimed(Some(TenureNumber(number))) => {
                info!(partition = %self.context.partition, tenure = number, "partition owned");
            }
            OwnershipState::Claimed(None) if !S::Deliveries::NUMBERS_TENURES => {
                info!(partition = %self.context.partition, "updates are dispatched");
            }
            OwnershipState::Claimed(None) => {
                warn!(partition = %self.context.partition, "partition owned without a tenure number, since the broker accepts no publishes: requests carry no lanekeeper-tenure until it does");
            }
            OwnershipState::Lapsed(_) => {
                warn!(partition = %self.context.partition, "the lease has lapsed: no attempts start until it is renewed");
            }
            OwnershipState::Unclaimed | OwnershipState::Claiming | OwnershipState::Lost => {}
        }
        self.context.metrics.active(matches!(ownership_state, OwnershipState::Claimed(_)));
        self.last_logged = ownership_state;
    }

    /// One line per failed attempt at `debug`; at most one per target and minute, at `warn`, if the target refuses us.
    pub(super) fn log_failure(&self, update: &Update, outcome: &Outcome, number: u32) {
        match outcome {
            Outcome::Applied | Outcome::Known(_) | Outcome::Withheld => {}
            Outcome::Refused(failure) | Outcome::RefusedAlone { failure, .. } => {
                let no_credential = failure.cause == Cause::NoCredential;
                let (target, now) = (update.target.0, self.context.clock.now());
                if let Some(attempts) = self.context.refusals.refused(target, failure.cause.to_string(), now)
                {
                    let target_name = self.context.target_metrics[target].name();
                    let update_id = update.id.as_str();
                    // With a status, these are the words of the target.
                    let why = Some(&failure.detail).filter(|_| failure.cause == Cause::Connection);
                    match outcome {
                        Outcome::RefusedAlone { .. } => {
                            warn!(target_name, cause = %failure.cause, why, update_id, attempts, "the target refuses the requests of a record while it applies others, retrying at the longest wait of the schedule: after retry.elapsed_max, failure.rejected decides");
                        }
                        // Nothing of an update is in it.
                        _ if no_credential => {
                            warn!(
                                target_name,
                                why = failure.detail,
                                update_id,
                                attempts,
                                "no token for the requests of a target, retrying at the longest wait of the schedule"
                            );
                        }
                        _ => {
                            warn!(target_name, cause = %failure.cause, why, update_id, attempts, "the target refuses requests, retrying at the longest wait of the schedule");
                        }
                    }
                }
            }
            Outcome::Throttled(failure) => {
                let update_id = update.id.as_str();
                debug!(partition = %self.context.partition, update_id, cause = %failure.cause, attempt = number, "request throttled: the target takes fewer requests than came, and all its updates wait");
            }
            Outcome::Doubted(failure) => {
                let update_id = update.id.as_str();
                let why = tracing::enabled!(Level::DEBUG).then(|| Why::new(update, failure));
                let why = why.as_ref().map(Why::failure);
                debug!(partition = %self.context.partition, update_id, cause = %failure.cause, why, attempt = number, "rejection doubted, since record after record gets it and the target applies nothing");
            }
            Outcome::Retryable { failure, .. } | Outcome::Rejected(failure) | Outcome::Conflict(failure) => {
                let (update_id, outcome) = (update.id.as_str(), outcome.kind().name());
                let why = tracing::enabled!(Level::DEBUG).then(|| Why::new(update, failure));
                let why = why.as_ref().map(Why::failure);
                debug!(partition = %self.context.partition, update_id, outcome, cause = %failure.cause, why, attempt = number, "attempt failed");
            }
        }
    }

    /// One count and, at `debug`, one line per resolution. Of dead letters there is a line at `warn` at once, and then once a
    /// minute. `trace_id`: of a trace that is sampled.
    pub(super) fn log_resolution(
        &self,
        update: Option<&Update>,
        resolution: &Resolution,
        trace_id: Option<String>,
    ) {
        let update_id = update.map_or("", |update| update.id.as_str());
        match resolution {
            Resolution::Applied => {
                if let Some(update) = update {
                    let age = update.published_at.and_then(age);
                    self.context.target_metrics[update.target.0].delivered(age, trace_id);
                }
            }
            Resolution::Duplicate => self.context.metrics.duplicate(),
            Resolution::Superseded => self.context.ledger_metrics.superseded(),
            Resolution::Parked(reason) => {
                self.context.ledger_metrics.parked(reason);
                if let ParkReason::Failed { reason, attempts } = reason {
                    warn!(partition = %self.context.partition, update_id, reason = reason.name(), attempts, "record parked: its updates wait in the ledger until they are released or discarded");
                }
            }
            Resolution::DeadLettered(reason) => {
                self.context.metrics.dead_lettered(reason);
                if let Some(updates) = self.context.dead_letter_log.dead_lettered(reason.name(), self.now()) {
                    warn!(partition = %self.context.partition, update_id, reason = reason.name(), updates, "update dead-lettered");
                }
            }
        }
        debug!(partition = %self.context.partition, update_id, resolution = resolution.name(), "update resolved");
    }

    /// Tells monitoring and operators what has changed.
    pub(super) fn observe(&mut self) {
        self.log_ownership();
        for (reason, updates) in self.context.dead_letter_log.take_due(self.now()) {
            warn!(reason, updates, "further updates dead-lettered since the last line about this reason");
        }
        self.observe_view();
        self.report_status();
    }

    pub(super) fn observe_view(&mut self) {
        let view = self.core.view();
        // A marker that is held does not count as waiting.
        let session = self.phase.session().filter(|_| view.held > 0);
        let oldest = session.and_then(|session| session.deliveries.oldest_received_at());
        let age = oldest.map_or(Duration::ZERO, |came| came.elapsed());
        self.context.metrics.view(&view, age);
    }
}
