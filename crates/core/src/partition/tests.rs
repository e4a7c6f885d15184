//! What the simulation is too coarse for: small histories, written out.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::message::ParkedSeq;
use crate::outcome::{Cause, Failure, Known};
use crate::policy::{FailurePolicies, FailurePolicy};
use crate::routes::TargetId;
use crate::schedule::Schedule;
use crate::update::{Update, UpdateId};

fn partition(in_flight_max: usize) -> Partition {
    let policy = Policy {
        schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::ZERO,
        failure: FailurePolicies::all(FailurePolicy::DeadLetter),
        failure_of_targets: Vec::new(),
    };
    let number = |number| NonZeroUsize::new(number).unwrap();
    let limits = Limits { in_flight_max: number(in_flight_max), window: number(9) };
    Partition::new(limits, Arc::new(policy))
}

/// With a lease that lasts.
fn begin(partition: &mut Partition, now: Tick, tenure: Tenure) {
    partition.handle(now, Event::TenureBegan(tenure));
    partition.handle(now, Event::LeaseRenewed { until: now.after(Duration::from_secs(3600)) });
}

fn update(key: &str, id: &str) -> Arc<Update> {
    Update::bare(RecordKey::new(key).unwrap(), UpdateId::published(id))
}

/// `keys`: a letter per delivery, its record. `outcomes`: a letter per attempt, A applied, R retryable; after them all
/// are applied. Attempts last no time. Answers the attempts: record and number.
fn check(in_flight_max: usize, keys: &str, outcomes: &str, expected: &str) {
    let (mut partition, tenure, mut now) = (partition(in_flight_max), Tenure(1), Tick::ZERO);
    begin(&mut partition, now, tenure);
    for (delivery, key) in (1..).map(DeliveryTag).zip(keys.split("")) {
        if !key.is_empty() {
            let update = update(key, &format!("{delivery:?}"));
            partition.handle(now, Event::Received { tenure, delivery, redelivered: false, update });
        }
    }
    let (mut outcomes, mut attempted) = (outcomes.chars(), Vec::new());
    loop {
        match partition.poll_effect() {
            Some(Effect::Claim { tenure }) => {
                let number = Some(TenureNumber(1));
                partition.handle(now, Event::Claimed { tenure, number, rival_claim: None, wait_until: None });
            }
            Some(Effect::Attempt { attempt, number, update, tenure, .. }) => {
                assert_eq!(tenure, Some(TenureNumber(1)));
                let record_key = update.record_key.clone();
                attempted.push(format!("{}{number}", record_key.as_str()));
                let failure = Failure { cause: Cause::Timeout, detail: String::new() };
                let outcome = match outcomes.next() {
                    Some('R') => Outcome::Retryable { failure, retry_after: None },
                    _ => Outcome::Applied,
                };
                partition.handle(now, Event::AttemptEnded { attempt, record_key, outcome });
            }
            Some(Effect::Record { tenure, holder, update, .. }) => {
                let record_key = update.map(|update| update.record_key.clone());
                partition.handle(now, Event::Recorded { tenure, holder, record_key });
            }
            Some(Effect::Settle { .. }) => {}
            Some(effect) => panic!("{effect:?}"),
            None => match partition.next_deadline() {
                Some(deadline) => {
                    now = deadline;
                    partition.wake(now);
                }
                None => break,
            },
        }
    }
    assert_eq!(attempted.join(" "), expected, "{keys} {outcomes:?}");
    assert_eq!(partition.view(), View::default());
}

#[test]
fn a_record_that_waits_lets_others_pass() {
    check(2, "abab", "RAA", "a1 b1 b1 a2 a1");
    check(8, "aab", "R", "a1 b1 a2 a1");
}

