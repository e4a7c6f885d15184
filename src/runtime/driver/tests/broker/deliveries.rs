//! A channel of the broker in memory, as its consumer sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Content, End, MemoryBroker, State};
use crate::runtime::driver::tests::world::LEASE;
use lanekeeper_broker::{Deliveries, Lost, Received, SourceEvent};
use lanekeeper_core::message::{DeliveryTag, Holder, TenureNumber};
use lanekeeper_core::policy::{DeadLetterReason, Malformed};
use lanekeeper_core::update::Update;

/// Between settling and the ack.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// Between two notes that come back.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);

/// One channel, as its consumer sees it.
pub struct MemoryDeliveries {
    broker: MemoryBroker,
    channel: u64,
    /// When the next note comes back.
    note_at: Instant,
    /// Deliveries that are not settled.
    came: BTreeMap<u64, Instant>,
    ack_at: Option<Instant>,
}

impl MemoryDeliveries {
    pub(super) fn new(broker: MemoryBroker, channel: u64) -> Self {
        let now = Instant::now();
        Self { broker, channel, note_at: now, came: BTreeMap::new(), ack_at: None }
    }

    fn poll_event(&mut self) -> Result<Option<SourceEvent>, Lost> {
        let prefetch = self.broker.prefetch;
        let mut state = self.broker.state();
        let State { queue, channel, .. } = &mut *state;
        let channel = channel.as_mut().filter(|channel| channel.number == self.channel);
        let channel = channel.expect("a channel lasts until it is closed");
        if let Some(why) = &channel.lost {
            return Err(Lost(why.clone()));
        }
        if let Some(event) = channel.events.pop_front() {
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
            Content::Marker => SourceEvent::Marker(delivery),
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
    const NUMBERS_TENURES: bool = true;

    async fn next(&mut self) -> Result<SourceEvent, Lost> {
        loop {
            if let Some(event) = self.poll_event()? {
                return Ok(event);
            }
            tokio::select! {
                biased;
                () = sleep_until(self.note_at) => {
                    self.note_at = Instant::now() + NOTE_INTERVAL;
                    if !self.broker.state().silent {
                        return Ok(SourceEvent::LeaseRenewed(self.broker.clock.now().after(LEASE)));
                    }
                }
                () = self.broker.changed.notified() => {}
            }
        }
    }

    fn claim(&mut self) {
        let channel = self.channel;
        self.broker.change(|state| {
            state.claims += 1;
            let claimed = SourceEvent::Claimed {
                number: Some(TenureNumber(state.claims)),
                rival_claim: state.rival,
                wait_until: state.wait_until,
            };
            let kept_back = state.claims_kept_back.then_some(SourceEvent::ClaimsKeptBack);
            if let Some(channel) = state.channel(channel) {
                channel.events.retain(|event| !matches!(event, SourceEvent::Claimed { .. }));
                channel.events.extend(kept_back);
                channel.events.push_back(claimed);
            }
        });
    }

    fn end_claim(&mut self, rest: Duration) {
        self.broker.state().ends.push(End { lost: None, rest });
    }

    fn settle(&mut self, delivery: DeliveryTag) {
        self.came.remove(&delivery.0).expect("I7: a delivery that is held is settled, once");
        self.ack_at.get_or_insert(Instant::now() + ACK_DELAY);
        let number = self.channel;
        let mut state = self.broker.state();
        let (malformed_settled, drains) = (state.malformed_settled, state.drains);
        let Some(channel) = state.channel(number) else { return }; // it comes back
        channel.settled.insert(delivery.0);
        match &channel.held[&delivery.0].content {
            Content::Update(update) => self.broker.facts.settled(update.id.as_str()),
            Content::Malformed => {
                self.broker.facts.malformed_settled(malformed_settled);
                state.malformed_settled += 1;
            }
            Content::Witness => {}
            Content::Marker => assert!(!drains, "a marker of a layout that drains is never settled"),
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

    async fn leave(self, rest: Duration) {
        self.broker.state().ends.push(End { lost: None, rest });
        if self.broker.change(|state| state.ack(self.channel)).is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
        self.end();
    }

    async fn close(self) {
        self.end();
    }
}
