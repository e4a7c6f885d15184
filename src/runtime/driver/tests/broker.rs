//! A broker in memory: one queue with one active consumer. What is not acked comes back at the front, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::facts::Facts;
use lanekeeper_broker::{Deliveries, Gone, Lost, PartitionStatus, Received, Source, SourceEvent};
use lanekeeper_core::message::{DeliveryTag, Holder, TenureNumber};
use lanekeeper_core::policy::{DeadLetterReason, Malformed};
use lanekeeper_core::update::Update;

/// Between settling and the ack.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// Between two answers to what asks if the broker is there.
const HEARD_EVERY: Duration = Duration::from_secs(2);

/// What lies in the queue.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Update(Arc<Update>),
    Malformed,
    Witness,
    Marker,
}

#[derive(Clone, Debug)]
struct Message {
    content: Content,
    redelivered: bool,
}

/// The broker, as a driver uses it and as a test sees it. Cheap to clone.
#[derive(Clone)]
pub(super) struct MemoryBroker {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    facts: Facts,
    prefetch: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    channel: Option<Channel>,
    channels: u64,
    /// The newest claim of all, and the newest one of another process.
    claims: u64,
    rival: Option<TenureNumber>,
    /// Updates that were acked.
    acked: usize,
    malformed_settled: usize,
    dead_letters: Vec<(Option<String>, &'static str)>,
    asked_for_delivery: usize,
    status: Option<PartitionStatus>,
    /// How this broker behaves now.
    unreachable: bool,
    silent: bool,
    gone: bool,
    drains: bool,
    dead_letter_delay: Duration,
}

/// One attachment.
#[derive(Default)]
struct Channel {
    number: u64,
    newest_tag: u64,
    held: BTreeMap<u64, Message>,
    settled: BTreeSet<u64>,
    event: VecDeque<SourceEvent>,
    lost: Option<String>,
}

impl MemoryBroker {
    pub(super) fn new(facts: Facts, prefetch: usize) -> Self {
        Self { state: Arc::default(), changed: Arc::default(), facts, prefetch }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<A>(&self, change: impl FnOnce(&mut State) -> A) -> A {
        let answer = change(&mut self.state());
        self.changed.notify_one();
        answer
    }

    pub(super) fn publish(&self, content: Content) {
        self.change(|state| state.queue.push_back(Message { content, redelivered: false }));
    }

    /// The consumer's channel breaks: what it holds goes back.
    pub(super) fn lose_channel(&self) {
        self.change(|state| {
            if let Some(channel) = &mut state.channel {
                channel.lost = Some("the test has broken it".to_owned());
            }
            state.return_held();
        });
    }

    /// Sends the consumer an event, if there is one.
    pub(super) fn send(&self, event: SourceEvent) {
        self.change(|state| {
            if let Some(channel) = &mut state.channel {
                channel.event.push_back(event);
            }
        });
    }

    /// Another process claims the partition, and no consumer learns of it. Returns the number of its claim.
    pub(super) fn rival_claims(&self) -> TenureNumber {
        self.facts.rival_claimed();
        self.change(|state| {
            state.claims += 1;
            *state.rival.insert(TenureNumber(state.claims))
        })
    }

    pub(super) fn set_unreachable(&self, unreachable: bool) {
        self.change(|state| state.unreachable = unreachable);
    }

    pub(super) fn set_silent(&self, silent: bool) {
        self.change(|state| state.silent = silent);
    }

    pub(super) fn set_gone(&self) {
        self.change(|state| state.gone = true);
    }

    pub(super) fn set_drains(&self) {
        self.change(|state| state.drains = true);
    }

    pub(super) fn set_dead_letter_delay(&self, delay: Duration) {
        self.change(|state| state.dead_letter_delay = delay);
    }

    pub(super) fn acked(&self) -> usize {
        self.state().acked
    }

    /// Returns true if nothing but markers is in the queue or held.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        let held = state.channel.iter().flat_map(|channel| channel.held.values());
        held.chain(&state.queue).all(|message| matches!(message.content, Content::Marker))
    }