#[test]
fn the_lane_whose_head_came_first_is_next_and_a_retry_is_behind_what_came_before_it_was_due() {
    let next_of = |script: &str| {
        let (mut partition, tenure) = (partition(2), Tenure(1));
        let mut now = Tick::ZERO;
        begin(&mut partition, now, tenure);
        let (mut delivered, mut out, mut attempted) = (0, Vec::new(), String::new());
        for letter in script.chars() {
            match letter {
                'a'..='z' => {
                    delivered += 1;
                    let update = update(&letter.to_string(), &delivered.to_string());
                    let delivery = DeliveryTag(delivered);
                    partition.handle(now, Event::Received { tenure, delivery, redelivered: false, update });
                }
                '.' => {
                    now = now.after(Duration::from_secs(1));
                    partition.wake(now);
                }
                // The attempt that is out for longest ends, as applied or not.
                letter => {
                    let (attempt, record_key) = out.remove(0);
                    let failure = Failure { cause: Cause::Timeout, detail: String::new() };
                    let outcome = match letter {
                        '+' => Outcome::Applied,
                        _ => Outcome::Retryable { failure, retry_after: None },
                    };
                    partition.handle(now, Event::AttemptEnded { attempt, record_key, outcome });
                }
            }
            while let Some(effect) = partition.poll_effect() {
                match effect {
                    Effect::Claim { tenure } => {
                        partition.handle(
                            now,
                            Event::Claimed { tenure, number: None, rival_claim: None, wait_until: None },
                        );
                    }
                    Effect::Attempt { attempt, update, .. } => {
                        attempted.push_str(update.record_key.as_str());
                        out.push((attempt, update.record_key.clone()));
                    }
                    Effect::Record { tenure, holder, update, .. } => {
                        let record_key = update.map(|update| update.record_key.clone());
                        partition.handle(now, Event::Recorded { tenure, holder, record_key });
                    }
                    _ => {}
                }
            }
        }
        attempted
    };
    // a's second update is next when b ends: it came before d, though its lane became ready last.
    assert_eq!(next_of("abacde+++"), "abcad");
    assert_eq!(next_of("aaaabcd++++"), "abcada");
    // a failed; what came before its wait was over goes first, what came later does not.
    assert_eq!(next_of("abcd-.++++"), "abcda");
    assert_eq!(next_of("ab-cd.e++++"), "abcdae");
}

#[test]
fn in_strict_mode_nothing_passes() {
    check(1, "abab", "RR", "a1 a2 a3 b1 a1 b1");
    check(1, "aab", "ARA", "a1 a1 a2 b1");
}

/// One record. `u1`: an update with this id comes, `x`: one without an id and with this body, `<u1` comes again; `A`, `R`
/// and `P`: the attempt that is out is applied, is retryable, or is applied and its resolution is not written down before
/// `W`, or is refused by the ledger with `N`; `K`: it ends since the ledger knows that the record is parked; `^u1`: this
/// update is released; `!`: the channel is lost and attached again, `!5` after another process has claimed the partition under this number.
/// In the end all is applied. Returns what the target applied, with the number of the attempt where that is not 1.
fn applied(script: &str) -> Vec<String> {
    let mut world = OneRecord {
        core: partition(8),
        tenure: Tenure(1),
        deliveries: 0,
        ids_made: 0,
        rival_claim: None,
        out: None,
        writes: true,
        unwritten: None,
        now: 0,
        applied: Vec::new(),
    };
    world.attach();
    for step in script.split(' ') {
        match step {
            "A" => world.end(true),
            "R" => world.end(false),
            "P" => {
                world.writes = false;
                world.end(true);
                world.writes = true;
            }
            "W" => {
                let recorded = world.unwritten.take().expect("something is being written down");
                world.handle(recorded);
            }
            "N" => {
                let recorded = world.unwritten.take();
                let Some(Event::Recorded { tenure, holder, record_key: Some(record_key) }) = recorded else {
                    panic!("something is being written down: {recorded:?}")
                };
                world.handle(Event::NotRecorded { tenure, holder, record_key });
            }
            "K" => {
                let (attempt, _, update) = world.out.take().expect("an attempt is out");
                let outcome = Outcome::Known(Known::RecordParked);
                world.handle(Event::AttemptEnded { attempt, record_key: update.record_key.clone(), outcome });
            }
            released if released.starts_with('^') => {
                world.handle(Event::OwnershipHint(world.tenure));
                let update = update("r", &released[1..]);
                let (record_key, updates) = (update.record_key.clone(), vec![(ParkedSeq(1), update)]);
                world.handle(Event::Released { tenure: world.tenure, record_key, updates });
            }
            lost if lost.starts_with('!') => {
                world.rival_claim = lost[1..].parse().ok().map(TenureNumber).or(world.rival_claim);
                world.handle(Event::TenureEnded(world.tenure));
                world.tenure.0 += 1;
                world.attach();
            }
            id => world.receive(id.trim_start_matches('<'), id.starts_with('<')),
        }
    }
    while world.out.is_some() || world.core.next_deadline().is_some() {
        world.now += 2_000_000;
        world.core.wake(Tick::from_micros(world.now));
        world.perform();
        if world.out.is_some() {
            world.end(true);
        }
    }
    assert_eq!(world.core.view(), View { stale: world.core.view().stale, ..View::default() });
    world.applied
}

