//! The deliveries of one tenure: does what [`MessageGroups`] says, each call in a task of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::client::{CallFault, SqsClient};
use super::dead_letter::{self, DeadLetter};
use super::decode::{Original, SqsDecoder};
use super::settings::SqsSettings;
use lanekeeper_broker::{Clock, Deliveries, LogOnChange, Lost, Received, SourceEvent};
use lanekeeper_core::message::{DeliveryTag, Holder, TenureNumber};
use lanekeeper_core::message_groups::{
    BATCH_MAX, Entry, EntryAnswer, GroupLimits, MessageGroups, ReceiveId, VisibilityLost,
};
use lanekeeper_core::policy::DeadLetterReason;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

/// After a receive that has failed, the next one waits: the first time so long, then twice as long, up to the maximum.
const RECEIVE_AGAIN_MIN: Duration = Duration::from_millis(200);
const RECEIVE_AGAIN_MAX: Duration = Duration::from_secs(10);
/// The end of the lease is told again when it has moved by this part of the visibility timeout.
const LEASE_STEPS: u32 = 20;
/// How long the end of a tenure waits for calls that are on their way, beside the time that a receive waits for messages.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A receive without an answer is sent again, with the same id, for this part of the visibility timeout, and not longer than
/// this.
const SAME_ATTEMPT_PARTS: u32 = 3;
const SAME_ATTEMPT_MAX: Duration = Duration::from_secs(30);

/// A call that has ended.
enum CallEnded {
    Received(ReceiveId, Result<Vec<aws_sdk_sqs::types::Message>, CallFault>),
    Deleted(Vec<Entry>, Vec<EntryAnswer>, Option<CallFault>),
    Renewed(Vec<Entry>, Vec<EntryAnswer>, Option<CallFault>),
}

/// What the partition has under a delivery tag.
#[derive(Debug)]
enum Delivered {
    /// A message, which the groups know by this tag.
    Message(DeliveryTag, Arc<Original>),
    /// Nothing: the owner wanted a delivery.
    Witness,
}

/// See the module.
#[derive(Debug)]
pub struct SqsDeliveries {
    client: SqsClient,
    decoder: Arc<SqsDecoder>,
    clock: Clock,
    tenure: TenureNumber,
    wanted: Arc<Notify>,
    wait_time: Duration,
    visibility_timeout: Duration,
    receivers: usize,
    groups: MessageGroups<Original>,
    delivered: HashMap<DeliveryTag, Delivered>,
    deliveries_used: u64,
    events: VecDeque<SourceEvent>,
    /// The end of the lease that was told last.
    lease_until: Tick,
    calls: JoinSet<CallEnded>,
    receiving: usize,
    receive_from: Instant,
    receive_again: Duration,
    lost: Option<Lost>,
    logs: [LogOnChange; 3],
}

/// Which call, for the log.
#[derive(Clone, Copy, Debug)]
enum Call {
    Receive,
    Delete,
    Renew,
}

impl Call {
    /// As SQS names it.
    fn name(self) -> &'static str {
        match self {
            Self::Receive => "ReceiveMessage",
            Self::Delete => "DeleteMessageBatch",
            Self::Renew => "ChangeMessageVisibilityBatch",
        }
    }
}

impl SqsDeliveries {
    pub(super) fn new(
        settings: &SqsSettings,
        (client, decoder, clock): (SqsClient, Arc<SqsDecoder>, Clock),
        tenure: TenureNumber,
        wanted: Arc<Notify>,
    ) -> Self {
        let limits = GroupLimits {
            visibility_timeout: settings.visibility_timeout,
            at_work_max: settings.at_work_max,
            window: settings.window,
        };
        Self {
            client,
            decoder,
            clock,
            tenure,
            wanted,
            wait_time: settings.wait_time,
            visibility_timeout: settings.visibility_timeout,
            receivers: settings.receivers,
            groups: MessageGroups::new(limits),
            delivered: HashMap::new(),
            deliveries_used: 0,
            events: VecDeque::new(),
            lease_until: Tick::ZERO,
            calls: JoinSet::new(),
            receiving: 0,
            receive_from: Instant::now(),
            receive_again: Duration::ZERO,
            lost: None,
            logs: Default::default(),
        }
    }

    fn next_tag(&mut self, delivered: Delivered) -> DeliveryTag {
        self.deliveries_used += 1;
        let tag = DeliveryTag(self.deliveries_used);
        self.delivered.insert(tag, delivered);
        tag
    }