    /// Ids of the updates that wait in the queue, not held by a consumer.
    pub(super) fn waiting(&self) -> Vec<String> {
        let state = self.state();
        let ids = state.queue.iter().filter_map(|message| match &message.content {
            Content::Update(update) => Some(update.id.as_str().to_owned()),
            Content::Malformed | Content::Witness | Content::Marker => None,
        });
        ids.collect()
    }

    pub(super) fn channels(&self) -> u64 {
        self.state().channels
    }

    pub(super) fn is_attached(&self) -> bool {
        self.state().channel.is_some()
    }

    /// Ids and reasons, in order.
    pub(super) fn dead_letters(&self) -> Vec<(Option<String>, &'static str)> {
        self.state().dead_letters.clone()
    }

    pub(super) fn asked_for_delivery(&self) -> usize {
        self.state().asked_for_delivery
    }

    /// What the driver said last of what it holds.
    pub(super) fn status(&self) -> Option<PartitionStatus> {
        self.state().status.clone()
    }
}

impl State {
    /// What the consumer holds goes back to the front of the queue.
    fn return_held(&mut self) {
        let held = self.channel.as_mut().map(|channel| std::mem::take(&mut channel.held));
        for (_, message) in held.into_iter().flatten().rev() {
            self.queue.push_front(Message { redelivered: true, ..message });
        }
    }

    fn channel(&mut self, number: u64) -> Option<&mut Channel> {
        self.channel.as_mut().filter(|channel| channel.number == number && channel.lost.is_none())
    }

    fn ack(&mut self, number: u64) -> Result<(), Lost> {
        let Some(channel) = self.channel(number) else { return Err(Lost("it was lost".to_owned())) };
        let mut acked = 0;
        for tag in std::mem::take(&mut channel.settled) {
            let message = channel.held.remove(&tag).expect("what is settled is held until it is acked");
            acked += usize::from(matches!(message.content, Content::Update(_)));
        }
        self.acked += acked;
        Ok(())
    }
}

impl Source for MemoryBroker {
    type Deliveries = MemoryDeliveries;

    async fn attach(&self) -> Result<MemoryDeliveries, Gone> {
        loop {
            sleep(Duration::from_millis(20)).await;
            let mut state = self.state();
            if state.gone {
                return Err(Gone);
            }
            if !state.unreachable {
                assert!(state.channel.is_none(), "a channel is closed before the next one is opened");
                state.channels += 1;
                let channel = Channel { number: state.channels, ..Channel::default() };
                let number = channel.number;
                state.channel = Some(channel);
                return Ok(MemoryDeliveries {
                    broker: self.clone(),
                    channel: number,
                    since: Instant::now(),
                    last_seen: Instant::now(),
                    came: BTreeMap::new(),
                    ack_at: None,
                });
            }
        }
    }

    fn drains(&self) -> bool {
        self.state().drains
    }

    fn publish_status(&self, status: PartitionStatus) {
        self.state().status = Some(status);
    }

    fn ask_for_delivery(&self) {
        self.state().asked_for_delivery += 1;
        self.publish(Content::Witness);
    }
}

/// One channel, as its consumer sees it.
pub(super) struct MemoryDeliveries {
    broker: MemoryBroker,
    channel: u64,
    since: Instant,
    last_seen: Instant,
    /// Deliveries that are not settled.
    came: BTreeMap<u64, Instant>,
    ack_at: Option<Instant>,
}

impl MemoryDeliveries {
    fn poll_news(&mut self) -> Result<Option<SourceEvent>, Lost> {
        let prefetch = self.broker.prefetch;
        let mut state = self.broker.state();
        let State { queue, channel, .. } = &mut *state;
        let channel = channel.as_mut().filter(|channel| channel.number == self.channel);
        let channel = channel.expect("a channel lasts until it is closed");
        if let Some(why) = &channel.lost {
            return Err(Lost(why.clone()));
        }
        if let Some(event) = channel.event.pop_front() {
            return Ok(Some(event));
        }
        if channel.held.len() >= prefetch {
            return Ok(None);
        }
        let Some(message) = queue.pop_front() else { return Ok(None) };
        channel.newest_tag += 1;
        let (tag, redelivered) = (channel.newest_tag, message.redelivered);
        channel.held.insert(tag, message.clone());
        self.came.insert(tag, Instant::now());
        let delivery = DeliveryTag(tag);
        Ok(Some(match message.content {
            Content::Update(update) => {
                SourceEvent::Received(Received { delivery, redelivered, update: Ok(update) })
            }
            Content::Malformed => {
                SourceEvent::Received(Received { delivery, redelivered, update: Err(Malformed::NoRecordKey) })
            }
            Content::Witness => SourceEvent::Witness(delivery),
            Content::Marker => SourceEvent::Marker,
        }))
    }