struct OneRecord {
    core: Partition,
    tenure: Tenure,
    deliveries: u64,
    ids_made: u32,
    /// The newest claim of another process.
    rival_claim: Option<TenureNumber>,
    /// The attempt that is out, and its number.
    out: Option<(AttemptId, u32, Arc<Update>)>,
    /// A resolution is written down at once.
    writes: bool,
    unwritten: Option<Event>,
    now: u64,
    applied: Vec<String>,
}

impl OneRecord {
    fn handle(&mut self, event: Event) {
        self.core.handle(Tick::from_micros(self.now), event);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Attempt { attempt, number, update, .. } => self.out = Some((attempt, number, update)),
                Effect::Record { tenure, holder, update, .. } => {
                    let record_key = update.map(|update| update.record_key.clone());
                    let recorded = Event::Recorded { tenure, holder, record_key };
                    if self.writes {
                        self.core.handle(Tick::from_micros(self.now), recorded);
                    } else {
                        self.unwritten = Some(recorded);
                    }
                }
                Effect::Settle { .. } => {}
                Effect::Claim { tenure } => {
                    let number = Some(TenureNumber(tenure.0));
                    let claimed =
                        Event::Claimed { tenure, number, rival_claim: self.rival_claim, wait_until: None };
                    self.core.handle(Tick::from_micros(self.now), claimed);
                }
                effect => panic!("{effect:?}"),
            }
        }
    }

    fn attach(&mut self) {
        self.deliveries = 0;
        begin(&mut self.core, Tick::from_micros(self.now), self.tenure);
    }

    /// An id of its publisher begins with `u`.
    fn receive(&mut self, text: &str, redelivered: bool) {
        self.deliveries += 1;
        let mut update = update("r", text);
        if !text.starts_with('u') {
            self.ids_made += 1;
            let of = Arc::make_mut(&mut update);
            (of.id, of.body) = (UpdateId::made(self.ids_made.to_string()), text.to_owned().into());
        }
        let (tenure, delivery) = (self.tenure, DeliveryTag(self.deliveries));
        self.handle(Event::Received { tenure, delivery, redelivered, update });
    }

    fn end(&mut self, applied: bool) {
        let (attempt, number, update) = self.out.take().expect("an attempt is out");
        let failure = Failure { cause: Cause::Timeout, detail: String::new() };
        let outcome = if applied {
            let body = if update.body.is_empty() { update.id.as_str().as_bytes() } else { &update.body };
            let body = String::from_utf8(body.to_vec()).unwrap();
            self.applied.push(if number == 1 { body } else { format!("{body}:{number}") });
            Outcome::Applied
        } else {
            Outcome::Retryable { failure, retry_after: None }
        };
        self.handle(Event::AttemptEnded { attempt, record_key: update.record_key.clone(), outcome });
    }
}

