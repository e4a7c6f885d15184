//! A model of the exchanges and partition queues of several layouts: as in `crate::broker`, and besides what a change of
//! layouts meets. What an exchange has routed can take a while to its queue (stragglers); of the consumers of a queue one
//! is active, the next one follows when its channel is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use lanekeeper_core::acks::Ack;
use lanekeeper_core::change::RouteStep;
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::tick::Tick;

pub type PartitionKey = (LayoutNumber, PartitionNumber);

/// What is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Update(usize),
    Marker,
}

#[derive(Debug, Default)]
pub struct Broker {
    ingress: BTreeSet<LayoutNumber>,
    handoff: BTreeSet<LayoutNumber>,
    pub partitions: BTreeMap<LayoutNumber, u16>,
    /// A layout whose keys are not where they are computed, by how many partitions.
    pub shifted: BTreeMap<LayoutNumber, u16>,
    pub queues: BTreeMap<PartitionKey, Queue>,
    channels: u64,
}

#[derive(Debug, Default)]
pub struct Queue {
    /// With whether each may have been seen.
    items: VecDeque<(Item, bool)>,
    /// Consumers in the order in which they came; the first is the active one.
    consumers: VecDeque<Channel>,
    /// What is routed arrives in this order.
    last_arrival: Tick,
}

#[derive(Debug)]
pub struct Channel {
    pub number: u64,
    prefetch: usize,
    tags_used: u64,
    unacked: BTreeMap<u64, Item>,
    acks: VecDeque<Ack>,
}

#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub channel: u64,
    pub tag: u64,
    pub item: Item,
    pub redelivered: bool,
}

impl Broker {
    pub fn declare(&mut self, layout: Layout) {
        self.partitions.insert(layout.number, layout.partitions);
        for partition in layout.partitions() {
            self.queues.entry((layout.number, partition)).or_default();
        }
    }

    pub fn delete(&mut self, layout: Layout) {
        self.partitions.remove(&layout.number);
        for partition in layout.partitions() {
            self.queues.remove(&(layout.number, partition));
        }
        self.ingress.remove(&layout.number);
        self.handoff.remove(&layout.number);
    }

    pub fn bind_first(&mut self, layout: Layout) {
        self.declare(layout);
        self.ingress.insert(layout.number);
    }

    pub fn route_step(&mut self, step: RouteStep, from: Layout, to: Layout) {
        match step {
            RouteStep::BindHandoff => drop(self.handoff.insert(to.number)),
            RouteStep::UnbindOld => drop(self.ingress.remove(&from.number)),
            RouteStep::BindNew => drop(self.ingress.insert(to.number)),
            RouteStep::UnbindHandoff => drop(self.handoff.remove(&to.number)),
        }
    }

    /// Where a publish goes: the queues.
    pub fn route(&self, key: &[u8]) -> Vec<PartitionKey> {
        let layouts = if self.ingress.is_empty() { &self.handoff } else { &self.ingress };
        let partition_key = |layout: &LayoutNumber| Some((*layout, self.place(key, *layout)?));
        layouts.iter().filter_map(partition_key).collect()
    }

    /// Where a key goes in a layout.
    pub fn place(&self, key: &[u8], layout: LayoutNumber) -> Option<PartitionNumber> {
        let partitions = *self.partitions.get(&layout)?;
        let shift = self.shifted.get(&layout).copied().unwrap_or_default();
        Some(PartitionNumber((partition_of(key, partitions).0 + shift) % partitions))
    }

    /// When something arrives that was routed now and takes so long: never before what was routed earlier.
    pub fn arrival(&mut self, partition_key: PartitionKey, now: Tick, delay: Duration) -> Tick {
        let queue = self.queues.get_mut(&partition_key).expect("it is routed to what is there");
        let next = queue.last_arrival.after(Duration::from_micros(1));
        queue.last_arrival = next.max(now.after(delay));
        queue.last_arrival
    }

