//! A broker in memory: one queue with one active consumer. What is not acked comes back at the front, in order.

mod deliveries;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use self::deliveries::MemoryDeliveries;
use super::facts::Facts;
use lanekeeper_broker::{Clock, Gone, Lost, PartitionStatus, Source, SourceEvent};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

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
    clock: Clock,
}

/// What other replicas are told when a tenure is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// `None`: it was said before its channel was closed.
    pub(super) lost: Option<TenureNumber>,
    /// For how long requests can still be at work.
    pub(super) rest: Duration,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    channel: Option<Channel>,
    channels: u64,
    /// The newest claim of all, and the newest one of another process.
    claims: u64,
    rival: Option<TenureNumber>,
    /// What comes with the next claims: until when requests of other processes can be at work.
    wait_until: Option<Tick>,
    ends: Vec<End>,
    claims_kept_back: bool,
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
    events: VecDeque<SourceEvent>,
    lost: Option<String>,
}

impl MemoryBroker {
    pub(super) fn new(facts: Facts, prefetch: usize, clock: Clock) -> Self {
        Self { state: Arc::default(), changed: Arc::default(), facts, prefetch, clock }
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
                channel.events.push_back(event);
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

    /// The stream of claims is lost, and another one is read: numbers go on higher, and nothing is known of other processes.
    /// Returns a number that another process had in the lost one.
    pub(super) fn lose_claims(&self) -> TenureNumber {
        self.change(|state| {
            state.claims += 10;
            state.rival = None;
            TenureNumber(state.claims)
        })
    }

    /// Requests of other processes can be at work for so long.
    pub(super) fn others_at_work_for(&self, wait: Duration) {
        let until = self.clock.now().after(wait);
        self.change(|state| state.wait_until = Some(until));
    }

    /// An alarm keeps claims from being published.
    pub(super) fn keep_claims_back(&self) {
        self.change(|state| state.claims_kept_back = true);
    }

    /// What other replicas were told, in order.
    pub(super) fn ends(&self) -> Vec<End> {
        self.state().ends.clone()
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

    /// Returns true if nothing at all is in the queue or held.
    pub(super) fn holds_nothing(&self) -> bool {
        let state = self.state();
        state.queue.is_empty() && state.channel.iter().all(|channel| channel.held.is_empty())
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
                return Ok(MemoryDeliveries::new(self.clone(), number));
            }
        }
    }

    fn drains(&self) -> bool {
        self.state().drains
    }

    fn publish_status(&self, status: PartitionStatus) {
        self.state().status = Some(status);
    }

    fn publish_end(&self, number: TenureNumber, rest: Duration) {
        self.state().ends.push(End { lost: Some(number), rest });
    }

    fn ask_for_delivery(&self) {
        self.state().asked_for_delivery += 1;
        self.publish(Content::Witness);
    }
}
