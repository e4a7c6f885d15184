//! How requests are made to fail: by an outage, by the rate limit, or by themselves.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::timeout;

use super::answer::{abort_connection, gateway, page, problem, retry_after, status_of};
use super::faults::{Fault, FaultAnswer, FaultRng};
use super::limit::{RateLimit, RefusalBody};
use super::outage::Outage;
use super::state::ReceiverState;
use super::write::purpose;

/// What kept a request from the receiver's records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Barrier {
    /// An outage.
    Outage(InjectedFault),
    /// The rate limit.
    Limit(RateLimit),
}

/// A fault as a request meets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InjectedFault {
    pub(super) fault: Fault,
    /// Sent with 429 and 503.
    retry_after: Option<Duration>,
}

impl ReceiverState {
    /// The outage that the requests of this record meet, if there is one.
    pub(super) fn outage_of(&self, record_key: &str, now: Duration) -> Option<InjectedFault> {
        let outage: Outage = self.outage()?.at(now)?;
        let settings = &self.settings;
        let injected =
            InjectedFault { fault: outage.fault, retry_after: outage.retry_after.or(settings.retry_after) };
        outage.is_of(record_key, settings.seed).then_some(injected)
    }

    /// The fault that this attempt gets, if any. `age` is the time since its record's first request.
    pub(super) fn fault_of(
        &self,
        record_key: &str,
        age: Duration,
        attempt: Option<u64>,
        chance: FaultRng,
    ) -> Option<InjectedFault> {
        let settings = &self.settings;
        let failing = settings.fail_records.iter().find(|failing| {
            failing.record_key == record_key && failing.lasts.is_none_or(|lasts| age < lasts)
        });
        if let Some(failing) = failing {
            let retry_after = failing.retry_after.or(settings.retry_after);
            return Some(InjectedFault { fault: failing.fault, retry_after });
        }
        let spared = settings.first_attempts_only && attempt.unwrap_or(1) != 1;
        if spared || chance.unit(purpose::FAILS) >= settings.fail_share {
            return None;
        }
        let usual = Fault { applied: false, answer: FaultAnswer::Status(500) };
        let fault = chance.pick(purpose::FAULT, &settings.fail_with).unwrap_or(usual);
        Some(InjectedFault { fault, retry_after: settings.retry_after })
    }

    /// The answer of a fault.
    pub(super) async fn fail(&self, injected: InjectedFault) -> Response {
        let on_purpose = |status| problem(status, "the receiver fails this request on purpose");
        let response = match injected.fault.answer {
            FaultAnswer::Status(status) => on_purpose(status_of(status)),
            FaultAnswer::Gateway(status) => gateway(status_of(status), "no backend answers\n"),
            FaultAnswer::Page(status) => page(status_of(status)),
            FaultAnswer::Aborted => return abort_connection(),
            FaultAnswer::Hang => {
                self.hang().await;
                on_purpose(StatusCode::SERVICE_UNAVAILABLE)
            }
        };
        let may_wait =
            matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        match injected.retry_after.filter(|_| may_wait) {
            Some(wait) => retry_after(response, wait),
            None => response,
        }
    }

    /// The answer of what kept a request out; for the rate limit without its header fields.
    pub(super) async fn barred(&self, barrier: Barrier) -> Response {
        match barrier {
            Barrier::Outage(injected) => self.fail(injected).await,
            Barrier::Limit(limit) => match limit.refusal {
                RefusalBody::Problem => problem(StatusCode::TOO_MANY_REQUESTS, "the rate limit is reached"),
                RefusalBody::Plain => gateway(StatusCode::TOO_MANY_REQUESTS, "too many requests\n"),
            },
        }
    }

    /// Waits for `hang_for`, or until the receiver stops.
    async fn hang(&self) {
        let mut stopping = self.stopping.subscribe();
        // Both results mean that the wait is over.
        let _ = timeout(self.settings.hang_for, stopping.wait_for(|stopping| *stopping)).await;
    }
}