#[test]
fn what_was_published_twice_leaves_the_record_with_its_last_update() {
    let check = |script: &str, last: &str| {
        let applied = applied(script);
        assert_eq!(applied.last().map(String::as_str), Some(last), "{script}: {applied:?}");
    };
    // u1 u2 and again u1 u2; the channel is lost while the last one waits for a retry, with or without acks.
    check("u1 A u2 A u1 A u2 R ! <u2", "u2:2");
    check("u1 A u2 A u1 A u2 R ! <u2 <u1 <u2", "u2");
    check("u1 A u2 A u1 A u2 A ! <u1 <u2", "u2");
    check("u1 A u2 A u1 A ! <u2 <u1", "u1");
    // It is lost while the first of the second publishing is out, and once more before the last came back.
    check("u1 A u2 A u1 u2 ! <u2 <u1 <u2 A", "u2");
    check("u1 A u2 A u1 u2 ! <u1 A ! <u2", "u2");
    // The last copy had been handed over by the broker, but was not read yet when the channel was lost.
    check("u1 A u2 A u1 A ! <u2", "u2");
    check("u1 A u2 A u1 A ! <u2 <u1 <u2", "u2");
    check("u1 A u2 A u1 ! <u1 <u2 A", "u2");
    check("u1 A u2 A u1 ! A <u1 <u2", "u2");
}

#[test]
fn an_update_without_id_that_comes_again_is_sent_again_and_followed_by_all_later_ones() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("x A ! <x", &["x", "x"]);
    check("x A y A ! <x <y", &["x", "y", "x", "y"]);
    // u1, known to be settled, follows.
    check("x A u1 A u2 R ! <x <u1 <u2", &["x", "u1", "x", "u1", "u2:2"]);
    // It may be one that the broker had handed over and nobody had read.
    check("x A u1 A ! <x", &["x", "u1", "x"]);
    // What came before it is not sent again.
    check("u1 A x R ! <u1 <x", &["u1", "x"]);
    check("u1 A x A u2 R ! <u1 <x <u2", &["u1", "x", "x", "u2:2"]);
}

#[test]
fn an_update_without_id_that_comes_again_waits_for_the_attempt_that_is_out() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("x ! <x A", &["x", "x"]);
    check("x ! ! <x A", &["x", "x"]);
    check("x ! A <x", &["x", "x"]);
    check("x ! R <x", &["x"]);
    check("x A u1 ! <x <u1 A", &["x", "u1", "x", "u1"]);
    check("x A u1 A y ! <x <u1 <y A", &["x", "u1", "y", "x", "u1", "y"]);
}

#[test]
fn an_update_without_id_that_comes_again_waits_until_its_resolution_is_written_down() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("x P ! <x W A", &["x", "x"]);
    check("x P ! W <x A", &["x", "x"]);
    // Another process has owned the partition: the ledger refuses what is written under the earlier number.
    check("x P !900 <x A", &["x", "x"]);
}

#[test]
fn what_the_ledger_refused_to_write_under_an_older_number_is_written_and_not_sent_again() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("u1 P ! N <u1", &["u1"]);
    check("u1 P ! <u1 N", &["u1"]);
}

#[test]
fn a_released_update_is_not_parked_again_for_what_was_found_before_it_was_parked() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("u1 ! K ^u1 A", &["u1"]);
    check("u1 ! ^u1 K A", &["u1"]);
}

#[test]
fn attempts_go_on_counting_after_a_lost_channel_if_the_update_has_an_id() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("u1 R ! <u1", &["u1:2"]);
    check("x R ! <x A", &["x"]);
}

