use super::share::{Claim, OtherNote, ShareNote};
use super::*;
use proptest::prelude::*;

const fn millis(millis: u64) -> Tick {
    Tick::from_micros(millis * 1000)
}

fn key(record: u64) -> RecordKey {
    RecordKey::new(format!("record-{record}")).unwrap()
}

fn rate_max(requests: u32, per: Duration) -> PacerLimits {
    let requests = NonZeroU32::new(requests).unwrap();
    PacerLimits { rate_max: Some(Rate { requests, per }), in_flight_max: None }
}

/// A request without duration ended at `at` milliseconds.
fn end_with(pacer: &mut Pacer, at: u64, record: u64, reply: Reply, quota: Quota) -> Refusal {
    let record_key = key(record);
    let end = RequestEnd { record_key: &record_key, began: millis(at), permit: false, reply, quota };
    pacer.ended(millis(at), &end)
}

fn end(pacer: &mut Pacer, at: u64, record: u64, reply: Reply) -> Refusal {
    end_with(pacer, at, record, reply, Quota::default())
}

const TOO_MANY: Reply = Reply::TooMany { retry_after: None };

fn granted(pacer: &mut Pacer, at: u64) -> usize {
    pacer.grant(millis(at)).iter().map(|(_, requests)| requests).sum()
}

#[test]
fn nothing_is_in_force_while_no_limit_is_known() {
    let mut pacer = Pacer::new(PacerLimits::default());
    assert!(!pacer.is_in_force());
    assert_eq!(end(&mut pacer, 0, 1, Reply::Applied), Refusal::None);
    assert!(!pacer.is_in_force());
    pacer.ask(Asker(1), 1000);
    assert_eq!(pacer.grant(millis(1)), [(Asker(1), 1000)]);
}

#[test]
fn permits_go_out_in_the_order_of_asking() {
    let mut pacer = Pacer::new(rate_max(10, Duration::from_secs(1)));
    pacer.ask(Asker(1), 1);
    pacer.ask(Asker(2), 2);
    pacer.ask(Asker(3), 1);
    pacer.ask(Asker(1), 1);
    pacer.withdraw(Asker(3));
    let mut order = Vec::new();
    while let Some(at) = pacer.next_grant_at() {
        let grants = pacer.grant(at);
        assert!(!grants.is_empty(), "nothing is granted at the time that was announced");
        order.extend(grants);
    }
    assert_eq!(order, [(Asker(1), 1), (Asker(2), 1), (Asker(2), 1), (Asker(1), 1)]);
}

#[test]
fn an_idle_time_saves_up_no_more_than_50_ms() {
    let mut pacer = Pacer::new(rate_max(100, Duration::from_secs(1)));
    pacer.ask(Asker(1), 1000);
    assert_eq!(granted(&mut pacer, 0), 1);
    assert_eq!(granted(&mut pacer, 60_000), 5);
    assert_eq!(granted(&mut pacer, 60_000), 0);
}

#[test]
fn in_flight_max_counts_permits_that_are_out() {
    let limits = PacerLimits { rate_max: None, in_flight_max: NonZeroUsize::new(3) };
    let mut pacer = Pacer::new(limits);
    pacer.ask(Asker(1), 10);
    assert_eq!(granted(&mut pacer, 0), 3);
    assert_eq!(pacer.next_grant_at(), None);
    pacer.returned(millis(1), 2);
    assert_eq!(granted(&mut pacer, 1), 2);
    let part = Share::from_millionths(400_000);
    pacer.set_share(millis(2), part);
    pacer.returned(millis(2), 3);
    assert_eq!(granted(&mut pacer, 2), 1, "a part of at least one");
}

#[test]
fn a_permit_that_was_not_used_is_granted_to_the_next() {
    let mut pacer = Pacer::new(rate_max(1, Duration::from_secs(60)));
    pacer.ask(Asker(1), 2);
    assert_eq!(granted(&mut pacer, 0), 1);
    assert_eq!(granted(&mut pacer, 1), 0);
    pacer.returned(millis(1), 1);
    assert_eq!(granted(&mut pacer, 1), 1);
}

#[test]
fn without_a_share_nothing_is_granted() {
    let mut pacer = Pacer::new(rate_max(10, Duration::from_secs(1)));
    pacer.set_share(millis(0), Share::NONE);
    pacer.ask(Asker(1), 5);
    assert_eq!((granted(&mut pacer, 100), pacer.next_grant_at()), (0, None));
    pacer.set_share(millis(200), Share::from_millionths(500_000));
    assert_eq!(granted(&mut pacer, 200), 1);
    assert_eq!(granted(&mut pacer, 399 - 20), 0);
    assert_eq!(granted(&mut pacer, 400), 1);
}