    fn end(self) {
        self.broker.change(|state| {
            state.return_held();
            state.channel = None;
        });
    }
}

impl Deliveries for MemoryDeliveries {
    async fn next(&mut self) -> Result<SourceEvent, Lost> {
        loop {
            if let Some(event) = self.poll_news()? {
                return Ok(event);
            }
            let heard_at = self.last_seen + HEARD_EVERY;
            tokio::select! {
                biased;
                () = self.broker.changed.notified() => {}
                () = sleep_until(heard_at) => {
                    self.last_seen = Instant::now();
                    if !self.broker.state().silent {
                        return Ok(SourceEvent::BrokerSeen(self.last_seen));
                    }
                }
            }
        }
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn claim(&mut self) {
        let channel = self.channel;
        self.broker.change(|state| {
            state.claims += 1;
            let claimed =
                SourceEvent::Claimed { number: Some(TenureNumber(state.claims)), rival_claim: state.rival };
            if let Some(channel) = state.channel(channel) {
                channel.event.retain(|event| !matches!(event, SourceEvent::Claimed { .. }));
                channel.event.push_back(claimed);
            }
        });
    }

    fn settle(&mut self, delivery: DeliveryTag) {
        self.came.remove(&delivery.0).expect("I7: a delivery that is held is settled, once");
        self.ack_at.get_or_insert(Instant::now() + ACK_DELAY);
        let number = self.channel;
        let mut state = self.broker.state();
        let malformed_settled = state.malformed_settled;
        let Some(channel) = state.channel(number) else { return }; // it comes back
        channel.settled.insert(delivery.0);
        match &channel.held[&delivery.0].content {
            Content::Update(update) => self.broker.facts.settled(update.id.as_str()),
            Content::Malformed => {
                self.broker.facts.malformed_settled(malformed_settled);
                state.malformed_settled += 1;
            }
            Content::Witness => {}
            Content::Marker => panic!("a marker is never settled"),
        }
    }

    async fn send_acks(&mut self) -> Result<(), Lost> {
        if self.ack_at.take_if(|at| *at <= Instant::now()).is_none() {
            return Ok(());
        }
        self.broker.change(|state| state.ack(self.channel))
    }

    fn next_ack_at(&mut self) -> Option<Instant> {
        self.ack_at
    }

    fn oldest_received_at(&self) -> Option<Instant> {
        self.came.first_key_value().map(|(_, came)| *came)
    }

    fn received_at(&self, delivery: DeliveryTag) -> Option<Instant> {
        self.came.get(&delivery.0).copied()
    }

    fn has_begun(&self) -> bool {
        self.broker.state().channel(self.channel).is_some_and(|channel| channel.newest_tag > 0)
    }

    fn dead_letter(
        &self,
        _: Holder,
        update: Option<&Update>,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (broker, id) = (self.broker.clone(), update.map(|update| update.id.as_str().to_owned()));
        async move {
            let delay = broker.state().dead_letter_delay;
            sleep(delay).await;
            match &id {
                Some(id) => broker.facts.dead_lettered(id),
                None => broker.facts.malformed_dead_lettered(),
            }
            broker.state().dead_letters.push((id, reason.name()));
        }
    }

    async fn leave(self) {
        if self.broker.change(|state| state.ack(self.channel)).is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
        self.end();
    }

    async fn close(self) {
        self.end();
    }
}