    /// Whether the queue was there to take it.
    pub fn arrive(&mut self, partition_key: PartitionKey, item: Item) -> bool {
        let queue = self.queues.get_mut(&partition_key);
        queue.map(|queue| queue.items.push_back((item, false))).is_some()
    }

    pub fn attach(&mut self, partition_key: PartitionKey, prefetch: u16) -> Option<u64> {
        let queue = self.queues.get_mut(&partition_key)?;
        self.channels += 1;
        queue.consumers.push_back(Channel {
            number: self.channels,
            prefetch: usize::from(prefetch),
            tags_used: 0,
            unacked: BTreeMap::new(),
            acks: VecDeque::new(),
        });
        Some(self.channels)
    }

    /// What goes on its way to the active consumer now.
    pub fn hand_over(&mut self, partition_key: PartitionKey) -> Vec<Delivery> {
        let Some(queue) = self.queues.get_mut(&partition_key) else { return Vec::new() };
        let Some(active) = queue.consumers.front_mut() else { return Vec::new() };
        let mut deliveries = Vec::new();
        while active.unacked.len() < active.prefetch
            && let Some((item, redelivered)) = queue.items.pop_front()
        {
            active.tags_used += 1;
            active.unacked.insert(active.tags_used, item);
            deliveries.push(Delivery { channel: active.number, tag: active.tags_used, item, redelivered });
        }
        deliveries
    }

    pub fn send_ack(&mut self, partition_key: PartitionKey, number: u64, ack: Ack) -> bool {
        let channel = self.channel(partition_key, number);
        channel.map(|channel| channel.acks.push_back(ack)).is_some()
    }

    pub fn take_ack(&mut self, partition_key: PartitionKey, number: u64) {
        if let Some(channel) = self.channel(partition_key, number) {
            channel.take_ack();
        }
    }

    /// The channel is gone; all but the newest of its acks arrived, of which `lost` did not. Who it was of.
    pub fn lose(&mut self, partition_key: PartitionKey, number: u64, lost: usize) -> bool {
        let Some(queue) = self.queues.get_mut(&partition_key) else { return false };
        let Some(place) = queue.consumers.iter().position(|channel| channel.number == number) else {
            return false;
        };
        let mut channel = queue.consumers.remove(place).expect("it was found");
        for _ in lost..channel.acks.len() {
            channel.take_ack();
        }
        for item in channel.unacked.into_values().rev() {
            queue.items.push_front((item, true));
        }
        true
    }

    pub fn acks_on_their_way(&self, partition_key: PartitionKey, number: u64) -> usize {
        let queue = self.queues.get(&partition_key);
        let channel = queue.and_then(|queue| queue.consumers.iter().find(|channel| channel.number == number));
        channel.map_or(0, |channel| channel.acks.len())
    }

    fn channel(&mut self, partition_key: PartitionKey, number: u64) -> Option<&mut Channel> {
        self.queues.get_mut(&partition_key)?.consumers.iter_mut().find(|channel| channel.number == number)
    }

    pub fn has_ways(&self) -> (usize, usize) {
        (self.ingress.len(), self.handoff.len())
    }
}

impl Queue {
    pub fn is_used(&self) -> bool {
        !self.consumers.is_empty()
    }

    pub fn updates(&self) -> usize {
        self.items.iter().filter(|(item, _)| *item != Item::Marker).count()
    }
}

impl Channel {
    fn take_ack(&mut self) {
        let Some(Ack { tag, multiple }) = self.acks.pop_front() else { return };
        assert!(self.unacked.contains_key(&tag.0), "broker: 406 unknown delivery tag {}", tag.0);
        let older = if multiple { 0 } else { tag.0 };
        let tags: Vec<u64> = self.unacked.range(older..=tag.0).map(|(tag, _)| *tag).collect();
        for tag in tags {
            self.unacked.remove(&tag);
        }
    }
}