/// A letter for the record and `+` applied or `-` refused, one attempt every 100 ms. Expected: for each refusal `r` (of the
/// record) or `t` (of the target).
fn check_refusals(script: &str, expected: &str) {
    let mut pacer = Pacer::new(PacerLimits::default());
    let mut refusals = String::new();
    for (number, attempt) in script.split_whitespace().enumerate() {
        let record = u64::from(attempt.as_bytes()[0]);
        let reply = if attempt.ends_with('+') { Reply::Applied } else { TOO_MANY };
        match end(&mut pacer, number as u64 * 100, record, reply) {
            Refusal::None => {}
            Refusal::OfRecord => refusals.push('r'),
            Refusal::OfTarget => refusals.push('t'),
        }
    }
    assert_eq!(refusals, expected, "{script}");
}

#[test]
fn a_refusal_means_the_record_or_the_target() {
    check_refusals("x- x- x- x-", "rrrr");
    check_refusals("x- y- x- y-", "rttt");
    check_refusals("x- x+ y-", "rr");
    // The third refusal of x in a row, while eight of others were applied.
    check_refusals("y- x- a+ b+ c+ d+ x- e+ f+ g+ h+ x- y-", "rttrt");
    check_refusals("y- x- a+ b+ c+ x- e+ f+ g+ h+ x-", "rttt");
    // Too many of others were refused.
    check_refusals("y- x- a+ b- c+ d+ b- x- e+ f+ b- g+ h+ i+ x-", "rtttttt");
}

#[test]
fn a_refusal_of_one_record_changes_no_rate() {
    let mut pacer = Pacer::new(PacerLimits::default());
    let quota = Quota { remaining: Some(0), reset: Some(Duration::from_secs(60)), ..Quota::default() };
    let reply = Reply::TooMany { retry_after: Some(Duration::from_secs(60)) };
    for at in 0..100 {
        assert_eq!(end_with(&mut pacer, at, 1, reply, quota), Refusal::OfRecord);
        assert_eq!(end(&mut pacer, at, 2, Reply::Applied), Refusal::None);
    }
    assert!(!pacer.is_in_force());
}

#[test]
fn after_retry_after_requests_go_out_one_by_one_first() {
    let mut pacer = Pacer::new(PacerLimits::default());
    let reply = Reply::Unavailable { retry_after: Duration::from_secs(60) };
    end(&mut pacer, 0, 1, reply);
    assert_eq!(end(&mut pacer, 1, 2, reply), Refusal::OfTarget);
    pacer.ask(Asker(1), 1000);
    assert_eq!(granted(&mut pacer, 60_000), 0);
    assert_eq!(pacer.next_grant_at(), Some(millis(60_001)));
    assert_eq!(granted(&mut pacer, 60_001), 1);
    assert_eq!(granted(&mut pacer, 60_001), 0);
    let record_key = key(3);
    let began = millis(60_001);
    let applied = RequestEnd {
        record_key: &record_key,
        began,
        permit: true,
        reply: Reply::Applied,
        quota: Quota::default(),
    };
    pacer.ended(millis(60_002), &applied);
    assert_eq!(granted(&mut pacer, 60_002), 2);
}

#[test]
fn a_retry_after_of_days_is_bounded() {
    let mut pacer = Pacer::new(PacerLimits::default());
    let reply = Reply::TooMany { retry_after: Some(Duration::from_secs(1_000_000_000)) };
    end(&mut pacer, 0, 1, reply);
    end(&mut pacer, 1, 2, reply);
    pacer.ask(Asker(1), 1);
    assert_eq!(pacer.next_grant_at(), Some(millis(3_600_001)));
}

#[test]
fn a_long_window_is_free_until_half_of_it_is_used() {
    let mut pacer = Pacer::new(PacerLimits::default());
    let quota = |remaining| Quota {
        remaining: Some(remaining),
        reset: Some(Duration::from_secs(1000)),
        limit: Some(1000),
        window: Some(Duration::from_secs(3600)),
    };
    end_with(&mut pacer, 0, 1, Reply::Applied, quota(600));
    pacer.ask(Asker(1), 1000);
    assert_eq!(granted(&mut pacer, 1), 1000);
    end_with(&mut pacer, 1000, 1, Reply::Applied, quota(400));
    pacer.ask(Asker(1), 1000);
    assert_eq!(granted(&mut pacer, 1000), 1);
    // 0.98 * 400 in 1000 s.
    assert_eq!(granted(&mut pacer, 1000 + 2400), 0);
    assert_eq!(granted(&mut pacer, 1000 + 2552), 1);
    end_with(&mut pacer, 5000, 1, Reply::Applied, quota(0));
    assert_eq!(granted(&mut pacer, 1_004_000), 0);
    assert!(granted(&mut pacer, 1_016_000) > 0);
}

#[test]
fn a_limit_is_gone_when_nothing_was_refused_for_long() {
    let mut pacer = Pacer::new(PacerLimits::default());
    end(&mut pacer, 0, 1, TOO_MANY);
    end(&mut pacer, 0, 2, TOO_MANY);
    assert!(pacer.is_in_force());
    pacer.grant(millis(599_000));
    assert!(pacer.is_in_force());
    pacer.grant(millis(601_000));
    assert!(!pacer.is_in_force());
}

#[derive(Clone, Debug)]
struct Process {
    /// Notes of the stream that it has read.
    read: usize,
    /// Composed, but not in the stream yet.
    unwritten: Vec<StreamNote>,
    demand: Demand,
}