#[test]
fn another_owner_ends_what_is_remembered_also_where_numbers_began_again() {
    let check = |script: &str, expected: &[&str]| assert_eq!(applied(script), expected, "{script}");
    check("u1 A ! <u1 u2 A", &["u1", "u2"]);
    check("u1 A !900 <u1 A", &["u1", "u1"]);
    // Nobody else since.
    check("u1 A !900 <u1 A ! <u1", &["u1", "u1"]);
    // The stream of members was made anew.
    check("u1 A !900 <u1 A !5 <u1", &["u1", "u1", "u1"]);
}

#[test]
fn a_lost_connection_alone_makes_no_second_request() {
    assert_eq!(applied("u1 A u2 ! <u1 <u2 A"), ["u1", "u2"]);
    assert_eq!(applied("u1 A u2 ! A <u1 <u2"), ["u1", "u2"]);
    assert_eq!(applied("u1 A u2 R ! <u2 <u3"), ["u1", "u2:2", "u3"]);
}

#[test]
fn the_oldest_delivery_and_the_earliest_publish_are_reported_also_if_they_differ() {
    let (mut partition, tenure, now) = (partition(2), Tenure(1), Tick::ZERO);
    begin(&mut partition, now, tenure);
    assert_eq!(partition.oldest(), Oldest::default());
    for (delivery, published_at) in [(1, None), (2, Some(70)), (3, Some(60))] {
        let mut update = update("a", &format!("{delivery}"));
        Arc::make_mut(&mut update).published_at = published_at;
        let delivery = DeliveryTag(delivery);
        partition.handle(now, Event::Received { tenure, delivery, redelivered: false, update });
    }
    let oldest = Oldest { delivery: Some(DeliveryTag(1)), published_at: Some(60) };
    assert_eq!(partition.oldest(), oldest, "while they wait for the claim");
    partition.handle(
        now,
        Event::Claimed { tenure, number: Some(TenureNumber(1)), rival_claim: None, wait_until: None },
    );
    assert_eq!(partition.oldest(), oldest, "and in their lane");
    partition.handle(now, Event::TenureEnded(tenure));
    assert_eq!(partition.oldest(), Oldest::default());
}

#[test]
fn released_updates_that_cannot_go_out_leave_room_for_those_of_another_target() {
    let (mut partition, tenure, now) = (partition(1), Tenure(1), Tick::ZERO);
    partition.strict = None;
    begin(&mut partition, now, tenure);
    partition.handle(now, Event::OwnershipHint(tenure));
    let number = Some(TenureNumber(1));
    partition.handle(now, Event::Claimed { tenure, number, rival_claim: None, wait_until: None });
    partition.handle(now, Event::TargetShut { target: TargetId(0), probe_from: None });
    let release = |partition: &mut Partition, record: &str, target| {
        let updates = (1..=3).map(|seq| {
            let mut update = update(record, &format!("{record}{seq}"));
            Arc::make_mut(&mut update).target = TargetId(target);
            (ParkedSeq(seq), update)
        });
        let (record_key, updates) = (RecordKey::new(record).unwrap(), updates.collect());
        partition.handle(now, Event::Released { tenure, record_key, updates });
        partition.view().released
    };
    // The window is 9. Of a record whose target is shut the head is enough.
    let counts = ["a", "b", "c", "d", "e", "f", "g"].map(|record| release(&mut partition, record, 0));
    assert_eq!(counts, [1, 2, 3, 4, 5, 5, 5]);
    assert_eq!(release(&mut partition, "h", 1), 7, "half of what is left, rounded up");
    assert_eq!(release(&mut partition, "i", 1), 7);
    assert_eq!(release(&mut partition, "j", 2), 8, "and so on");
    let attempt = std::iter::from_fn(|| partition.poll_effect()).find_map(|effect| match effect {
        Effect::Attempt { update, .. } => Some(update.record_key.as_str().to_owned()),
        _ => None,
    });
    assert_eq!(attempt.as_deref(), Some("h"), "it goes out past those that wait");
}
