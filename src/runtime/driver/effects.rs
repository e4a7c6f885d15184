//! Does what the core asks for.

use std::sync::Arc;

use tracing::info;

use super::phase::Then;
use super::record::Resolved;
use super::{Driver, Loss};
use crate::http::Target;
use crate::runtime::attempt::{Fence, PendingAttempt};
use lanekeeper_broker::{Deliveries, Source};
use lanekeeper_core::message::{Effect, Event, Holder};
use lanekeeper_ledger::Ledger;

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// Does one effect after another until the core asks for nothing more.
    pub(super) fn do_effects(&mut self) {
        self.set_fence();
        while let Some(effect) = self.core.poll_effect() {
            self.do_effect(effect);
        }
        self.last_answer = None;
    }

    fn do_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Attempt { attempt, number, tenure, holder, update, probe, permit } => {
                if tenure.is_none() && S::Deliveries::NUMBERS_TENURES {
                    self.context.metrics.attempt_without_tenure();
                }
                let probe_of = probe.then_some(update.target);
                let attempt = PendingAttempt {
                    target: Arc::clone(&self.context.target),
                    ledger_client: self.context.ledger_client.clone(),
                    clock: self.context.clock,
                    fence: self.fence.subscribe(),
                    session: self.sessions,
                    attempt,
                    number,
                    tenure,
                    holder,
                    trace: self.held_spans.begin_attempt(holder, &update),
                    update,
                    probe,
                    permit,
                };
                self.pending.attempt(Box::pin(attempt.run(self.abort.clone())), probe_of);
            }
            Effect::AskProbe(target) => {
                if self.breakers.grant_probe(self.now(), target) {
                    self.notify(Event::ProbeGranted(target));
                }
            }
            Effect::ReturnProbe(target) => self.breakers.return_probe(self.now(), target),
            Effect::AskPermits { target, permits } => {
                self.pacers.ask(self.now(), target, permits);
                self.on_pacer_change();
            }
            Effect::WithdrawPermits(target) => self.pacers.withdraw(self.now(), target),
            Effect::ReturnPermits { target, permits } => self.pacers.give_up(self.now(), target, permits),
            Effect::Claim { tenure } => {
                if let Some(session) = self.phase.session_of(tenure) {
                    session.deliveries.claim();
                    self.pending.forget_claims();
                }
            }
            Effect::ClaimEnded { tenure } => {
                let rest = self.rest();
                if let Some(session) = self.phase.session_of(tenure) {
                    session.deliveries.end_claim(rest);
                    self.ends.said();
                }
            }
            Effect::Yield { tenure, reason } => {
                let partition = self.context.partition;
                info!(%partition, tenure = tenure.0, reason = reason.name(), "yielding the partition: attempts in flight are finished, the rest goes back to the queue in order");
                self.context.metrics.yielded(reason.name());
                if !self.phase.is_leaving() {
                    self.leave(Then::Attach);
                }
            }
            Effect::Abandon { .. } => {
                self.loss = Some(Loss::of(
                    "another process has claimed the partition, or the broker has taken its deliveries back",
                ));
            }
            Effect::Record { tenure, holder, update, resolution } => {
                let trace_id = self.held_spans.resolved(holder, update.as_ref(), &resolution);
                self.log_resolution(update.as_deref(), &resolution, trace_id);
                self.record(Resolved { tenure, holder, update, resolution });
            }
            Effect::Settle { tenure, delivery } => {
                if let Some(session) = self.phase.session_of(tenure) {
                    session.deliveries.settle(delivery);
                    self.held_spans.settled(Holder::Broker(delivery), &self.context.target_metrics);
                }
            }
        }
    }

    /// Attempts look at the fence when they are about to send, since they may have waited for the ledger.
    fn set_fence(&self) {
        let may = self.core.may_send_until();
        let now = Fence {
            session: self.sessions,
            tenure: may.and_then(|(tenure, _)| tenure),
            until: may.map(|(_, until)| until),
        };
        self.fence.send_if_modified(|fence| std::mem::replace(fence, now) != now);
    }
}
