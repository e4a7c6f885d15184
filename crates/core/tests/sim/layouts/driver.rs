//! One partition in one process, as `runtime::driver` works it: the real core, its effects done late.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_core::acks::{AckLimits, Acks};
use lanekeeper_core::drain::DrainWatch;
use lanekeeper_core::layout::Layout;
use lanekeeper_core::message::{AttemptId, DeliveryTag, Effect, Event, Holder, Tenure, TenureNumber};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::policy::Malformed;
use lanekeeper_core::previous_layout::PreviousLayout;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

use super::broker::{Delivery, Item, PartitionKey};
use super::ending::Leaving;
use super::event::LayoutEvent;
use super::judge::fault;
use super::why::Waits;
use super::{World, policy};

/// No lease lapses here.
const LEASE: Duration = Duration::from_secs(3_600);

/// What comes on one way comes in order.
const MOMENT: Duration = Duration::from_micros(1);

#[derive(Debug)]
pub struct Driver {
    pub layout: Layout,
    placement: Placement,
    pub partition: Partition,
    pub watch: DrainWatch,
    pub tenure: Option<OpenTenure>,
    pub leaving: Option<Leaving>,
    /// Updates, and whether a request is decided that was out when its channel was lost: it has arrived by then, or never
    /// does. What a cut-off owner may still do is bounded elsewhere (heartbeat, tenure numbers), not here.
    pub in_flight: BTreeMap<u64, (usize, Option<bool>)>,
    pub wake_at: Option<Tick>,
    /// Claims that were asked for: only the newest is answered.
    claims: u64,
    pub waits: Waits,
}

/// A claim of ours, as it comes back.
#[derive(Clone, Copy, Debug)]
pub struct ReadBack {
    claim: u64,
    number: TenureNumber,
    /// The newest claim of another process before it.
    rival_claim: Option<TenureNumber>,
}

/// Its channel.
#[derive(Debug)]
pub struct OpenTenure {
    pub channel: u64,
    pub tenure: Tenure,
    pub acks: Acks,
    updates: HashMap<DeliveryTag, usize>,
    /// The newest claim that was asked for was read back.
    pub claimed: bool,
    /// Updates that the partition has not settled.
    pub held: BTreeMap<DeliveryTag, HeldUpdate>,
}

#[derive(Clone, Copy, Debug)]
pub struct HeldUpdate {
    pub update: usize,
    /// The partition was claimed when it came, or has been since.
    pub taken_in: bool,
}

impl Driver {
    pub fn new(layout: Layout, placement: Placement, limits: Limits, previous: PreviousLayout) -> Self {
        let partition = Partition::new(limits, policy()).behind(previous.clone());
        Self {
            layout,
            placement,
            partition,
            watch: DrainWatch::default(),
            tenure: None,
            leaving: None,
            in_flight: BTreeMap::new(),
            wake_at: None,
            claims: 0,
            waits: Waits::new(previous),
        }
    }
}

pub fn update_of(number: usize, record: usize, key: &RecordKey) -> std::sync::Arc<Update> {
    std::sync::Arc::new(Update {
        record_key: key.clone(),
        id: UpdateId::published(format!("u{number}")),
        target: TargetId(0),
        update_type: None,
        version: None,
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: Some(number as u64),
        headers: Vec::new(),
        body: Bytes::copy_from_slice(&(record as u64).to_le_bytes()),
    })
}

fn number_of(update: &Update) -> usize {
    usize::try_from(update.published_at.expect("an update is named by its time")).expect("small")
}

impl World {
    pub fn attach(&mut self, process: u32, partition_key: PartitionKey) {
        let Some(prefetch) = self.driver(process, partition_key).map(|driver| driver.layout.prefetch) else {
            return;
        };
        let Some(channel) = self.broker.attach(partition_key, prefetch) else {
            // The queue is gone: it was drained and removed while this process did not look.
            self.processes.get_mut(&process).expect("it lives").drivers.remove(&partition_key);
            return;
        };
        self.tenures += 1;
        let tenure = Tenure(self.tenures);
        let now = self.now;
        let driver = self.driver(process, partition_key).expect("looked at above");
        let limits = AckLimits::for_prefetch(usize::from(prefetch));
        driver.tenure = Some(OpenTenure {
            channel,
            tenure,
            acks: Acks::new(limits),
            updates: HashMap::new(),
            claimed: false,
            held: BTreeMap::new(),
        });
        driver.partition.handle(now, Event::TenureBegan(tenure));
        driver.partition.handle(now, Event::LeaseRenewed { until: now.after(LEASE) });
        self.note(format_args!("P{process} {partition_key:?} attached, channel {channel}"));
        self.follow_up(process, partition_key);
        self.hand_over(partition_key);
    }

    pub fn hand_over(&mut self, partition_key: PartitionKey) {
        for delivery in self.broker.hand_over(partition_key) {
            let delay = Duration::from_millis(self.rng.between(0, 5));
            // In order, per channel.
            self.delivery_at = self.delivery_at.after(MOMENT).max(self.now.after(delay));
            self.at(self.delivery_at, LayoutEvent::Delivery { partition_key, delivery });
        }
    }

