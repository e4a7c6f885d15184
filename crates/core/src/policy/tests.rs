//! One row per history of outcomes.

use super::*;
use crate::outcome::Cause;

const SECOND: u64 = 1_000_000;
const CRM: TargetId = TargetId(0);

fn policy() -> Policy {
    Policy {
        schedule: Schedule::new([1, 2, 4].map(Duration::from_secs).to_vec(), 0.0),
        attempts_max: NonZeroU32::new(4),
        elapsed_max: Some(Duration::from_secs(60)),
        retry_after_max: Duration::from_secs(20),
        failure: FailurePolicies::all(FailurePolicy::DeadLetter),
        failure_of_targets: Vec::new(),
    }
}

/// One letter per outcome: A applied, R retryable, F refused, J rejected, C conflict, digits: Retry-After in
/// seconds × 10. Attempts last no time. Answers the waits in seconds and how the turn ended.
fn check(policy: &Policy, outcomes: &str, expected: &str) {
    check_of(policy, CRM, outcomes, expected);
}

fn check_of(policy: &Policy, target: TargetId, outcomes: &str, expected: &str) {
    let failure = || Failure { cause: Cause::Status(0), detail: String::new() };
    let id = UpdateId::published("u1");
    let (mut progress, mut now, mut verdicts) =
        (Progress::default(), Tick::from_micros(7 * SECOND), Vec::new());
    for letter in outcomes.chars() {
        let outcome = match letter {
            'A' => Outcome::Applied,
            'R' => Outcome::Retryable { failure: failure(), retry_after: None },
            'F' => Outcome::Refused(failure()),
            'J' => Outcome::Rejected(failure()),
            'C' => Outcome::Conflict(failure()),
            'T' => Outcome::Throttled(failure()),
            digit => {
                let seconds = u64::from(digit.to_digit(10).unwrap()) * 10;
                Outcome::Retryable { failure: failure(), retry_after: Some(Duration::from_secs(seconds)) }
            }
        };
        progress.begin_attempt(now);
        match policy.judge(&id, target, outcome, &mut progress, now) {
            Verdict::RetryAt(at) => {
                verdicts.push(at.since(now).as_secs().to_string());
                now = at;
            }
            Verdict::RetryInTurn => verdicts.push("turn".to_owned()),
            Verdict::Resolve(Resolution::DeadLettered(reason)) => verdicts.push(reason.name().to_owned()),
            Verdict::Resolve(resolution) => verdicts.push(resolution.name().to_owned()),
        }
    }
    assert_eq!(verdicts.join(" "), expected, "{outcomes}");
}

#[test]
fn outcomes_become_waits_and_resolutions() {
    check(&policy(), "A", "applied");
    check(&policy(), "RRA", "1 2 applied");
    check(&policy(), "RRRR", "1 2 4 exhausted");
    check(&policy(), "J", "rejected");
    check(&policy(), "C", "conflict");
    check(&policy(), "TTTRTA", "turn 0 0 1 turn applied");
}

#[test]
fn a_target_may_ask_for_longer_waits_up_to_the_ceiling_but_not_for_shorter_ones() {
    check(&policy(), "1A", "10 applied");
    check(&policy(), "9A", "20 applied");
    check(&policy(), "0A", "1 applied");
}

#[test]
fn refused_attempts_never_end_an_update_and_their_time_does_not_count() {
    check(&policy(), &"F".repeat(200), &["4"; 200].join(" "));
    let policy = Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(3)), ..policy() };
    check(&policy, "RFFFRA", "1 4 4 4 2 applied");
    check(&policy, "RFFFRR", "1 4 4 4 2 exhausted");
}

