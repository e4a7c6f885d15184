//! The outbox against a hostile model broker: judged by what the model's queue got.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::outbox::{
    InFlight, NotConfirmedReason, Outbox, OutboxLimits, PublishId, PublishReceipt, PublishResult, Refusal,
    SubmissionId,
};
use super::outgoing::{Outgoing, ShortText};
use crate::schedule::Schedule;
use crate::tick::Tick;
use crate::update::RecordKey;

/// `SplitMix64`: small, and the same everywhere.
struct SimRng(u64);

impl SimRng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

/// How hostile, in percent.
#[derive(Clone, Copy, Debug)]
struct Hostility {
    nack: u64,
    unroutable: u64,
    disconnect: u64,
    /// Of what is unconfirmed at a disconnect: what had arrived all the same.
    arrived_unconfirmed: u64,
}

struct World {
    chance: SimRng,
    hostility: Hostility,
    limits: OutboxLimits,
    outbox: Outbox,
    now: Tick,
    flying: Vec<InFlight>,
    stale: Vec<(RecordKey, PublishId)>,
    /// What the queue got: record key and sequence.
    queue: Vec<(String, u64)>,
    receipts: BTreeMap<SubmissionId, PublishResult>,
    published: HashMap<(String, u64), u32>,
}

impl World {
    fn new(seed: u64, hostility: Hostility, limits: &OutboxLimits) -> Self {
        let schedule = Schedule::new(vec![Duration::from_millis(10), Duration::from_millis(50)], 0.5);
        Self {
            chance: SimRng(seed),
            hostility,
            limits: limits.clone(),
            outbox: Outbox::new(limits.clone(), schedule),
            now: Tick::ZERO,
            flying: Vec::new(),
            stale: Vec::new(),
            queue: Vec::new(),
            receipts: BTreeMap::new(),
            published: HashMap::new(),
        }
    }

    fn update(record: u64, sequence: u64) -> Outgoing {
        Outgoing {
            record_key: RecordKey::new(format!("record-{record}")).unwrap(),
            id: ShortText::new(sequence.to_string()).unwrap(),
            update_type: None,
            content_type: None,
            content_encoding: None,
            published_at: 0,
            headers: Vec::new(),
            body: Bytes::from_static(b"0123456789"),
        }
    }

    fn name(in_flight: &InFlight) -> (String, u64) {
        (in_flight.outgoing.record_key.as_str().to_owned(), in_flight.outgoing.id.as_str().parse().unwrap())
    }

    /// Publishes all that the outbox asks for, and checks what it may ask for.
    fn publish(&mut self, submission_ids: &HashMap<(String, u64), SubmissionId>) {
        while let Some(PublishReceipt { submission_id, result }) = self.outbox.next_receipt() {
            assert!(self.receipts.insert(submission_id, result).is_none(), "two receipts for one update");
        }
        while let Some(in_flight) = self.outbox.publish_next() {
            let (record, sequence) = Self::name(&in_flight);
            assert!(
                self.flying.iter().all(|other| other.outgoing.record_key != in_flight.outgoing.record_key),
                "two unconfirmed updates of {record}"
            );
            for earlier in 0..sequence {
                let result = self.receipts.get(&submission_ids[&(record.clone(), earlier)]);
                assert_eq!(
                    result,
                    Some(&PublishResult::Confirmed),
                    "{record}: {sequence} is published before {earlier} is there"
                );
            }
            let times = self.published.entry((record, sequence)).or_default();
            assert_eq!(in_flight.again, *times > 0);
            *times += 1;
            self.flying.push(in_flight);
            assert!(self.flying.len() <= self.limits.in_flight_max, "the window is exceeded");
        }
    }

    /// The broker does one thing.
    fn act(&mut self) {
        if self.chance.percent(self.hostility.disconnect) {
            for in_flight in std::mem::take(&mut self.flying) {
                if self.chance.percent(self.hostility.arrived_unconfirmed) {
                    self.queue.push(Self::name(&in_flight));
                }
                self.stale.push((in_flight.outgoing.record_key.clone(), in_flight.id));
            }
            self.outbox.disconnected();
        } else if !self.flying.is_empty() {
            let index = usize::try_from(self.chance.below(self.flying.len() as u64)).unwrap();
            let in_flight = self.flying.swap_remove(index);
            let record_key = &in_flight.outgoing.record_key;
            if self.chance.percent(self.hostility.nack) {
                // A nacked message may be in some of the queues.
                if self.chance.percent(self.hostility.arrived_unconfirmed) {
                    self.queue.push(Self::name(&in_flight));
                }
                self.outbox.refused(record_key, in_flight.id, Refusal::Nacked, self.now);
            } else if self.chance.percent(self.hostility.unroutable) {
                self.outbox.refused(record_key, in_flight.id, Refusal::Unroutable, self.now);
            } else {
                self.queue.push(Self::name(&in_flight));
                self.outbox.confirmed(record_key, in_flight.id);
            }
            self.stale.push((in_flight.outgoing.record_key.clone(), in_flight.id));
        }
        if !self.stale.is_empty() && self.chance.percent(5) {
            let index = usize::try_from(self.chance.below(self.stale.len() as u64)).unwrap();
            let (record_key, in_flight) = &self.stale[index];
            self.outbox.confirmed(record_key, *in_flight);
        }
    }

