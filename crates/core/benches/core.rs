//! How many events a partition's core takes in a second, at one lane to a million. `cargo bench --bench core`.
//!
//! One cycle is the life of an update: it is received, its attempt ends, it is recorded; each is an event, and the effects
//! are taken out. As many lanes are there all the time as the line says, each with an update; 32 attempts are out.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a benchmark has a clock, and prints"
)]

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_core::message::{DeliveryTag, Effect, Event, Tenure, TenureNumber};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

const LANES: [usize; 4] = [1, 100, 10_000, 1_000_000];
const CYCLES: usize = 500_000;
const EVENTS_PER_CYCLE: usize = 3;
const REPEATS: usize = 5;
const IN_FLIGHT_MAX: usize = 32;
const BODY: &[u8] = &[b'x'; 1024];

fn main() {
    // `cargo bench` passes options of its own; `cargo test` would only want to know that it runs.
    let cycles = if std::env::args().any(|argument| argument == "--bench") { CYCLES } else { 100 };
    for lanes in LANES {
        let mut costs: Vec<f64> = (0..REPEATS).map(|_| nanoseconds_per_event(lanes, cycles)).collect();
        costs.sort_by(f64::total_cmp);
        let (median, min, max) = (costs[REPEATS / 2], costs[0], costs[REPEATS - 1]);
        let rate = 1e9 / median;
        println!(
            "core {lanes} lanes {rate:.0} events/s, {median:.0} ns an event ({min:.0} {max:.0} {REPEATS})"
        );
    }
}

fn nanoseconds_per_event(lanes: usize, cycles: usize) -> f64 {
    let (mut partition, tenure) = (partition(lanes), Tenure(1));
    let mut updates =
        (0..lanes + cycles).map(|number| update(number % lanes, number)).collect::<VecDeque<_>>();
    partition.handle(Tick::ZERO, Event::TenureBegan(tenure));
    partition.handle(Tick::ZERO, Event::LeaseRenewed { until: Tick::ZERO.after(Duration::from_secs(3600)) });
    let mut tags = (1..).map(DeliveryTag);
    let mut receive = |partition: &mut Partition, update, now| {
        let delivery = tags.next().expect("there are enough numbers");
        partition.handle(now, Event::Received { tenure, delivery, redelivered: false, update });
    };
    for update in updates.drain(..lanes) {
        receive(&mut partition, update, Tick::ZERO);
    }
    let mut in_flight = VecDeque::new();
    let (mut settled, mut begun) = (0, Instant::now());
    let mut now = 0;
    while settled < cycles {
        now += 1;
        let tick = Tick::from_micros(now);
        match partition.poll_effect() {
            Some(Effect::Claim { tenure }) => {
                let number = Some(TenureNumber(1));
                partition
                    .handle(tick, Event::Claimed { tenure, number, rival_claim: None, wait_until: None });
                begun = Instant::now();
            }
            Some(Effect::Attempt { attempt, update, .. }) => in_flight.push_back((attempt, update)),
            Some(Effect::Record { tenure, holder, update, .. }) => {
                let record_key = update.map(|update| update.record_key.clone());
                partition.handle(tick, Event::Recorded { tenure, holder, record_key });
            }
            Some(Effect::Settle { .. }) => {
                settled += 1;
                receive(&mut partition, updates.pop_front().expect("one for each cycle"), tick);
            }
            Some(effect) => panic!("not in this life: {effect:?}"),
            None => {
                let (attempt, update) = in_flight.pop_front().expect("attempts are out");
                let record_key = update.record_key.clone();
                partition
                    .handle(tick, Event::AttemptEnded { attempt, record_key, outcome: Outcome::Applied });
            }
        }
    }
    begun.elapsed().as_secs_f64() * 1e9 / (cycles * EVENTS_PER_CYCLE) as f64
}

fn partition(lanes: usize) -> Partition {
    let policy = Policy {
        schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::ZERO,
        failure: FailurePolicies::all(FailurePolicy::DeadLetter),
        failure_of_targets: Vec::new(),
    };
    let number = |number| NonZeroUsize::new(number).expect("it is not zero");
    let limits = Limits { in_flight_max: number(IN_FLIGHT_MAX), window: number(lanes + 1) };
    Partition::new(limits, Arc::new(policy))
}

fn update(record: usize, number: usize) -> Arc<Update> {
    Arc::new(Update {
        record_key: RecordKey::new(format!("record-{record:07}")).expect("it is short"),
        id: UpdateId::published(format!("update-{number}")),
        target: TargetId(0),
        update_type: None,
        version: None,
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: bytes::Bytes::from_static(BODY),
    })
}
