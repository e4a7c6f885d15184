//! The outbox against a hostile model broker: judged by what the model's queue got.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::outbox::{Fate, Flight, FlightId, Limits, Outbox, Reason, Receipt, Refusal, Ticket};
use super::outgoing::{Outgoing, ShortText};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

/// `SplitMix64`: small, and the same everywhere.
struct Chance(u64);

impl Chance {
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
    chance: Chance,
    hostility: Hostility,
    limits: Limits,
    outbox: Outbox,
    now: Tick,
    flying: Vec<Flight>,
    stale: Vec<(RecordKey, FlightId)>,
    /// What the queue got: record key and sequence.
    queue: Vec<(String, u64)>,
    receipts: BTreeMap<Ticket, Fate>,
    published: HashMap<(String, u64), u32>,
}

impl World {
    fn new(seed: u64, hostility: Hostility, limits: &Limits) -> Self {
        let schedule = Schedule::new(vec![Duration::from_millis(10), Duration::from_millis(50)], 0.5);
        Self {
            chance: Chance(seed),
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
            published_at: 0,
            headers: Vec::new(),
            body: Bytes::from_static(b"0123456789"),
        }
    }

    fn name(flight: &Flight) -> (String, u64) {
        (flight.outgoing.record_key.as_str().to_owned(), flight.outgoing.id.as_str().parse().unwrap())
    }

    /// Publishes all that the outbox asks for, and checks what it may ask for.
    fn publish(&mut self, tickets: &HashMap<(String, u64), Ticket>) {
        while let Some(Receipt { ticket, fate }) = self.outbox.next_receipt() {
            assert!(self.receipts.insert(ticket, fate).is_none(), "two receipts for one update");
        }
        while let Some(flight) = self.outbox.publish_next() {
            let (record, sequence) = Self::name(&flight);
            assert!(
                self.flying.iter().all(|other| other.outgoing.record_key != flight.outgoing.record_key),
                "two unconfirmed updates of {record}"
            );
            for earlier in 0..sequence {
                let fate = self.receipts.get(&tickets[&(record.clone(), earlier)]);
                assert_eq!(
                    fate,
                    Some(&Fate::Confirmed),
                    "{record}: {sequence} is published before {earlier} is there"
                );
            }
            let times = self.published.entry((record, sequence)).or_default();
            assert_eq!(flight.again, *times > 0);
            *times += 1;
            self.flying.push(flight);
            assert!(self.flying.len() <= self.limits.in_flight_max, "the window is exceeded");
        }
    }

    /// The broker does one thing.
    fn act(&mut self) {
        if self.chance.percent(self.hostility.disconnect) {
            for flight in std::mem::take(&mut self.flying) {
                if self.chance.percent(self.hostility.arrived_unconfirmed) {
                    self.queue.push(Self::name(&flight));
                }
                self.stale.push((flight.outgoing.record_key.clone(), flight.id));
            }
            self.outbox.disconnected();
        } else if !self.flying.is_empty() {
            let index = usize::try_from(self.chance.below(self.flying.len() as u64)).unwrap();
            let flight = self.flying.swap_remove(index);
            let record_key = &flight.outgoing.record_key;
            if self.chance.percent(self.hostility.nack) {
                // A nacked message may be in some of the queues.
                if self.chance.percent(self.hostility.arrived_unconfirmed) {
                    self.queue.push(Self::name(&flight));
                }
                self.outbox.refused(record_key, flight.id, Refusal::Nacked, self.now);
            } else if self.chance.percent(self.hostility.unroutable) {
                self.outbox.refused(record_key, flight.id, Refusal::Unroutable, self.now);
            } else {
                self.queue.push(Self::name(&flight));
                self.outbox.confirmed(record_key, flight.id);
            }
            self.stale.push((flight.outgoing.record_key.clone(), flight.id));
        }
        if !self.stale.is_empty() && self.chance.percent(5) {
            let index = usize::try_from(self.chance.below(self.stale.len() as u64)).unwrap();
            let (record_key, flight) = &self.stale[index];
            self.outbox.confirmed(record_key, *flight);
        }
    }

    fn run(&mut self, updates: u64, records: u64, stop_after: Option<u64>) {
        let mut tickets: HashMap<(String, u64), Ticket> = HashMap::new();
        let mut sequences: HashMap<u64, u64> = HashMap::new();
        let mut steps = 0_u64;
        loop {
            steps += 1;
            assert!(steps < 1_000_000, "it does not end");
            while (tickets.len() as u64) < updates && self.outbox.room() > 0 && !self.outbox.is_stopped() {
                let record = self.chance.below(records);
                let sequence = sequences.entry(record).or_default();
                let outgoing = Self::update(record, *sequence);
                let ticket = Ticket(tickets.len() as u64);
                tickets.insert((outgoing.record_key.as_str().to_owned(), *sequence), ticket);
                *sequence += 1;
                self.outbox.push(ticket, Arc::new(outgoing));
                assert!(self.outbox.load().1 <= self.limits.held_max, "too many are held");
                if self.chance.percent(30) {
                    break;
                }
            }
            self.publish(&tickets);
            assert_eq!(self.outbox.load().0, self.flying.len());
            let all_read = tickets.len() as u64 == updates || self.outbox.is_stopped();
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
        self.judge(&tickets);
    }

    /// By what the queue got.
    fn judge(&self, tickets: &HashMap<(String, u64), Ticket>) {
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
        assert_eq!(self.receipts.len(), tickets.len(), "every update has its receipt");
        for ((record, sequence), ticket) in tickets {
            let there = seen.contains(&(record, *sequence));
            match self.receipts[ticket] {
                Fate::Confirmed => assert!(there, "{record} {sequence} is confirmed, but not there"),
                Fate::NotConfirmed(Reason::Behind) => {
                    let published = self.published.contains_key(&(record.clone(), *sequence));
                    assert!(!there && !published, "{record} {sequence} overtook a record that was given up");
                }
                Fate::NotConfirmed(_) => {}
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

fn limits() -> impl Strategy<Value = Limits> {
    (1_usize..8, 1_usize..5, 20_usize..400, prop::option::of(0_u64..200), 0_usize..5).prop_map(
        |(window, ahead, held_bytes_max, give_up_after, abandoned_max)| Limits {
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
    let limits = Limits {
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
        assert!(world.receipts.values().all(|fate| *fate == Fate::Confirmed));
    }
}