    fn run(&mut self, updates: u64, records: u64, stop_after: Option<u64>) {
        let mut submission_ids: HashMap<(String, u64), SubmissionId> = HashMap::new();
        let mut sequences: HashMap<u64, u64> = HashMap::new();
        let mut steps = 0_u64;
        loop {
            steps += 1;
            assert!(steps < 1_000_000, "it does not end");
            while (submission_ids.len() as u64) < updates
                && self.outbox.room() > 0
                && !self.outbox.is_stopped()
            {
                let record = self.chance.below(records);
                let sequence = sequences.entry(record).or_default();
                let outgoing = Self::update(record, *sequence);
                let submission_id = SubmissionId(submission_ids.len() as u64);
                submission_ids.insert((outgoing.record_key.as_str().to_owned(), *sequence), submission_id);
                *sequence += 1;
                self.outbox.push(submission_id, Arc::new(outgoing));
                assert!(self.outbox.load().1 <= self.limits.held_max, "too many are held");
                if self.chance.percent(30) {
                    break;
                }
            }
            self.publish(&submission_ids);
            assert_eq!(self.outbox.load().0, self.flying.len());
            let all_read = submission_ids.len() as u64 == updates || self.outbox.is_stopped();
            if all_read && self.outbox.is_empty() {
                break;
            }
            if stop_after == Some(steps) {
                self.outbox.end();
                self.flying.clear();
                continue;
            }
            self.act();
            if self.flying.is_empty()
                && let Some(deadline) = self.outbox.next_deadline()
            {
                self.now = self.now.max(deadline);
            } else {
                self.now = self.now.after(Duration::from_millis(self.chance.below(5)));
            }
            self.outbox.wake(self.now);
        }
        self.judge(&submission_ids);
    }

    /// By what the queue got.
    fn judge(&self, submission_ids: &HashMap<(String, u64), SubmissionId>) {
        let mut first_seen: HashMap<&str, u64> = HashMap::new();
        let mut last_seen: HashMap<&str, u64> = HashMap::new();
        let mut seen: HashSet<(&str, u64)> = HashSet::new();
        for (record, sequence) in &self.queue {
            let next = first_seen.entry(record).or_default();
            if seen.insert((record, *sequence)) {
                assert_eq!(sequence, next, "{record}: first occurrences are in order, without gaps");
                *next += 1;
            }
            let last = last_seen.entry(record).or_default();
            assert!(sequence >= last, "{record}: {sequence} came again after {last}");
            *last = *sequence;
        }
        assert_eq!(self.receipts.len(), submission_ids.len(), "every update has its receipt");
        let by_name: BTreeMap<_, _> = submission_ids.iter().collect();
        for ((record, sequence), submission_id) in by_name {
            let there = seen.contains(&(record, *sequence));
            match self.receipts[submission_id] {
                PublishResult::Confirmed => assert!(there, "{record} {sequence} is confirmed, but not there"),
                PublishResult::NotConfirmed(NotConfirmedReason::Behind) => {
                    let published = self.published.contains_key(&(record.clone(), *sequence));
                    assert!(!there && !published, "{record} {sequence} overtook a record that was given up");
                }
                PublishResult::NotConfirmed(_) => {}
            }
        }
    }
}

fn hostility() -> impl Strategy<Value = Hostility> {
    (0_u64..60, 0_u64..40, 0_u64..15, 0_u64..=100).prop_map(
        |(nack, unroutable, disconnect, arrived_unconfirmed)| Hostility {
            nack,
            unroutable,
            disconnect,
            arrived_unconfirmed,
        },
    )
}

fn limits() -> impl Strategy<Value = OutboxLimits> {
    (1_usize..8, 1_usize..5, 20_usize..400, prop::option::of(0_u64..200), 0_usize..5).prop_map(
        |(window, ahead, held_bytes_max, give_up_after, abandoned_max)| OutboxLimits {
            in_flight_max: window,
            held_max: window * ahead,
            held_bytes_max,
            give_up_after: give_up_after.map(Duration::from_millis),
            abandoned_max,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn order_holds_and_nothing_confirmed_is_missing(
        seed in any::<u64>(),
        hostility in hostility(),
        limits in limits(),
        records in 1_u64..10,
        stop_after in prop::option::weighted(0.2, 1_u64..100),
    ) {
        World::new(seed, hostility, &limits).run(60, records, stop_after);
    }
}

/// The longest run, with everything going wrong often and no giving up: all must arrive.
#[test]
fn everything_arrives_where_nothing_is_given_up() {
    let limits = OutboxLimits {
        in_flight_max: 10,
        held_max: 100,
        held_bytes_max: 10_000,
        give_up_after: None,
        abandoned_max: 0,
    };
    let hostility = Hostility { nack: 30, unroutable: 10, disconnect: 5, arrived_unconfirmed: 50 };
    for seed in 0..20 {
        let mut world = World::new(seed, hostility, &limits);
        world.run(2_000, 30, None);
        assert!(world.receipts.values().all(|result| *result == PublishResult::Confirmed));
    }
}
