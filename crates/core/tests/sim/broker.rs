//! A model of one partition's quorum queue with a single active consumer, as it was measured: first in, first
//! out; a prefetch window; consecutive tags per channel; what a lost channel had not acked comes back in order, in
//! front, marked as redelivered; of the acks on their way the newest are lost with the channel.

use std::collections::{BTreeMap, VecDeque};

use lanekeeper_core::acks::Ack;

#[derive(Debug)]
pub struct Broker {
    prefetch: usize,
    queue: VecDeque<Queued>,
    channels_opened: u64,
    channel: Option<Channel>,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    update: usize,
    redelivered: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub tag: u64,
    pub update: usize,
    pub redelivered: bool,
}

#[derive(Debug)]
struct Channel {
    number: u64,
    tags_used: u64,
    unacked: BTreeMap<u64, usize>,
    deliveries: VecDeque<Delivery>,
    acks: VecDeque<Ack>,
}

/// What became of a channel's deliveries when it was lost.
#[derive(Debug, Default)]
pub struct Lost {
    pub acked: Vec<usize>,
    pub acks_lost: usize,
}

impl Broker {
    pub fn new(prefetch: usize) -> Self {
        Self { prefetch, queue: VecDeque::new(), channels_opened: 0, channel: None }
    }

    pub fn publish(&mut self, update: usize) {
        self.queue.push_back(Queued { update, redelivered: false });
    }

    /// Opens the one channel of the active consumer.
    pub fn open(&mut self) -> u64 {
        assert!(self.channel.is_none(), "broker: one active consumer");
        self.channels_opened += 1;
        self.channel = Some(Channel {
            number: self.channels_opened,
            tags_used: 0,
            unacked: BTreeMap::new(),
            deliveries: VecDeque::new(),
            acks: VecDeque::new(),
        });
        self.channels_opened
    }

    pub fn is_open(&self, number: u64) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.number == number)
    }

    /// Hands over what the window allows. How many deliveries are newly on their way, and on which channel.
    pub fn hand_over(&mut self) -> Option<(u64, usize)> {
        let channel = self.channel.as_mut()?;
        let before = channel.deliveries.len();
        while channel.unacked.len() < self.prefetch
            && let Some(Queued { update, redelivered }) = self.queue.pop_front()
        {
            channel.tags_used += 1;
            channel.unacked.insert(channel.tags_used, update);
            channel.deliveries.push_back(Delivery { tag: channel.tags_used, update, redelivered });
        }
        Some((channel.number, channel.deliveries.len() - before))
    }

    /// The oldest delivery on its way arrives, if its channel is still there.
    pub fn arrive(&mut self, number: u64) -> Option<Delivery> {
        self.channel_of(number)?.deliveries.pop_front()
    }

    /// The dispatcher sends an ack. Whether it is on its way, or lost since the channel is gone.
    pub fn send_ack(&mut self, number: u64, ack: Ack) -> bool {
        let Some(channel) = self.channel_of(number) else { return false };
        channel.acks.push_back(ack);
        true
    }

    /// The oldest ack on its way arrives. The updates that leave the queue by it.
    pub fn take_ack(&mut self, number: u64) -> Vec<usize> {
        match self.channel_of(number) {
            Some(channel) => channel.take_ack(),
            None => Vec::new(),
        }
    }

    /// The channel is gone. `acks_done` of the acks on their way (all of them, if there are fewer) still arrived.
    pub fn lose(&mut self, acks_done: usize) -> Option<(Lost, u64)> {
        let mut channel = self.channel.take()?;
        let mut lost = Lost::default();
        for _ in 0..acks_done.min(channel.acks.len()) {
            lost.acked.extend(channel.take_ack());
        }
        lost.acks_lost = channel.acks.len();
        for update in channel.unacked.into_values().rev() {
            self.queue.push_front(Queued { update, redelivered: true });
        }
        Some((lost, channel.number))
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What another consumer gets while we have no channel: updates, and whether they may have been seen.
    pub fn take(&mut self, most: usize) -> Vec<(usize, bool)> {
        assert!(self.channel.is_none(), "broker: one active consumer");
        let most = most.min(self.queue.len());
        self.queue.drain(..most).map(|Queued { update, redelivered }| (update, redelivered)).collect()
    }

    /// It has died: what it had not acked is back, in front, in order.
    pub fn put_back(&mut self, updates: &[usize]) {
        for update in updates.iter().rev() {
            self.queue.push_front(Queued { update: *update, redelivered: true });
        }
    }

    pub fn acks_on_their_way(&self) -> usize {
        self.channel.as_ref().map_or(0, |channel| channel.acks.len())
    }

    fn channel_of(&mut self, number: u64) -> Option<&mut Channel> {
        self.channel.as_mut().filter(|channel| channel.number == number)
    }
}

impl Channel {
    fn take_ack(&mut self) -> Vec<usize> {
        let Some(Ack { tag, multiple }) = self.acks.pop_front() else { return Vec::new() };
        assert!(
            self.unacked.contains_key(&tag.0),
            "broker: 406 PRECONDITION_FAILED unknown delivery tag {}",
            tag.0
        );
        let older = if multiple { 0 } else { tag.0 };
        let tags: Vec<u64> = self.unacked.range(older..=tag.0).map(|(tag, _)| *tag).collect();
        tags.iter().filter_map(|tag| self.unacked.remove(tag)).collect()
    }
}