#[test]
fn neither_failures_nor_time_count_while_the_target_is_shut() {
    let policy =
        Policy { attempts_max: NonZeroU32::new(2), elapsed_max: Some(Duration::from_secs(3)), ..policy() };
    let (id, second) = (UpdateId::published("u1"), |seconds| Tick::from_micros(seconds * SECOND));
    let failed = || Outcome::Retryable {
        failure: Failure { cause: Cause::Timeout, detail: String::new() },
        retry_after: None,
    };
    let mut progress = Progress::default();
    progress.begin_attempt(second(7));
    let verdict = policy.judge_while_shut(&id, CRM, failed(), &mut progress, second(8));
    assert_eq!(verdict, Verdict::RetryAt(second(9)));
    // Shut from 7 to 107, and tried again after that.
    progress.shut_for(Duration::from_secs(100));
    progress.begin_attempt(second(108));
    let verdict = policy.judge(&id, CRM, failed(), &mut progress, second(108));
    assert_eq!(verdict, Verdict::RetryAt(second(109)));
    progress.begin_attempt(second(109));
    assert!(matches!(policy.judge(&id, CRM, failed(), &mut progress, second(109)), Verdict::Resolve(_)));
}

#[test]
fn no_retry_is_scheduled_beyond_elapsed_max() {
    let policy = Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(7)), ..policy() };
    check(&policy, "RRRR", "1 2 4 exhausted");
}

#[test]
fn a_target_that_asks_for_more_time_than_is_left_is_given_the_rest_and_one_attempt() {
    let policy = Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(7)), ..policy() };
    check(&policy, "1A", "7 applied");
    check(&policy, "11", "7 exhausted");
    check(&policy, "R1R", "1 6 exhausted");
    check(&policy, "RR1R", "1 2 4 exhausted");
    check(&policy, "RRR1", "1 2 4 exhausted");
    let of_attempts = Policy { attempts_max: NonZeroU32::new(1), ..policy.clone() };
    check(&of_attempts, "1", "exhausted");
    // Nothing ends this update, so that the target has the time that it asks for.
    let blocking = Policy { failure: FailurePolicies::all(FailurePolicy::Block), ..policy };
    check(&blocking, "11RA", "10 10 4 applied");
}

#[test]
fn a_blocking_policy_retries_for_ever_at_the_longest_wait() {
    let policy = Policy { failure: FailurePolicies::all(FailurePolicy::Block), ..policy() };
    check(&policy, "JJJA", "4 4 4 applied");
    // A long block does not use up the time of what fails later.
    check(&policy, &("J".repeat(20) + "RA"), &("4 ".repeat(20) + "1 applied"));
    check(&policy, "RRRRRRA", "1 2 4 4 4 4 applied");
}

#[test]
fn a_target_can_have_failure_policies_of_its_own() {
    let of_crm = FailurePolicies {
        rejected: FailurePolicy::Park,
        exhausted: FailurePolicy::Block,
        conflict: FailurePolicy::Superseded,
    };
    let policy = Policy { failure_of_targets: vec![of_crm], ..policy() };
    check(&policy, "J", "parked");
    check(&policy, "C", "superseded");
    check(&policy, "RRRRA", "1 2 4 4 applied");
    check_of(&policy, TargetId(1), "J", "rejected");
    check_of(&policy, TargetId(1), "C", "conflict");
    check_of(&policy, TargetId(1), "RRRR", "1 2 4 exhausted");
    assert_eq!((policy.failure_of(CRM), policy.failure_of(TargetId(1))), (of_crm, policy.failure));
}

#[test]
fn a_target_that_asks_for_time_is_given_it_by_a_blocking_policy_too() {
    let policy = Policy { failure: FailurePolicies::all(FailurePolicy::Block), ..policy() };
    check(&policy, "RRR19A", "1 2 4 10 20 applied");
}

/// Of each attempt: the second in which it was refused, and in which the newest request began that was applied to another
/// record, if there is one. Answers as `check`.
fn check_refused(policy: &Policy, attempts: &[(u64, Option<u64>)], expected: &str) {
    let second = |seconds: u64| Tick::from_micros(seconds * SECOND);
    let failure = || Failure { cause: Cause::Status(403), detail: String::new() };
    let (id, mut progress, mut verdicts) = (UpdateId::published("u1"), Progress::default(), Vec::new());
    for (now, others_applied) in attempts {
        let outcome = Outcome::Refused(failure()).beside(others_applied.map(second));
        progress.begin_attempt(second(*now));
        verdicts.push(match policy.judge(&id, CRM, outcome, &mut progress, second(*now)) {
            Verdict::RetryAt(at) => at.since(second(*now)).as_secs().to_string(),
            Verdict::RetryInTurn => "turn".to_owned(),
            Verdict::Resolve(Resolution::DeadLettered(reason)) => reason.name().to_owned(),
            Verdict::Resolve(resolution) => resolution.name().to_owned(),
        });
    }
    assert_eq!(verdicts.join(" "), expected, "{attempts:?}");
}

