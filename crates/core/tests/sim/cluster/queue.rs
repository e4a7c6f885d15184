//! A model of a quorum queue with a single active consumer on a cluster, as it was measured: what a consumer holds whose
//! node seems to be down is taken back and goes to the next one; after the heal the consumer is eligible again, on the same
//! channel, and its acks of what was taken back settle nothing.

use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug)]
struct Queued {
    update: usize,
    /// How often it was taken back: `x-delivery-count`.
    count: u64,
}

#[derive(Debug)]
struct Consumer {
    channel: u64,
    /// Its node seems to be down.
    suspected: bool,
    tags_used: u64,
    unacked: BTreeMap<u64, Queued>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    pub channel: u64,
    pub tag: u64,
    pub update: usize,
    pub count: u64,
}

#[derive(Debug)]
pub struct Queue {
    prefetch: usize,
    ready: VecDeque<Queued>,
    /// In the order in which they wait.
    consumers: Vec<Consumer>,
    active: Option<u64>,
    channels: u64,
}

impl Queue {
    pub fn new(prefetch: usize) -> Self {
        Self { prefetch, ready: VecDeque::new(), consumers: Vec::new(), active: None, channels: 0 }
    }

    pub fn publish(&mut self, update: usize) {
        self.ready.push_back(Queued { update, count: 0 });
    }

    /// Opens a channel and consumes.
    pub fn attach(&mut self) -> u64 {
        self.channels += 1;
        let channel = self.channels;
        self.consumers.push(Consumer { channel, suspected: false, tags_used: 0, unacked: BTreeMap::new() });
        channel
    }

    /// What the active consumer gets now.
    pub fn hand_over(&mut self) -> Vec<Delivery> {
        if self.active.is_none() {
            self.active =
                self.consumers.iter().find(|consumer| !consumer.suspected).map(|consumer| consumer.channel);
        }
        let mut deliveries = Vec::new();
        let active = self.active;
        let Some(consumer) = self.consumers.iter_mut().find(|of| Some(of.channel) == active) else {
            return deliveries;
        };
        while consumer.unacked.len() < self.prefetch
            && let Some(queued) = self.ready.pop_front()
        {
            consumer.tags_used += 1;
            consumer.unacked.insert(consumer.tags_used, queued);
            let Queued { update, count } = queued;
            deliveries.push(Delivery { channel: consumer.channel, tag: consumer.tags_used, update, count });
        }
        deliveries
    }

    /// Returns true if the queue regards this delivery as held.
    pub fn holds(&self, channel: u64, tag: u64) -> bool {
        self.consumers.iter().any(|of| of.channel == channel && of.unacked.contains_key(&tag))
    }

    pub fn is_active(&self, channel: u64) -> bool {
        self.active == Some(channel)
    }

    /// Returns the update that leaves the queue; none if the ack is void.
    pub fn ack(&mut self, channel: u64, tag: u64) -> Option<usize> {
        let consumer = self.consumers.iter_mut().find(|of| of.channel == channel)?;
        consumer.unacked.remove(&tag).map(|queued| queued.update)
    }

    pub fn close(&mut self, channel: u64) {
        self.take_back(channel);
        self.consumers.retain(|of| of.channel != channel);
    }

    /// The node of the consumer seems to be down.
    pub fn suspect(&mut self, channel: u64) {
        self.take_back(channel);
        if let Some(place) = self.consumers.iter().position(|of| of.channel == channel) {
            let mut consumer = self.consumers.remove(place);
            consumer.suspected = true;
            self.consumers.push(consumer);
        }
    }

    /// Its node is there again. The consumer gets no notice.
    pub fn heal(&mut self) {
        self.consumers.iter_mut().for_each(|consumer| consumer.suspected = false);
    }

    /// A consumer of somebody else had the oldest update that no later one of its record waits behind, and gives it back
    /// late: the broker puts it behind newer ones. Returns true if there was one, and something to put it behind.
    pub fn misplace_oldest(&mut self, record_of: &[usize]) -> bool {
        let is_last = |place: usize| {
            let record = record_of[self.ready[place].update];
            self.ready.range(place + 1..).all(|later| record_of[later.update] != record)
        };
        let Some(place) = (0..self.ready.len().saturating_sub(1)).find(|place| is_last(*place)) else {
            return false;
        };
        let Queued { update, count } = self.ready.remove(place).expect("it is a place in it");
        self.ready.push_back(Queued { update, count: count + 1 });
        true
    }

    fn take_back(&mut self, channel: u64) {
        if self.active == Some(channel) {
            self.active = None;
        }
        if let Some(consumer) = self.consumers.iter_mut().find(|of| of.channel == channel) {
            for Queued { update, count } in std::mem::take(&mut consumer.unacked).into_values().rev() {
                self.ready.push_front(Queued { update, count: count + 1 });
            }
        }
    }
}