    fn begin_receives(&mut self) {
        while self.receiving < self.receivers && self.receive_from <= Instant::now() {
            let Some(receive) = self.groups.begin_receive(self.clock.now()) else { return };
            self.receiving += 1;
            let client = self.client.clone();
            let again_for = (self.visibility_timeout / SAME_ATTEMPT_PARTS).min(SAME_ATTEMPT_MAX);
            let again_until = Instant::now() + again_for;
            self.calls.spawn(async move {
                let attempt_id = Uuid::new_v4().to_string();
                loop {
                    let received = client.receive(&attempt_id, receive.messages_max).await;
                    match received {
                        // If there was no answer, messages may be in flight to nobody: the same id hands them over again.
                        Err(CallFault { code: None, .. }) if Instant::now() < again_until => {
                            tokio::time::sleep(RECEIVE_AGAIN_MIN).await;
                        }
                        received => return CallEnded::Received(receive.id, received),
                    }
                }
            });
        }
    }

    fn begin_deletions(&mut self) {
        loop {
            let entries = self.groups.next_deletions(self.clock.now());
            if entries.is_empty() {
                return;
            }
            let client = self.client.clone();
            self.calls.spawn(async move {
                let (answers, fault) = client.delete(&entries).await;
                CallEnded::Deleted(entries, answers, fault)
            });
        }
    }

    fn begin_renewals(&mut self) {
        loop {
            let entries = self.groups.next_renewals(self.clock.now());
            if entries.is_empty() {
                return;
            }
            let client = self.client.clone();
            self.calls.spawn(async move {
                let (answers, fault) = client.change_visibility(&entries, None).await;
                CallEnded::Renewed(entries, answers, fault)
            });
        }
    }

    fn ended(&mut self, ended: CallEnded) -> Result<(), VisibilityLost> {
        let now = self.clock.now();
        match ended {
            CallEnded::Received(id, received) => {
                self.receiving -= 1;
                let messages = match received {
                    Ok(messages) => {
                        self.receive_again = Duration::ZERO;
                        self.note(Call::Receive, None);
                        messages
                    }
                    Err(fault) => {
                        self.receive_again =
                            (self.receive_again * 2).clamp(RECEIVE_AGAIN_MIN, RECEIVE_AGAIN_MAX);
                        self.receive_from = Instant::now() + self.receive_again;
                        self.note(Call::Receive, Some(&fault));
                        Vec::new()
                    }
                };
                let decoder = Arc::clone(&self.decoder);
                let messages = messages.into_iter().filter_map(|message| decoder.message(message));
                self.groups.receive_ended(now, id, messages)
            }
            CallEnded::Deleted(entries, answers, fault) => {
                self.note(Call::Delete, fault.as_ref());
                let mut ended = entries.iter().zip(answers);
                ended.try_for_each(|(entry, answer)| self.groups.deletion_ended(now, entry, answer))
            }
            CallEnded::Renewed(entries, answers, fault) => {
                self.note(Call::Renew, fault.as_ref());
                let mut ended = entries.iter().zip(answers);
                ended.try_for_each(|(entry, answer)| self.groups.renewal_ended(now, entry, answer))
            }
        }
    }

    /// One line when calls of a kind begin to fail, or fail for another reason, and one when they work again.
    fn note(&mut self, call: Call, fault: Option<&CallFault>) {
        let log = &mut self.logs[call as usize];
        match fault {
            None => {
                if log.cleared() {
                    info!(call = call.name(), "SQS answers as it should again");
                }
            }
            Some(fault) => {
                let cause = fault.code.clone().unwrap_or_else(|| "no answer".to_owned());
                if log.is_new(cause) {
                    warn!(
                        call = call.name(),
                        error = fault.text,
                        "a call of SQS has failed, and is made again"
                    );
                }
            }
        }
    }

    fn lose(&mut self, lost: VisibilityLost) -> Lost {
        let lost = Lost(lost.to_string());
        self.lost = Some(lost.clone());
        lost
    }

    fn witness_wanted(&mut self) -> SourceEvent {
        SourceEvent::Witness(self.next_tag(Delivered::Witness))
    }
}

impl Deliveries for SqsDeliveries {
    const NUMBERS_TENURES: bool = false;