    pub fn deliver(&mut self, partition_key: PartitionKey, delivery: Delivery) {
        let Some(process) = self.process_of(partition_key, delivery.channel) else { return };
        let now = self.now;
        let record = match delivery.item {
            Item::Marker => None,
            Item::Update(update) => Some((update, self.publications[update].record)),
        };
        if let Some((_, record)) = record {
            let key = self.keys[record].clone();
            let awaited = self
                .driver(process, partition_key)
                .is_some_and(|driver| driver.partition.is_blocked_by_previous(&key));
            self.met.awaited += u32::from(awaited);
        }
        let made = record.map(|(update, record)| update_of(update, record, &self.keys[record]));
        self.note(format_args!(
            "P{process} {partition_key:?} got {:?} {}",
            delivery.item, delivery.redelivered
        ));
        let driver = self.driver(process, partition_key).expect("it has the channel");
        if driver.leaving.is_some() {
            return; // it reads no more
        }
        let open = driver.tenure.as_mut().expect("it has the channel");
        let tag = DeliveryTag(delivery.tag);
        open.acks.delivered(tag, now);
        match made {
            None => driver.watch.marker_came(now),
            Some(update) => {
                open.updates.insert(tag, number_of(&update));
                let (tenure, redelivered) = (open.tenure, delivery.redelivered);
                driver.watch.update_came();
                // As the room `broker` does it.
                let event = match driver.placement.elsewhere(&update.record_key, partition_key.1) {
                    None => {
                        let held = HeldUpdate { update: number_of(&update), taken_in: open.claimed };
                        open.held.insert(tag, held);
                        Event::Received { tenure, delivery: tag, redelivered, update }
                    }
                    belongs_to => {
                        let fault = Malformed::Misplaced { belongs_to };
                        Event::ReceivedMalformed { tenure, delivery: tag, fault }
                    }
                };
                driver.partition.handle(now, event);
            }
        }
        self.follow_up(process, partition_key);
    }

    /// A claim is in the stream, in which its place is its number.
    pub fn claim_arrived(&mut self, process: u32, partition_key: PartitionKey, tenure: Tenure, claim: u64) {
        self.claims += 1;
        let number = TenureNumber(self.claims);
        let of_partition = self.claimed_by.entry(partition_key).or_default();
        of_partition.insert(process, number);
        let rival_claim =
            of_partition.iter().filter(|(of, _)| **of != process).map(|(_, number)| *number).max();
        let read_back = ReadBack { claim, number, rival_claim };
        self.soon(self.claim_delay, LayoutEvent::Claimed { process, partition_key, tenure, read_back });
    }

    /// It is read back.
    pub fn claimed(
        &mut self,
        process: u32,
        partition_key: PartitionKey,
        tenure: Tenure,
        read_back: ReadBack,
    ) {
        let now = self.now;
        let ReadBack { claim, number, rival_claim } = read_back;
        if let Some(driver) = self.driver(process, partition_key).filter(|driver| driver.claims == claim) {
            if let Some(open) = driver.tenure.as_mut().filter(|open| open.tenure == tenure) {
                open.claimed = true;
                open.held.values_mut().for_each(|held| held.taken_in = true);
                driver.waits.claimed(rival_claim);
            }
            driver
                .partition
                .handle(now, Event::Claimed { tenure, number: Some(number), rival_claim, wait_until: None });
            self.follow_up(process, partition_key);
        }
    }

    /// The driver hears which partitions of the layout before are not drained.
    pub fn on_previous_drained(&mut self, process: u32, partition_key: PartitionKey) {
        let (layout, now) = (partition_key.0, self.now);
        let layout_state =
            self.processes.get(&process).and_then(|process| process.layout_states.get(&layout));
        let Some(undrained) = layout_state.map(|layout_state| layout_state.previous.undrained.clone()) else {
            return;
        };
        if let Some(driver) = self.driver(process, partition_key) {
            driver.waits.previous.undrained.clone_from(&undrained);
            driver.partition.handle(now, Event::PreviousDrained { undrained });
            self.follow_up(process, partition_key);
        }
    }

    pub fn answered(&mut self, process: u32, partition_key: PartitionKey, attempt: AttemptId, fails: bool) {
        let Some(driver) = self.driver(process, partition_key) else { return };
        let Some((update, decided)) = driver.in_flight.remove(&attempt.0) else { return };
        let fails = decided.map_or(fails, |applied| !applied);
        if decided.is_none() {
            self.judge.ended(update, !fails);
        }
        self.note(format_args!(
            "P{process} {partition_key:?} #{update} {}",
            if fails { "failed" } else { "applied" }
        ));
        let record_key = self.keys[self.publications[update].record].clone();
        let outcome = if fails {
            Outcome::Retryable {
                failure: Failure { cause: Cause::Status(503), detail: String::new() },
                retry_after: None,
            }
        } else {
            Outcome::Applied
        };
        let now = self.now;
        let driver = self.driver(process, partition_key).expect("looked at above");
        driver.waits.attempts.ended(now, update, fails);
        driver.partition.handle(now, Event::AttemptEnded { attempt, record_key, outcome });
        self.follow_up(process, partition_key);
    }

