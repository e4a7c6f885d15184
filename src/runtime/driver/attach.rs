//! How a session begins, and how it ends: by its channel, by handing the partition back, or by a time-out.

use tracing::{info, warn};

use super::phase::{Phase, Session, Then};
use super::{Driver, Loss};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Lost, Source};
use lanekeeper_core::message::{Event, Tenure};
use lanekeeper_core::partition::View;
use lanekeeper_core::tick::Tick;
use lanekeeper_ledger::Ledger;

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// A channel is open: the session begins.
    pub(super) fn attached(&mut self, deliveries: S::Deliveries) {
        self.sessions += 1;
        let tenure = Tenure(self.sessions);
        self.notify(Event::TenureBegan(tenure));
        self.set_attached(true);
        self.phase = Phase::Attached(Session::new(tenure, deliveries));
    }

    /// Sends the acks that are due.
    pub(super) async fn send_acks(&mut self) {
        if self.loss.is_none()
            && let Some(session) = self.phase.session()
            && let Err(Lost(why)) = session.deliveries.send_acks().await
        {
            self.loss = Some(Loss { why, unwritten: None });
        }
    }

    /// Takes nothing more. What is in flight has `drain_timeout` to end.
    pub(super) fn leave(&mut self, then: Then) {
        self.phase.leave(self.now().after(self.context.drain_timeout), then);
    }

    /// Ends the session, whose channel is lost: attempts in flight run on, and what was not settled comes back.
    pub(super) async fn lose_session(&mut self, Loss { why, unwritten }: Loss) {
        self.pending.end_session();
        if let Some(session) = self.phase.lose() {
            warn!(partition = %self.context.partition, tenure = session.tenure.0, why, "partition lost: the broker delivers its unsettled updates again");
            self.ends.lost();
            self.session_ended(session.tenure);
            session.deliveries.close().await;
        }
        if let Some(written) = unwritten {
            self.notify(written.into_event());
        }
        if let Phase::Detached = self.phase {
            self.phase = Phase::attaching(&self.context.source);
        }
    }

    /// Hands the partition back: sends all acks, then closes the channel. What was not started goes back to the queue, in
    /// order. If the driver ends, attempts that are out are dropped before another process can own the partition.
    pub(super) async fn leave_session(&mut self) -> Then {
        let (session, then) = self.phase.end();
        let rest = self.rest();
        if let Then::Exit(_) = then {
            let probed = self.pending.drop_attempts();
            self.pacers.give_up_all(self.now());
            for target in probed {
                self.breakers.return_probe(self.now(), target);
            }
        }
        self.pending.end_session();
        if let Some(session) = session {
            self.ends.said();
            session.deliveries.leave(rest).await;
            self.session_ended(session.tenure);
            info!(partition = %self.context.partition, tenure = session.tenure.0, "partition given back: its unsettled updates wait in the queue");
        }
        match then {
            Then::Attach => self.phase = Phase::attaching(&self.context.source),
            Then::Exit(_) => self.observe_view(), // its gauges go on being served, at zero
        }
        then
    }

    /// Tells everybody that the session has ended.
    fn session_ended(&mut self, tenure: Tenure) {
        self.notify(Event::TenureEnded(tenure));
        self.held_spans.session_ended(&self.context.target_metrics);
        self.drain.tenure_ended();
        self.unexpected_markers.tenure_ended();
        self.context.metrics.active(false);
        self.set_attached(false);
    }

    fn set_attached(&self, attached: bool) {
        let (layout, partition) = (self.context.layout.number, self.context.partition);
        self.context.health.set_attached(layout, partition, attached);
    }

    /// RabbitMQ closes a channel that holds a delivery for too long (`consumer_timeout`): the partition is handed back in
    /// order before that.
    pub(super) fn check_oldest(&mut self, now: Tick) {
        let Some(session) = self.phase.session() else { return };
        let oldest = session.deliveries.oldest_received_at();
        let held_too_long = oldest.is_some_and(|came| came.elapsed() >= self.context.held_max);
        if held_too_long && !std::mem::replace(&mut session.held_too_long, true) {
            let tenure = session.tenure;
            self.core.handle(now, Event::HeldTooLong(tenure));
        }
    }

    /// Ends what takes longer than `drain_timeout`.
    pub(super) fn check_drain_timeout(&mut self, now: Tick) {
        let Phase::Leaving { session, until, then } = &mut self.phase else { return };
        if *until > now {
            return;
        }
        let View { in_flight, recording, .. } = self.core.view();
        warn!(partition = %self.context.partition, in_flight, recording, "drain_timeout is over: attempts in flight are aborted, and updates without a recorded outcome go back to the queue");
        match *then {
            Then::Exit(exit) => self.phase = Phase::Aborting { session: session.take(), exit },
            Then::Attach => {
                *until = now.after(self.context.drain_timeout);
                self.ends.attempts_aborted(now);
                // They end as failed attempts, and are counted when their updates come back.
                std::mem::take(&mut self.abort).cancel();
                if in_flight == 0 {
                    self.loss = Some(Loss::of("what is resolved could not be written down in drain_timeout"));
                }
            }
        }
    }
}