    async fn next(&mut self) -> Result<SourceEvent, Lost> {
        loop {
            if let Some(lost) = &self.lost {
                return Err(lost.clone());
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.begin_receives();
            self.begin_deletions();
            self.begin_renewals();
            let now = self.clock.now();
            let until = self.groups.may_send_until(now);
            let told_again = self.lease_until.after(self.visibility_timeout / LEASE_STEPS);
            if until >= told_again || (self.lease_until <= now && until > now) {
                self.lease_until = until;
                return Ok(SourceEvent::LeaseRenewed(until));
            }
            if let Some(handed) = self.groups.next_handed() {
                let original = Arc::new(handed.content);
                let (update, redelivered) = (original.update.clone(), original.redelivered);
                let delivery = self.next_tag(Delivered::Message(handed.delivery, original));
                return Ok(SourceEvent::Received(Received { delivery, redelivered, update }));
            }
            let deadline = self.groups.next_deadline().map(|tick| self.clock.instant(tick));
            let receive_from = (self.receiving < self.receivers)
                .then_some(self.receive_from)
                .filter(|at| *at > Instant::now());
            let wake = deadline.into_iter().chain(receive_from).min();
            // A lease that stands still is looked at now and then: with nothing held, it ends only with the receive under way.
            let wake = wake.unwrap_or_else(|| Instant::now() + self.visibility_timeout / LEASE_STEPS);
            tokio::select! {
                biased;
                Some(ended) = self.calls.join_next() => {
                    let ended = ended.expect("a call does not panic, and is not aborted before the end");
                    if let Err(lost) = self.ended(ended) {
                        return Err(self.lose(lost));
                    }
                }
                () = self.wanted.notified() => return Ok(self.witness_wanted()),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// The lease is what is claimed by, and nobody gives numbers: the claim is read back at once. The number of the tenure in
    /// this process stands for the claim of others that may have been in between.
    fn claim(&mut self) {
        self.events.retain(|event| !matches!(event, SourceEvent::Claimed { .. }));
        self.events.push_back(SourceEvent::Claimed {
            number: None,
            rival_claim: Some(self.tenure),
            wait_until: None,
        });
    }

    fn end_claim(&mut self, _: Duration) {}

    fn settle(&mut self, delivery: DeliveryTag) {
        let delivered = self.delivered.remove(&delivery).expect("it is one of these, and not settled");
        if let Delivered::Message(of_groups, _) = delivered {
            self.groups.settle(self.clock.now(), of_groups);
        }
    }

    async fn send_acks(&mut self) -> Result<(), Lost> {
        self.begin_deletions();
        Ok(())
    }

    /// [`Self::next`] waits for them.
    fn next_ack_at(&mut self) -> Option<Instant> {
        None
    }

    fn oldest_received_at(&self) -> Option<Instant> {
        self.groups.oldest_received_at().map(|tick| self.clock.instant(tick))
    }

    fn received_at(&self, delivery: DeliveryTag) -> Option<Instant> {
        let Some(Delivered::Message(of_groups, _)) = self.delivered.get(&delivery) else { return None };
        self.groups.received_at(*of_groups).map(|tick| self.clock.instant(tick))
    }

    fn has_begun(&self) -> bool {
        self.deliveries_used > 0
    }

    fn dead_letter(
        &self,
        holder: Holder,
        update: Option<&Update>,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static {
        let original = match holder {
            Holder::Broker(delivery) => match self.delivered.get(&delivery) {
                Some(Delivered::Message(_, original)) => Some(Arc::clone(original)),
                _ => None,
            },
            Holder::Ledger(_) => None,
        };
        let dead_letter = match (original, update) {
            (Some(original), _) => Some(DeadLetter::of_message(&original, &reason)),
            (None, Some(update)) => Some(DeadLetter::of_update(update, &reason)),
            (None, None) => None,
        };
        let client = self.client.clone();
        async move {
            match dead_letter {
                Some(dead_letter) => dead_letter::send(&client, dead_letter, &reason).await,
                None => std::future::pending().await, // its delivery is gone
            }
        }
    }

    async fn leave(mut self, rest: Duration) {
        let within = self.wait_time + LEAVE_TIMEOUT;
        let ends = async {
            // Receives under way may bring messages, which nobody would have until their visibility timeout ends.
            loop {
                self.begin_deletions();
                let deletion_at = self.groups.next_deletion_at().map(|at| self.clock.instant(at));
                if self.calls.is_empty() && deletion_at.is_none() {
                    return true;
                }
                let due = async {
                    match deletion_at {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Some(ended) = self.calls.join_next() => {
                        if ended.is_ok_and(|ended| self.ended(ended).is_err()) {
                            return false;
                        }
                    }
                    () = due => {}
                }
            }
        };
        // After a loss nothing is given back: handles may be those of others' deliveries.
        if timeout(within, ends).await != Ok(true) {
            return;
        }
        let entries = self.groups.hand_back(!rest.is_zero());
        let client = &self.client;
        let handing_back = async {
            for batch in entries.chunks(BATCH_MAX) {
                let _ = client.change_visibility(batch, Some(0)).await;
            }
        };
        let _ = timeout(LEAVE_TIMEOUT, handing_back).await;
    }

    async fn close(mut self) {
        self.calls.abort_all();
    }
}