    pub fn recorded(
        &mut self,
        process: u32,
        partition_key: PartitionKey,
        tenure: Tenure,
        holder: Holder,
        update: Option<usize>,
    ) {
        let record_key = update.map(|update| self.keys[self.publications[update].record].clone());
        let now = self.now;
        if let Some(driver) = self.driver(process, partition_key) {
            driver.waits.written((tenure, holder));
            driver.partition.handle(now, Event::Recorded { tenure, holder, record_key });
            self.follow_up(process, partition_key);
        }
    }

    pub fn wake(&mut self, process: u32, partition_key: PartitionKey) {
        let now = self.now;
        if let Some(driver) = self.driver(process, partition_key) {
            driver.wake_at = None;
            driver.partition.wake(now);
            self.follow_up(process, partition_key);
        }
    }

    /// What the driver does after each event.
    pub fn follow_up(&mut self, process: u32, partition_key: PartitionKey) {
        let now = self.now;
        loop {
            let Some(driver) = self.driver(process, partition_key) else { return };
            let Some(effect) = driver.partition.poll_effect() else { break };
            match effect {
                Effect::ClaimEnded { .. } => {
                    driver.tenure.iter_mut().for_each(|open| open.claimed = false);
                }
                Effect::Claim { tenure } => {
                    driver.tenure.iter_mut().for_each(|open| open.claimed = false);
                    driver.claims += 1;
                    let claim = driver.claims;
                    self.soon(20, LayoutEvent::ClaimArrived { process, partition_key, tenure, claim });
                }
                Effect::Attempt { attempt, number: count, update, tenure, .. } => {
                    let number = number_of(&update);
                    let of_driver = driver.tenure.as_ref().expect("requests leave within a tenure").tenure;
                    driver.waits.attempts.began(now, of_driver, number, count);
                    driver.in_flight.insert(attempt.0, (number, None));
                    self.note(format_args!("P{process} {partition_key:?} attempts #{number}"));
                    self.judge.attempted(number, partition_key, tenure);
                    let early = self.last().drains() && partition_key.0 == self.last().in_force.number;
                    self.met.early += u32::from(early);
                    let fails = self.now < self.calm_at && self.rng.chance(self.failures);
                    let within = self.latency;
                    self.soon(within, LayoutEvent::Answered { process, partition_key, attempt, fails });
                }
                Effect::Record { tenure, holder, update, .. } => {
                    let update = update.map(|update| number_of(&update));
                    if let Some(update) = update {
                        driver.waits.writes((tenure, holder), update);
                    }
                    self.soon(10, LayoutEvent::Recorded { process, partition_key, tenure, holder, update });
                }
                Effect::Settle { tenure, delivery } => {
                    if let Some(open) = driver.tenure.as_mut().filter(|open| open.tenure == tenure) {
                        let update = open.updates[&delivery];
                        open.acks.finished(delivery, now);
                        open.held.remove(&delivery);
                        self.judge.settled(update);
                    }
                }
                Effect::Abandon { .. } => return self.lose_channel(process, partition_key),
                other => fault!("driver", "an effect that nothing here asks for: {other:?}"),
            }
        }
        self.send_acks(process, partition_key);
        self.look_at_drain(process, partition_key);
        self.go_on_leaving(process, partition_key);
        self.set_timer(process, partition_key);
    }

    fn send_acks(&mut self, process: u32, partition_key: PartitionKey) {
        let now = self.now;
        let Some(open) = self.driver(process, partition_key).and_then(|driver| driver.tenure.as_mut()) else {
            return;
        };
        let channel = open.channel;
        let mut acks = Vec::new();
        while let Some(ack) = open.acks.poll(now) {
            acks.push(ack);
        }
        for ack in acks {
            self.send_ack(partition_key, channel, ack);
        }
    }

    pub fn send_ack(&mut self, partition_key: PartitionKey, channel: u64, ack: lanekeeper_core::acks::Ack) {
        if self.broker.send_ack(partition_key, channel, ack) {
            let delay = Duration::from_millis(self.rng.between(0, self.ack_delay));
            self.ack_at = self.ack_at.after(MOMENT).max(self.now.after(delay));
            self.at(self.ack_at, LayoutEvent::Ack { partition_key, channel });
        }
    }

    fn set_timer(&mut self, process: u32, partition_key: PartitionKey) {
        let Some(driver) = self.driver(process, partition_key) else { return };
        let quiet = driver.watch.next_deadline().filter(|_| driver.leaving.is_none());
        let acks = driver.tenure.as_mut().and_then(|open| open.acks.next_deadline());
        let next = [driver.partition.next_deadline(), quiet, acks];
        let Some(next) = next.into_iter().flatten().min() else { return };
        if driver.wake_at.is_none_or(|at| next < at) {
            driver.wake_at = Some(next);
            self.at(next, LayoutEvent::Wake { process, partition_key });
        }
    }
}