#[test]
fn a_refusal_counts_only_if_the_target_has_applied_another_record_since_the_one_before() {
    let policy =
        Policy { attempts_max: NonZeroU32::new(1), elapsed_max: Some(Duration::from_secs(10)), ..policy() };
    let check = |attempts: &[(u64, Option<u64>)], expected| check_refused(&policy, attempts, expected);
    // With 4 s to wait, more than 6 s end it.
    check(&[(0, Some(0)), (4, Some(3)), (8, Some(7))], "4 4 rejected");
    check(&[(0, None), (4, Some(3)), (8, Some(3)), (12, Some(3)), (16, Some(13))], "4 4 4 4 rejected");
    // What was applied before the previous refusal shows nothing.
    check(&[(0, None), (4, None), (8, Some(3)), (12, Some(7)), (1000, Some(11))], "4 4 4 4 4");
    check(&[(0, Some(0)), (4, Some(4)), (7, Some(4))], "4 4 rejected");
    let endless = Policy { elapsed_max: None, ..policy.clone() };
    check_refused(&endless, &[(0, Some(0)), (1000, Some(999)), (9000, Some(8999))], "4 4 4");
}

/// The token that others were applied with was good a moment ago, and there is no other one now.
#[test]
fn to_have_no_credential_never_ends_an_update_whatever_of_others_was_applied() {
    let policy =
        Policy { attempts_max: NonZeroU32::new(1), elapsed_max: Some(Duration::from_secs(1)), ..policy() };
    let (id, second) = (UpdateId::published("u1"), |seconds: u64| Tick::from_micros(seconds * SECOND));
    let failure = Failure { cause: Cause::NoCredential, detail: String::new() };
    let mut progress = Progress::default();
    for now in (0..100).step_by(4).map(second) {
        progress.begin_attempt(now);
        let outcome = Outcome::Refused(failure.clone()).beside(Some(now));
        let verdict = policy.judge(&id, CRM, outcome, &mut progress, now);
        assert_eq!(verdict, Verdict::RetryAt(now.after(Duration::from_secs(4))));
    }
}

#[test]
fn a_record_that_is_refused_alone_ends_by_the_policy_for_rejected_updates() {
    let attempts = [(0, Some(0)), (4, Some(3)), (8, Some(7)), (12, Some(11))];
    let of = |rejected| {
        let failure = FailurePolicies { rejected, ..FailurePolicies::all(FailurePolicy::DeadLetter) };
        Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(10)), failure, ..policy() }
    };
    check_refused(&of(FailurePolicy::Park), &attempts[..3], "4 4 parked");
    check_refused(&of(FailurePolicy::Block), &attempts, "4 4 4 4");
}

#[test]
fn refusals_count_neither_as_failures_nor_while_the_target_is_shut() {
    let policy = Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(10)), ..policy() };
    let (id, second) = (UpdateId::published("u1"), |seconds: u64| Tick::from_micros(seconds * SECOND));
    let failure = Failure { cause: Cause::Status(403), detail: String::new() };
    let mut progress = Progress::default();
    for now in (0..100).step_by(4).map(second) {
        progress.begin_attempt(now);
        let outcome = Outcome::Refused(failure.clone()).beside(Some(now));
        let verdict = policy.judge_while_shut(&id, CRM, outcome, &mut progress, now);
        assert_eq!(verdict, Verdict::RetryAt(now.after(Duration::from_secs(4))));
    }
    // What came before says nothing about the time that counts after it.
    progress.begin_attempt(second(100));
    let outcome = Outcome::Retryable { failure, retry_after: None };
    let verdict = policy.judge(&id, CRM, outcome, &mut progress, second(100));
    assert_eq!(verdict, Verdict::RetryAt(second(101)));
}
