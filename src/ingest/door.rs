//! Joins requests, the intake and the publisher.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::digest::{Context, SHA256, digest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::metrics::IngestMetrics;
use super::senders::{SenderName, SenderNumbers, Senders};
use crate::config::IngestConfig;
use lanekeeper_broker::publisher::{
    NotConfirmedReason, Order, Outgoing, PublishReceipt, PublishResult, Submission, SubmissionId,
};
use lanekeeper_core::publish::intake::{
    BodyHash, Intake, IntakeLimits, LineAnswer, NotAdmitted, Offer, RequestId, UpdateName, Withdrawn,
};
use lanekeeper_core::tick::Tick;

/// After so long without updates, nothing is said of confirms that did not come.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Confirmed updates that are known, as a multiple of those that wait.
const REMEMBERED: usize = 10;

/// What requests and the publisher share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Door(Arc<DoorState>);

#[derive(Debug)]
struct DoorState {
    started: Instant,
    inner: Mutex<Inner>,
    metrics: IngestMetrics,
}

#[derive(Debug)]
struct Inner {
    intake: Intake,
    senders: Senders,
    /// When the broker has confirmed something last, or when updates began to wait; `None`: none waits.
    no_confirm_since: Option<Tick>,
    /// Nothing waits since then; `None`: something does.
    idle_since: Option<Tick>,
    waiters: HashMap<RequestId, oneshot::Sender<Vec<LineAnswer>>>,
    /// `None`: nothing is published any more.
    orders: Option<mpsc::Sender<Order>>,
    is_stopping: bool,
}

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DoorLoad {
    /// Updates.
    pub(super) pending: usize,
    pub(super) pending_bytes: usize,
    /// Updates of each client and hook.
    pub(super) by_sender: HashMap<SenderName, usize>,
    /// For how long the broker has confirmed none of them; `None`: none waits.
    pub(super) no_confirm_for: Option<Duration>,
}

/// When an update is the one that was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sameness {
    /// It has the same id and body: who uses an id for another body makes a mistake, and would lose an update.
    IdAndBody,
    /// It has the same id: senders of webhooks choose it for an event, and may write the event differently in each repeat, as
    /// Stripe does with `pending_webhooks`.
    Id,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    NotAdmitted(NotAdmitted),
    /// The process was asked to stop.
    Stopping,
}

/// A request that was taken. Dropped before it has its answer, it withdraws what nobody else waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    door: Door,
    request_id: RequestId,
    deadline: Instant,
    answer: oneshot::Receiver<Vec<LineAnswer>>,
    lines: usize,
    is_answered: bool,
}

impl Door {
    /// The door, and what is to be published.
    pub(super) fn new(config: &IngestConfig, metrics: IngestMetrics) -> (Self, mpsc::Receiver<Order>) {
        let pending_max = config.pending_max.get();
        let limits = IntakeLimits {
            pending_max,
            pending_bytes_max: config.pending_bytes_max,
            pending_per_record_max: config.pending_per_record_max.get(),
            remember: config.remember,
            remembered_max: pending_max.saturating_mul(REMEMBERED),
            clients: Vec::new(),
        };
        // Each pending update is submitted once, and withdrawn once at most.
        let (sender, receiver) = mpsc::channel(2 * pending_max);
        let inner = Inner {
            intake: Intake::new(limits),
            senders: Senders::default(),
            no_confirm_since: None,
            idle_since: Some(Tick::ZERO),
            waiters: HashMap::new(),
            orders: Some(sender),
            is_stopping: false,
        };
        let state = DoorState { started: Instant::now(), inner: Mutex::new(inner), metrics };
        (Self(Arc::new(state)), receiver)
    }

    /// The clients and hooks of a config have these bounds from now on. What those of before have sent ends as it would have.
    pub(super) fn change_senders(&self, config: &IngestConfig) -> SenderNumbers {
        let inner = &mut *self.inner();
        inner.senders.change(config, &mut inner.intake)
    }

    /// Takes all updates of a request, or none, in the order of these calls. The answer comes within `confirm_timeout`.
    pub(super) fn take(
        &self,
        client: usize,
        updates: Vec<Outgoing>,
        confirm_timeout: Duration,
        sameness: Sameness,
    ) -> Result<Waiting, NotTaken> {
        let lines: Vec<Offer> = updates.iter().map(|outgoing| line(outgoing, sameness)).collect();
        let (now, deadline) = (self.now(), Instant::now() + confirm_timeout);
        let mut inner = self.inner();
        if inner.is_stopping {
            return Err(NotTaken::Stopping);
        }
        let admitted = inner
            .intake
            .admit(client, &lines, now, now.after(confirm_timeout))
            .map_err(NotTaken::NotAdmitted)?;
        let (sender, answer) = oneshot::channel();
        inner.waiters.insert(admitted.request_id, sender);
        let mut updates: Vec<Option<Outgoing>> = updates.into_iter().map(Some).collect();
        for (index, submission_id) in admitted.submit {
            let outgoing = updates[index].take().expect("each line is submitted once");
            inner.order(Submission { submission_id, outgoing }.into(), now);
        }
        self.finish(inner);
        let lines = lines.len();
        Ok(Waiting {
            door: self.clone(),
            request_id: admitted.request_id,
            deadline,
            answer,
            lines,
            is_answered: false,
        })
    }

