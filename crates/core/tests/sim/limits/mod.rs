//! A world of its own: one process with several partitions, and a target that has limits and outages. Permits are asked for,
//! granted, returned and lost; what the target refuses for all costs nobody's budget, and what it refuses one record alone
//! ends that record's update and slows no other.

mod api;
mod budget;
mod judge;
mod why;

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::applied_lately::AppliedLately;
use lanekeeper_core::message::{AttemptId, DeliveryTag, Effect, Event, Tenure, TenureNumber};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::pacing::{Asker, Pacer, PacerLimits, Quota, Rate, Refusal, Reply, RequestEnd};
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::policy::{
    DeadLetterReason, FailurePolicies, FailurePolicy, ParkReason, Policy, Resolution,
};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

use self::api::Api;
use self::judge::LimitsJudge;
use self::why::Questions;
use crate::rng::Rng;
use crate::runner::{found_by, number_from_env};
use crate::waits::CausesMet;

const SEEDS: u64 = 1000;
const TARGET: TargetId = TargetId(0);
const WINDOW: usize = 40;
const ELAPSED_MAX: Duration = Duration::from_secs(20);
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(2);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Everything ends by then, or never will.
const LAST: Duration = Duration::from_secs(20_000);

#[derive(Debug)]
enum LimitsEvent {
    Published {
        update: usize,
    },
    Ended {
        partition: usize,
        attempt: AttemptId,
        update: usize,
        permit: bool,
        began: Tick,
        outcome: Outcome,
    },
    /// The partition's deadline, or that of the pacer.
    Due,
    /// The partition loses its channel, and gets another one.
    Lost {
        partition: usize,
    },
    Attached {
        partition: usize,
    },
}

/// One partition and its driver.
struct Lanes {
    limits: Limits,
    core: Partition,
    tenure: Option<Tenure>,
    tenures: u64,
    /// At the broker, oldest first.
    queue: VecDeque<usize>,
    /// Handed over and not settled.
    held: BTreeMap<DeliveryTag, usize>,
    deliveries: u64,
    /// Were handed over before.
    redelivered: usize,
    paced: bool,
    /// Permits that were asked for and have not come, those that have come, and those of them that are in use.
    asked: usize,
    permits: usize,
    used: usize,
    /// Requests that have not ended, those of earlier channels included.
    out: usize,
}

pub struct World {
    rng: Rng,
    now: Tick,
    events: BTreeMap<(Tick, u64), LimitsEvent>,
    events_made: u64,
    partitions: Vec<Lanes>,
    updates: Vec<Arc<Update>>,
    records: u64,
    pacer: Pacer,
    applied: AppliedLately,
    published_last: Tick,
    limits: PacerLimits,
    api: Api,
    latency: u64,
    judge: LimitsJudge,
    questions: Questions,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let records = rng.between(2, 20);
        let count = usize::try_from(rng.between(50, 300)).expect("a number of updates");
        let api = Api::new(&mut rng, records);
        let rate = |rng: &mut Rng| Rate {
            requests: NonZeroU32::new(u32::try_from(rng.between(5, 100)).expect("small")).expect("not zero"),
            per: Duration::from_secs(1),
        };
        let limits = PacerLimits {
            rate_max: rng.chance(200).then(|| rate(&mut rng)),
            in_flight_max: rng.chance(200).then(|| NonZeroUsize::new(rng.index(4) + 1).expect("not zero")),
        };
        let in_flight_max = NonZeroUsize::new(rng.pick(&[1, 2, 4, 8])).expect("not zero");
        let policy = Arc::new(Policy {
            schedule: Schedule::new(vec![WAIT_FIRST, WAIT_MAX], 0.0),
            attempts_max: None,
            elapsed_max: Some(ELAPSED_MAX),
            retry_after_max: RETRY_AFTER_MAX,
            failure: FailurePolicies::all(FailurePolicy::Park),
            failure_of_targets: Vec::new(),
        });
        let window = NonZeroUsize::new(WINDOW).expect("not zero");
        let limits_of_partitions = Limits { in_flight_max, window };
        let lanes = || Lanes {
            limits: limits_of_partitions,
            core: Partition::new(limits_of_partitions, Arc::clone(&policy)),
            tenure: None,
            tenures: 0,
            queue: VecDeque::new(),
            held: BTreeMap::new(),
            deliveries: 0,
            redelivered: 0,
            paced: false,
            asked: 0,
            permits: 0,
            used: 0,
            out: 0,
        };
        let partitions: Vec<Lanes> = (0..rng.between(1, 3)).map(|_| lanes()).collect();
        let updates: Vec<Arc<Update>> = (0..count).map(|number| update(number, rng.below(records))).collect();
        let strict = in_flight_max.get() == 1;
        let (events, pacer, latency) = (BTreeMap::new(), Pacer::new(limits), rng.pick(&[1, 5, 50]));
        let room = Duration::from_millis(WINDOW as u64 * latency / in_flight_max.get() as u64);
        let judge = LimitsJudge::new(&updates, partitions.len(), strict, room);
        let mut world = Self {
            now: Tick::ZERO,
            events,
            events_made: 0,
            partitions,
            questions: Questions::new(seed, updates.len()),
            updates,
            records,
            pacer,
            applied: AppliedLately::default(),
            published_last: Tick::ZERO,
            limits,
            api,
            latency,
            judge,
            trace: Vec::new(),
            rng,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let within = self.rng.pick(&[10, 2_000, 30_000, 100_000]);
        let mut moments: Vec<u64> = (0..self.updates.len()).map(|_| self.rng.below(within)).collect();
        moments.sort_unstable();
        for (update, moment) in moments.into_iter().enumerate() {
            self.published_last = self.now.after(Duration::from_millis(moment));
            self.at(moment, LimitsEvent::Published { update });
        }
        for partition in 0..self.partitions.len() {
            self.at(0, LimitsEvent::Attached { partition });
        }
        for _ in 0..self.rng.pick(&[0, 0, 3, 8]) {
            let (partition, moment) = (self.rng.index(self.partitions.len()), self.rng.below(60_000));
            self.at(moment, LimitsEvent::Lost { partition });
        }
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.push(format!("{:>12} {what}", self.now.micros()));
    }

