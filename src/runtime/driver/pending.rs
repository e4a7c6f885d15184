//! What runs at the same time and answers later: attempts, writes and reads of the ledger, dead letters.
//!
//! All of it is bounded by the core: attempts by `in_flight_max`, the rest by the window.

use std::collections::BTreeSet;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Input;
use super::record::{Loaded, Written};
use crate::runtime::attempt::FinishedAttempt;
use crate::runtime::ledger_client::Fenced;
use lanekeeper_core::message::Event;
use lanekeeper_core::routes::TargetId;

pub(super) type Later<A> = Pin<Box<dyn Future<Output = A> + Send>>;

/// What answers later.
#[derive(Default)]
pub(super) struct Pending {
    /// An attempt outlives the session that began it.
    attempts: FuturesUnordered<Later<FinishedAttempt>>,
    /// Targets that one of the attempts is a probe of.
    probed: BTreeSet<TargetId>,
    /// A write outlives the session that began it.
    recordings: FuturesUnordered<Later<Written>>,
    /// The dead letters of malformed deliveries end with their session: the next one does not recognise such a delivery, and
    /// begins again.
    recordings_of_session: FuturesUnordered<Later<Written>>,
    /// Of this session. Only the newest counts.
    claims: FuturesUnordered<Later<(Event, Result<(), Fenced>)>>,
    /// Of this session.
    loadings: FuturesUnordered<Later<Loaded>>,
}

impl Pending {
    /// `probe`: of which target the attempt is a probe.
    pub(super) fn attempt(&mut self, attempt: Later<FinishedAttempt>, probe: Option<TargetId>) {
        self.probed.extend(probe);
        self.attempts.push(attempt);
    }

    pub(super) fn recording(&mut self, recording: Later<Written>) {
        self.recordings.push(recording);
    }

    pub(super) fn recording_of_session(&mut self, recording: Later<Written>) {
        self.recordings_of_session.push(recording);
    }

    pub(super) fn claim(&mut self, claim: Later<(Event, Result<(), Fenced>)>) {
        self.claims.push(claim);
    }

    /// A newer claim was made: these count no more.
    pub(super) fn forget_claims(&mut self) {
        self.claims.clear();
    }

    pub(super) fn loading(&mut self, loading: Later<Loaded>) {
        self.loadings.push(loading);
    }

    pub(super) fn is_loading(&self) -> bool {
        !self.loadings.is_empty()
    }

    /// Returns true if nothing is being written down or read from the ledger.
    pub(super) fn is_at_rest(&self) -> bool {
        self.loadings.is_empty() && self.recordings.is_empty() && self.recordings_of_session.is_empty()
    }

    /// Drops what ends with its session.
    pub(super) fn end_session(&mut self) {
        self.recordings_of_session.clear();
        self.claims.clear();
        self.loadings.clear();
    }

    /// Drops all attempts, which closes their connections. Returns the targets that one of them was a probe of.
    pub(super) fn drop_attempts(&mut self) -> BTreeSet<TargetId> {
        self.attempts.clear();
        std::mem::take(&mut self.probed)
    }

    /// The next answer. Nothing is lost when the future is dropped. It never ends if nothing is pending.
    pub(super) async fn next<D>(&mut self) -> Input<D> {
        tokio::select! {
            biased;
            Some(attempt) = self.attempts.next(), if !self.attempts.is_empty() => {
                if attempt.probe {
                    self.probed.remove(&attempt.update.target);
                }
                Input::AttemptEnded(attempt)
            }
            Some(written) = self.recordings.next(), if !self.recordings.is_empty() => Input::Written(written),
            Some(written) = self.recordings_of_session.next(), if !self.recordings_of_session.is_empty() => {
                Input::Written(written)
            }
            Some((event, result)) = self.claims.next(), if !self.claims.is_empty() => {
                Input::Claimed(event, result)
            }
            Some(loaded) = self.loadings.next(), if !self.loadings.is_empty() => Input::Loaded(loaded),
            else => std::future::pending().await,
        }
    }
}