#[derive(Clone, Copy, Debug)]
struct StreamNote {
    author: usize,
    read: usize,
    number: u64,
    note: ShareNote,
}

/// What the process makes of the notes that it has read.
fn update(process: usize, claim: &mut Claim, state: &Process, stream: &[StreamNote], processes: usize) {
    let read = &stream[..state.read];
    let first = read.iter().position(|note| note.author == process && note.number == claim.number());
    let others: Vec<_> = (0..processes)
        .filter(|other| *other != process)
        .map(|other| match read.iter().rev().find(|note| note.author == other) {
            Some(note) => OtherNote { note: note.note, seen: first.is_some_and(|first| note.read > first) },
            None => {
                OtherNote { note: ShareNote { demand: Demand::default(), claim: Share::WHOLE }, seen: false }
            }
        })
        .collect();
    claim.update(state.demand, &others);
}

proptest! {
    /// Each step: a process, what it does, and a number for that.
    #[test]
    fn shares_in_use_are_never_more_than_the_whole(
        processes in 1_usize..5,
        steps in prop::collection::vec((0_usize..5, 0_u8..4, 0_u32..100), 1..600),
    ) {
        let new = Process { read: 0, unwritten: Vec::new(), demand: Demand::default() };
        let mut states = vec![new; processes];
        let mut claims: Vec<_> = (0..processes).map(|_| Claim::default()).collect();
        let mut stream: Vec<StreamNote> = Vec::new();
        for (process, action, number) in steps {
            let process = process % processes;
            let state = &mut states[process];
            match action {
                0 => state.demand.requests = number * number,
                1 => {
                    let claim = &claims[process];
                    let note = claim.note(state.demand);
                    state.unwritten.push(StreamNote { author: process, read: state.read, number: claim.number(), note });
                }
                2 if !state.unwritten.is_empty() => stream.push(state.unwritten.remove(0)),
                _ => {
                    state.read = (state.read + 1 + number as usize % 8).min(stream.len());
                    update(process, &mut claims[process], state, &stream, processes);
                }
            }
            let in_use: u32 = claims.iter().map(|claim| claim.in_use().millionths()).sum();
            prop_assert!(in_use <= Share::WHOLE.millionths(), "{in_use}");
        }
    }

    #[test]
    fn shares_follow_the_demand(demands in prop::collection::vec(0_u32..10_000, 1..6)) {
        let processes = demands.len();
        let mut states: Vec<_> = demands
            .iter()
            .map(|requests| Process { read: 0, unwritten: Vec::new(), demand: Demand { requests: *requests, in_flight: 0 } })
            .collect();
        let mut claims: Vec<_> = (0..processes).map(|_| Claim::default()).collect();
        let mut stream = Vec::new();
        for _ in 0..12 {
            for process in 0..processes {
                let state = &mut states[process];
                let note = claims[process].note(state.demand);
                stream.push(StreamNote { author: process, read: state.read, number: claims[process].number(), note });
            }
            for process in 0..processes {
                states[process].read = stream.len();
                update(process, &mut claims[process], &states[process], &stream, processes);
            }
        }
        let in_use: Vec<_> = claims.iter().map(|claim| claim.in_use().part()).collect();
        let sum: f64 = in_use.iter().sum();
        prop_assert!(sum > 0.9 && sum <= 1.0, "{in_use:?}");
        for (requests, share) in demands.iter().zip(&in_use) {
            prop_assert!(*share > 0.0);
            prop_assert!(*requests == 0 || *share > 0.05 / processes as f64, "{demands:?} {in_use:?}");
        }
    }
}

#[test]
fn a_503_beside_answers_that_apply_pauses_nobody() {
    let mut pacer = Pacer::new(PacerLimits::default());
    let reply = Reply::Unavailable { retry_after: Duration::from_secs(1) };
    for at in 1..100 {
        assert_eq!(end(&mut pacer, 10 * at, at, reply), Refusal::OfRecord);
        end(&mut pacer, 10 * at + 5, 1000 + at, Reply::Applied);
    }
    assert!(!pacer.is_in_force());
}

/// One in thirteen is refused, however few there are.
#[test]
fn refusals_that_do_not_come_from_the_rate_slow_nothing_down() {
    let mut pacer = Pacer::new(PacerLimits::default());
    pacer.ask(Asker(1), 1_000_000);
    let (mut out, mut number, mut applied) = (Vec::new(), 0, 0);
    for at in 0..20_000 {
        for (began, record, permit) in std::mem::take(&mut out) {
            let record_key = key(record);
            let reply = if record % 13 == 0 { TOO_MANY } else { Reply::Applied };
            applied += u64::from(reply == Reply::Applied);
            let quota = Quota::default();
            pacer.ended(millis(at), &RequestEnd { record_key: &record_key, began, permit, reply, quota });
        }
        let permit = pacer.is_in_force();
        for _ in 0..if permit { granted(&mut pacer, at) } else { 10 } {
            number += 1;
            out.push((millis(at), number, permit));
        }
    }
    assert!(applied > 100_000, "{applied}");
}