    fn at(&mut self, after_ms: u64, event: LimitsEvent) {
        self.events_made += 1;
        let at = self.now.after(Duration::from_millis(after_ms));
        self.events.insert((at, self.events_made), event);
    }

    fn run(&mut self) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            assert!(at.since(Tick::ZERO) < LAST, "judge (liveness): {}", self.judge.unresolved());
            self.now = at;
            self.judge.step();
            self.happen(event);
            self.settle_pacer();
            for partition in 0..self.partitions.len() {
                self.partitions[partition].core.wake(self.now);
                self.follow_up(partition);
                self.judge_permits(partition);
            }
            self.ask_why();
            self.set_timer();
        }
        self.judge.ended();
        if self.api.refuses_by_chance_alone() && self.limits == PacerLimits::default() {
            self.judge.judge_speed(self.published_last);
        }
        let permits: usize = self.partitions.iter().map(|lanes| lanes.permits).sum();
        assert_eq!(permits, 0, "judge (permits): some are never given back");
        if self.api.refuses_one_record_alone() && self.limits == PacerLimits::default() {
            assert!(!self.pacer.is_in_force(), "judge (pacing): the refusals of one record slow all others");
        }
    }

    /// At most one is kept, for a lane that waits for room; and none, nor a request for one, without a tenure.
    fn judge_permits(&self, partition: usize) {
        let Lanes { tenure, asked, permits, used, .. } = &self.partitions[partition];
        let (unused, may) = (permits - used, usize::from(tenure.is_some()));
        assert!(unused <= may, "judge (permits): p{partition} keeps {unused} permits that it does not use");
        assert!(
            tenure.is_some() || *asked == 0,
            "judge (permits): p{partition} waits for {asked} without a tenure"
        );
    }

    fn happen(&mut self, event: LimitsEvent) {
        match event {
            LimitsEvent::Published { update } => {
                let partition = self.judge.partition_of(update);
                self.partitions[partition].queue.push_back(update);
                self.deliver(partition);
            }
            LimitsEvent::Ended { partition, attempt, update, permit, began, outcome } => {
                self.attempt_ended((partition, attempt), update, permit, began, outcome);
            }
            LimitsEvent::Due => {}
            LimitsEvent::Lost { partition } => {
                let lanes = &mut self.partitions[partition];
                let Some(tenure) = lanes.tenure.take() else { return };
                self.trace.push(format!("{:>12} p{partition} lost", self.now.micros()));
                lanes.redelivered = lanes.held.len();
                for update in std::mem::take(&mut lanes.held).into_values().rev() {
                    lanes.queue.push_front(update);
                }
                self.judge.tenure_ended(partition);
                self.handle(partition, Event::TenureEnded(tenure));
                let wait = self.rng.between(1, 500);
                self.at(wait, LimitsEvent::Attached { partition });
            }
            LimitsEvent::Attached { partition } => {
                let lanes = &mut self.partitions[partition];
                lanes.tenures += 1;
                let tenure = Tenure(lanes.tenures);
                lanes.tenure = Some(tenure);
                self.handle(partition, Event::TenureBegan(tenure));
                self.handle(partition, Event::LeaseRenewed { until: Tick::ZERO.after(2 * LAST) });
                self.deliver(partition);
            }
        }
    }

    fn deliver(&mut self, partition: usize) {
        loop {
            let lanes = &mut self.partitions[partition];
            let (Some(tenure), true) = (lanes.tenure, lanes.held.len() < WINDOW) else { return };
            let Some(number) = lanes.queue.pop_front() else { return };
            lanes.deliveries += 1;
            let delivery = DeliveryTag(lanes.deliveries);
            let redelivered = lanes.redelivered > 0;
            lanes.redelivered = lanes.redelivered.saturating_sub(1);
            lanes.held.insert(delivery, number);
            self.judge.delivered(partition, number, lanes.deliveries);
            let update = Arc::clone(&self.updates[number]);
            self.handle(partition, Event::Received { tenure, delivery, redelivered, update });
        }
    }

    fn handle(&mut self, partition: usize, event: Event) {
        self.partitions[partition].core.handle(self.now, event);
        self.follow_up(partition);
    }

    fn follow_up(&mut self, partition: usize) {
        while let Some(effect) = self.partitions[partition].core.poll_effect() {
            self.perform(partition, effect);
        }
    }

    fn perform(&mut self, partition: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Attempt { attempt, number, update, permit, .. } => {
                let update = number_of(&update);
                self.partitions[partition].used += usize::from(permit);
                self.partitions[partition].out += 1;
                self.note_attempt(partition, update, number);
                self.judge.sent(now, partition, update, (number, permit));
                let outcome = self.api.answer(now, self.judge.record_of(update), &mut self.rng);
                let record = self.judge.record_of(update);
                self.note(format_args!(
                    "p{partition} attempt {number} of #{update} of r{record}, permit {permit}: {outcome:?}"
                ));
                let takes = self.rng.between(1, self.latency);
                let began = now;
                self.at(takes, LimitsEvent::Ended { partition, attempt, update, permit, began, outcome });
            }
            Effect::Claim { tenure } => {
                let number = Some(TenureNumber(tenure.0));
                self.handle(
                    partition,
                    Event::Claimed { tenure, number, rival_claim: None, wait_until: None },
                );
            }
            Effect::Record { tenure, holder, update, resolution } => {
                let update = update.expect("nothing is malformed");
                let parked = match resolution {
                    Resolution::Applied | Resolution::Duplicate => (false, false),
                    Resolution::Parked(ParkReason::Failed { reason, .. }) => {
                        (true, matches!(reason, DeadLetterReason::Rejected(_)))
                    }
                    other => panic!("judge (resolution): {other:?}"),
                };
                self.judge.resolved(now, number_of(&update), parked, self.api.stuck_record());
                let record_key = Some(update.record_key.clone());
                self.handle(partition, Event::Recorded { tenure, holder, record_key });
            }
            Effect::Settle { delivery, .. } => {
                self.partitions[partition].held.remove(&delivery);
                self.deliver(partition);
            }
            Effect::AskPermits { permits, .. } => {
                self.note(format_args!("p{partition} asks for {permits}"));
                self.partitions[partition].asked += permits;
                self.pacer.ask(Asker(partition as u64), permits);
            }
            Effect::WithdrawPermits(_) => {
                self.note(format_args!("p{partition} withdraws"));
                self.partitions[partition].asked = 0;
                self.pacer.withdraw(Asker(partition as u64));
            }
            Effect::ReturnPermits { permits, .. } => {
                self.partitions[partition].permits -= permits;
                self.pacer.returned(now, permits);
            }
            Effect::ClaimEnded { .. } => {}
            other => panic!("judge (effect): nothing here asks for {other:?}"),
        }
    }

    fn attempt_ended(
        &mut self,
        (partition, attempt): (usize, AttemptId),
        update: usize,
        permit: bool,
        began: Tick,
        outcome: Outcome,
    ) {
        let record_key = self.updates[update].record_key.clone();
        self.partitions[partition].permits -= usize::from(permit);
        self.partitions[partition].used -= usize::from(permit);
        self.partitions[partition].out -= 1;
        let (reply, quota) = (Reply::of(&outcome), Quota::default());
        let end = RequestEnd { record_key: &record_key, began, permit, reply, quota };
        let refusal = self.pacer.ended(self.now, &end);
        self.judge.attempt_ended((self.now, began), update, &outcome, refusal);
        self.note(format_args!("p{partition} the attempt of #{update} ended: {refusal:?}"));
        if outcome == Outcome::Applied {
            self.applied.applied(&record_key, began);
        }
        let outcome = match refusal {
            Refusal::OfTarget => outcome.throttled(),
            Refusal::None | Refusal::OfRecord => outcome.beside(self.applied.by_others(&record_key)),
        };
        self.note_end(update, &outcome);
        self.settle_pacer();
        self.handle(partition, Event::AttemptEnded { attempt, record_key, outcome });
    }

    /// All learn if permits are needed, and get those that may be used now.
    fn settle_pacer(&mut self) {
        loop {
            let granted = self.pacer.grant(self.now);
            let in_force = self.pacer.is_in_force();
            for partition in 0..self.partitions.len() {
                if std::mem::replace(&mut self.partitions[partition].paced, in_force) != in_force {
                    let paced = if in_force { Event::TargetPaced } else { Event::TargetUnpaced };
                    self.handle(partition, paced(TARGET));
                }
            }
            if granted.is_empty() {
                break;
            }
            for (Asker(partition), permits) in granted {
                let partition = usize::try_from(partition).expect("a small number");
                self.note(format_args!("p{partition} has {permits} more permits"));
                let lanes = &mut self.partitions[partition];
                (lanes.permits, lanes.asked) = (lanes.permits + permits, lanes.asked.saturating_sub(permits));
                let out: usize = self.partitions.iter().map(|lanes| lanes.permits).sum();
                let most = self.limits.in_flight_max.map_or(usize::MAX, NonZeroUsize::get);
                assert!(out <= most, "judge (bounds, I6): {out} permits of {most} are out");
                self.handle(partition, Event::PermitsGranted { target: TARGET, permits });
            }
        }
    }

    fn set_timer(&mut self) {
        let deadlines = self.partitions.iter().filter_map(|lanes| lanes.core.next_deadline());
        let Some(next) = deadlines.chain(self.pacer.next_grant_at()).min() else { return };
        let next = next.max(Tick::from_micros(self.now.micros() + 1));
        if self.events.first_key_value().is_none_or(|((at, _), _)| next < *at) {
            self.events_made += 1;
            self.events.insert((next, self.events_made), LimitsEvent::Due);
        }
    }
}