    /// What became of an update.
    pub(super) fn receipt(&self, receipt: PublishReceipt) {
        let mut inner = self.inner();
        if receipt.result == PublishResult::Confirmed {
            inner.no_confirm_since = None;
        }
        inner.intake.receipt(receipt, self.now());
        self.finish(inner);
    }

    /// An update that was withdrawn is in flight.
    pub(super) fn in_flight(&self, submission_id: SubmissionId) {
        let mut inner = self.inner();
        inner.intake.in_flight(submission_id);
        self.finish(inner);
    }

    /// What waits now.
    pub(super) fn load(&self) -> DoorLoad {
        let inner = self.inner();
        let (pending, pending_bytes) = inner.intake.load();
        DoorLoad {
            pending,
            pending_bytes,
            by_sender: inner.senders.loads(&inner.intake),
            no_confirm_for: inner
                .no_confirm_since
                .filter(|_| inner.idle_since.is_none_or(|since| self.now().since(since) <= IDLE_MAX))
                .map(|since| self.now().since(since)),
        }
    }

    /// Takes nothing more.
    pub(super) fn stop(&self) {
        self.inner().is_stopping = true;
    }

    /// Everything that waits is withdrawn. Returns how much that was.
    pub(super) fn withdraw_all(&self) -> usize {
        self.wake(Tick::from_micros(u64::MAX))
    }

    /// Nothing more is published; what is in flight may still be confirmed.
    pub(super) fn close(&self) {
        self.inner().orders = None;
    }

    fn wake(&self, now: Tick) -> usize {
        let mut inner = self.inner();
        let withdrawn = inner.intake.wake(now);
        let count = withdrawn.len();
        inner.withdraw(withdrawn, self.now());
        self.finish(inner);
        count
    }

    fn hung_up(&self, request_id: RequestId) {
        let mut inner = self.inner();
        inner.waiters.remove(&request_id);
        let withdrawn = inner.intake.hung_up(request_id);
        inner.withdraw(withdrawn, self.now());
        self.finish(inner);
    }

    fn finish(&self, mut inner: MutexGuard<'_, Inner>) {
        while let Some((request_id, answers)) = inner.intake.next_answer() {
            if let Some(waiter) = inner.waiters.remove(&request_id) {
                // Whoever waited may be gone.
                let _ = waiter.send(answers);
            }
        }
        let (updates, bytes) = inner.intake.load();
        let now = self.now();
        if updates == 0 {
            inner.idle_since.get_or_insert(now);
        } else {
            // What was withdrawn unconfirmed a moment ago counts on; what is long past does not.
            if inner.idle_since.take().is_some_and(|since| now.since(since) > IDLE_MAX) {
                inner.no_confirm_since = None;
            }
            inner.no_confirm_since.get_or_insert(now);
        }
        self.0.metrics.pending(updates, bytes);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Tick {
        Tick::ZERO.after(self.0.started.elapsed())
    }
}

impl Inner {
    fn withdraw(&mut self, withdrawn: Withdrawn, now: Tick) {
        if !withdrawn.is_empty() {
            self.order(Order::Withdraw(withdrawn), now);
        }
    }

    fn order(&mut self, order: Order, now: Tick) {
        let refused = match &self.orders {
            None => Some(order),
            Some(orders) => match orders.try_send(order) {
                Ok(()) => None,
                Err(mpsc::error::TrySendError::Closed(order)) => Some(order),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    unreachable!("what is pending bounds the orders that are on their way")
                }
            },
        };
        // Publishing has ended: what was submitted before has its receipt.
        if let Some(Order::Submit(Submission { submission_id, .. })) = refused {
            let result = PublishResult::NotConfirmed(NotConfirmedReason::NotPublished);
            self.intake.receipt(PublishReceipt { submission_id, result }, now);
        }
    }
}

impl Waiting {
    /// An answer for each line.
    pub(super) async fn answer(mut self) -> Vec<LineAnswer> {
        let in_time = tokio::time::timeout_at(self.deadline, &mut self.answer).await;
        let answer = if let Ok(answer) = in_time {
            answer
        } else {
            self.door.wake(self.door.now());
            (&mut self.answer).await
        };
        self.is_answered = true;
        answer.unwrap_or_else(|_| vec![LineAnswer::Unknown; self.lines])
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_answered {
            self.door.hung_up(self.request_id);
        }
    }
}

fn line(outgoing: &Outgoing, sameness: Sameness) -> Offer {
    let body = match sameness {
        Sameness::IdAndBody => &outgoing.body[..],
        Sameness::Id => b"",
    };
    let record_key = outgoing.record_key.as_str();
    let mut name = Context::new(&SHA256);
    name.update(&(record_key.len() as u64).to_be_bytes());
    name.update(record_key.as_bytes());
    name.update(outgoing.id.as_str().as_bytes());
    Offer {
        name: UpdateName(first_half(name.finish().as_ref())),
        body_hash: BodyHash(first_half(digest(&SHA256, body).as_ref())),
        record_key: outgoing.record_key.clone(),
        bytes: outgoing.bytes(),
    }
}

fn first_half(hash: &[u8]) -> [u8; 16] {
    *hash.first_chunk().expect("SHA-256 has 32 bytes")
}