fn update(number: usize, record: u64) -> Arc<Update> {
    Arc::new(Update {
        record_key: RecordKey::new(format!("r{record}")).expect("it is short"),
        id: UpdateId::published(number.to_string()),
        target: TARGET,
        update_type: None,
        version: None,
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: Some(number as u64),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
    })
}

fn number_of(update: &Update) -> usize {
    update.id.as_str().parse().expect("ids are numbers")
}

#[test]
fn limits_and_outages_park_nothing_and_one_records_refusal_ends_it_alone() {
    if let Some(seed) = number_from_env("LANEKEEPER_SIM_LIMIT") {
        let mut world = World::new(seed);
        let found = found_by(|| world.run());
        println!("{}\n{found:?}", world.trace.join("\n"));
        return;
    }
    let seeds = number_from_env("LANEKEEPER_SIM_LIMITS").unwrap_or(SEEDS);
    let (mut permits, mut parked, mut for_refusals, mut refused, mut lost) = (0, 0, 0, 0, 0);
    let mut causes = CausesMet::default();
    for seed in 0..seeds {
        let mut world = World::new(seed);
        if let Some(found) = found_by(|| world.run()) {
            let tail = &world.trace[world.trace.len().saturating_sub(60)..];
            panic!(
                "the last lines of limits seed {seed}:\n{}\nsimulation: seed {seed}, number {}, found by {found}\n\
                 repeat with: LANEKEEPER_SIM_LIMIT={seed} cargo test --test sim -- --nocapture limits_and",
                tail.join("\n"),
                seed + 1
            );
        }
        causes.add(&world.questions.met);
        permits += world.judge.with_permit;
        parked += world.judge.parked;
        for_refusals += world.judge.parked_for_refusals;
        refused += world.judge.refused;
        lost += world.partitions.iter().map(|lanes| lanes.tenures - 1).sum::<u64>();
    }
    println!(
        "{seeds} worlds: {permits} attempts with a permit, {refused} refused, {parked} updates parked, {for_refusals} of them for 403, {lost} channels lost"
    );
    assert!(permits > 20 * seeds && refused > seeds && parked > seeds / 10 && lost > seeds, "a quiet world");
    assert!(for_refusals > seeds / 20, "a quiet world");
    println!("asked: {causes:?}");
    causes.check(&["in_flight", "retry", "refused", "limit", "room", "strict"], seeds / 5);
}
