//! The breaker of one target (circuit breaker): it distinguishes a target that fails for everyone from records that fail.
//!
//! All partitions of a process share it. While it has the target shut, single attempts (probes) find out if the target
//! works again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::outcome::{Cause, Failure, Outcome};
use super::spread::spread;
use super::tick::Tick;
use super::update::RecordKey;

/// Attempts that a breaker looks back on at most, however many end within its window (I6). Also the ceiling of
/// `attempts_min` and `records_min`.
pub const ATTEMPTS_KEPT_MAX: usize = 1_000;

/// The longest `Retry-After` that a probe waits for: a target that says more is asked again after this time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// When a target counts as failing for everyone, and how often it is probed.
/// One for all targets, made from `[breaker]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerLimits {
    /// How far back attempts count.
    pub window: Duration,
    /// Attempts that must have ended within the window; at most [`ATTEMPTS_KEPT_MAX`].
    pub attempts_min: usize,
    /// Different records that must be among the failed ones; at most [`ATTEMPTS_KEPT_MAX`]. Over one, so that a record
    /// that is stuck never shuts its target for others.
    pub records_min: usize,
    /// Share of them that must have failed, over 0 and up to 1.
    pub failure_share: f64,
    /// Waits before the first probe, the second, and so on; the last one repeats. At least one.
    pub waits: Vec<Duration>,
}

/// What the end of an attempt says about its target as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    /// The target works: it answered this update, if only to reject it.
    Success,
    /// It failed, or refuses us.
    Failure,
    /// It failed, and says for how long (`Retry-After`).
    FailureFor(Duration),
    /// Neither: it asks for time (429), or nothing was sent.
    Neutral,
}

impl HealthSignal {
    /// Returns true if the target failed.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::FailureFor(_))
    }

    /// How long it says that it fails, bounded.
    fn stated_wait(self) -> Duration {
        match self {
            Self::FailureFor(wait) => wait.min(RETRY_AFTER_MAX),
            Self::Success | Self::Failure | Self::Neutral => Duration::ZERO,
        }
    }

    /// What this outcome says.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Retryable { failure, .. }
            | Outcome::Refused(failure)
            | Outcome::Rejected(failure)
            | Outcome::Conflict(failure)
                if matches!(failure.cause, Cause::Status(429) | Cause::Unsendable) =>
            {
                Self::Neutral
            }
            Outcome::Retryable {
                failure: Failure { cause: Cause::Status(500..), .. },
                retry_after: Some(wait),
            } => Self::FailureFor(*wait),
            // Of this request, as a 409 with Retry-After: the first one with its idempotency key is still at work.
            Outcome::Known(_) | Outcome::Withheld | Outcome::Retryable { retry_after: Some(_), .. } => {
                Self::Neutral
            }
            Outcome::Retryable { .. } | Outcome::Refused(_) => Self::Failure,
            Outcome::Applied | Outcome::Rejected(_) | Outcome::Conflict(_) => Self::Success,
        }
    }
}

/// What the partitions must know of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Attempts are made as usual.
    Closed,
    /// No attempt is made; a probe is granted from this moment on.
    Shut {
        /// Not before.
        probe_from: Tick,
    },
    /// No attempt is made but the probe that was granted.
    Probing,
}

/// Why a target was shut: what had ended within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Attempts.
    pub attempts: usize,
    /// Those that failed.
    pub failures: usize,
    /// Different records among the failed ones.
    pub records: usize,
}

/// The breaker of one target. See the module's documentation.
#[derive(Debug)]
pub struct Breaker {
    limits: Arc<BreakerLimits>,
    state: BreakerState,
}

#[derive(Debug)]
enum BreakerState {
    /// Leaves to `Shut` with the attempt that makes enough failures.
    Closed(Window),
    /// Leaves to `Probing` when a probe is asked for and its time has come.
    Shut { probe_from: Tick, probes_failed: usize },
    /// Leaves to `Closed` with a probe that succeeded, otherwise to `Shut`.
    Probing { probes_failed: usize },
}

/// The newest attempts that ended.
#[derive(Debug, Default)]
struct Window {
    /// Oldest first; at most [`ATTEMPTS_KEPT_MAX`].
    ended: VecDeque<EndedAttempt>,
    failures: usize,
    /// How many of the failures are of which record.
    failing: HashMap<u64, usize>,
}

#[derive(Clone, Copy, Debug)]
struct EndedAttempt {
    at: Tick,
    /// A hash of its key: two records that share one count as one, which only makes the breaker slower.
    record: u64,
    failed: bool,
}

impl Window {
    fn add(&mut self, ended: EndedAttempt, lasts: Duration) {
        let over = |oldest: &EndedAttempt| ended.at.since(oldest.at) > lasts;
        while self.ended.len() == ATTEMPTS_KEPT_MAX || self.ended.front().is_some_and(over) {
            self.drop_oldest();
        }
        self.ended.push_back(ended);
        if ended.failed {
            self.failures += 1;
            *self.failing.entry(ended.record).or_default() += 1;
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(EndedAttempt { record, failed: true, .. }) = self.ended.pop_front() {
            self.failures -= 1;
            let count = self.failing.get_mut(&record).expect("every failure is counted");
            *count -= 1;
            if *count == 0 {
                self.failing.remove(&record);
            }
        }
    }

    /// Returns what has ended within the window if that shuts the target.
    fn trip(&self, limits: &BreakerLimits) -> Option<Trip> {
        let trip = Trip { attempts: self.ended.len(), failures: self.failures, records: self.failing.len() };
        let enough = trip.attempts >= limits.attempts_min
            && trip.records >= limits.records_min
            && trip.failures as f64 >= limits.failure_share * trip.attempts as f64;
        enough.then_some(trip)
    }
}

impl Breaker {
    /// Closed, and nothing has ended yet.
    #[must_use]
    pub fn new(limits: Arc<BreakerLimits>) -> Self {
        Self { limits, state: BreakerState::Closed(Window::default()) }
    }

    /// What the partitions must know.
    #[must_use]
    pub fn circuit(&self) -> Circuit {
        match self.state {
            BreakerState::Closed(_) => Circuit::Closed,
            BreakerState::Shut { probe_from, .. } => Circuit::Shut { probe_from },
            BreakerState::Probing { .. } => Circuit::Probing,
        }
    }

    /// An attempt ended that was no probe. Returns a [`Trip`] if this shuts the target.
    ///
    /// While the target is shut, the ends of attempts that had begun before are ignored.
    pub fn ended(&mut self, now: Tick, record_key: &RecordKey, signal: HealthSignal) -> Option<Trip> {
        let BreakerState::Closed(window) = &mut self.state else { return None };
        if signal == HealthSignal::Neutral {
            return None;
        }
        let record = spread(record_key.as_str().bytes());
        let failed = signal.is_failure();
        window.add(EndedAttempt { at: now, record, failed }, self.limits.window);
        let trip = window.trip(&self.limits).filter(|_| failed)?;
        self.state = self.shut(now, 0, signal);
        Some(trip)
    }

    /// A partition that has something to send asks for a probe. Returns true if it may make one attempt; it then calls
    /// [`Self::probe_ended`] or [`Self::probe_returned`].
    pub fn grant_probe(&mut self, now: Tick) -> bool {
        match self.state {
            BreakerState::Shut { probe_from, probes_failed } if probe_from <= now => {
                self.state = BreakerState::Probing { probes_failed };
                true
            }
            BreakerState::Closed(_) | BreakerState::Shut { .. } | BreakerState::Probing { .. } => false,
        }
    }

    /// The probe ended. Returns true if the target is open again: only an answer to an update shows that it works.
    pub fn probe_ended(&mut self, now: Tick, signal: HealthSignal) -> bool {
        let BreakerState::Probing { probes_failed } = self.state else { return false };
        self.state = match signal {
            HealthSignal::Success => BreakerState::Closed(Window::default()),
            HealthSignal::Failure | HealthSignal::FailureFor(_) | HealthSignal::Neutral => {
                self.shut(now, probes_failed + 1, signal)
            }
        };
        signal == HealthSignal::Success
    }

    /// The probe was not made: another may be, at once.
    pub fn probe_returned(&mut self, now: Tick) {
        if let BreakerState::Probing { probes_failed } = self.state {
            self.state = BreakerState::Shut { probe_from: now, probes_failed };
        }
    }

    fn shut(&self, now: Tick, probes_failed: usize, signal: HealthSignal) -> BreakerState {
        let waits = &self.limits.waits;
        let wait = waits.get(probes_failed).or(waits.last()).copied().unwrap_or_default();
        BreakerState::Shut { probe_from: now.after(wait.max(signal.stated_wait())), probes_failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn breaker() -> Breaker {
        Breaker::new(Arc::new(BreakerLimits {
            window: Duration::from_secs(10),
            attempts_min: 4,
            records_min: 3,
            failure_share: 0.75,
            waits: [1, 2, 4].map(Duration::from_secs).to_vec(),
        }))
    }

    const fn second(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    /// One attempt a second, as two letters: its record, and how it ended: `+` works, `-` fails, `~` neither.
    /// `expected`: after how many attempts the target is shut.
    fn check(script: &str, expected: Option<usize>) {
        let mut breaker = breaker();
        let shut_after = script.split_whitespace().enumerate().find_map(|(number, attempt)| {
            let signal = match &attempt[1..] {
                "+" => HealthSignal::Success,
                "-" => HealthSignal::Failure,
                _ => HealthSignal::Neutral,
            };
            let record_key = RecordKey::new(&attempt[..1]).unwrap();
            breaker.ended(second(number as u64), &record_key, signal).map(|_| number + 1)
        });
        assert_eq!(shut_after, expected, "{script}");
    }

    #[test]
    fn a_target_is_shut_when_enough_attempts_of_enough_records_failed() {
        check("a- b- c- d-", Some(4));
        check("a- b- c-", None);
        check("a- b- a- b- a- b- a- b-", None);
        check("a- a- a- a- a- a- a- a-", None);
        check("a+ b- c- d-", Some(4));
        check("a+ b+ c- d- e- f-", None);
        check("a+ b+ c- d- e- f- g- h-", Some(8));
    }

    #[test]
    fn what_asks_for_time_is_no_failure() {
        check("a~ b~ c~ d~ e~ f~", None);
        check("a- b~ c- d~ e- f-", Some(6));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        check("a+ b+ x~ x~ x~ x~ x~ x~ x~ x~ x~ c- d- e- f-", Some(15));
        check("a- b- x~ x~ x~ x~ x~ x~ x~ x~ x~ x~ c- d-", None);
    }

    #[test]
    fn a_success_never_shuts_a_target() {
        check("a- b- c- d~ e+", None);
    }

    fn shut() -> Breaker {
        let mut breaker = breaker();
        for record in ["a", "b", "c", "d"] {
            breaker.ended(second(0), &RecordKey::new(record).unwrap(), HealthSignal::Failure);
        }
        breaker
    }

    #[test]
    fn probes_come_one_at_a_time_with_growing_waits_and_the_first_success_opens() {
        let mut breaker = shut();
        for (asked, from) in [(0, 1), (1, 3), (3, 7), (7, 11), (11, 15)] {
            assert!(!breaker.grant_probe(Tick::from_micros(second(from).micros() - 1)), "early at {from}");
            assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(from) }, "since {asked}");
            assert!(breaker.grant_probe(second(from)));
            assert!(!breaker.grant_probe(second(from)), "one at a time");
            assert_eq!(breaker.circuit(), Circuit::Probing);
            assert!(!breaker.probe_ended(second(from), HealthSignal::Failure));
        }
        assert!(breaker.grant_probe(second(99)));
        assert!(breaker.probe_ended(second(99), HealthSignal::Success));
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[test]
    fn a_target_that_stated_wait_how_long_it_fails_is_probed_after_that() {
        let failure_for = |seconds| HealthSignal::FailureFor(Duration::from_secs(seconds));
        let mut breaker = breaker();
        for record in ["a", "b", "c", "d"] {
            breaker.ended(second(0), &RecordKey::new(record).unwrap(), failure_for(120));
        }
        assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(120) });
        assert!(breaker.grant_probe(second(120)));
        breaker.probe_ended(second(121), failure_for(0));
        assert_eq!(
            breaker.circuit(),
            Circuit::Shut { probe_from: second(123) },
            "never sooner than by itself"
        );
        assert!(breaker.grant_probe(second(123)));
        breaker.probe_ended(second(123), failure_for(1_000_000));
        assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(123 + 3600) });
    }

    #[test]
    fn a_probe_that_was_not_made_may_be_made_at_once() {
        let mut breaker = shut();
        assert!(breaker.grant_probe(second(1)));
        breaker.probe_returned(second(2));
        assert!(breaker.grant_probe(second(2)));
    }

    #[test]
    fn an_outcome_says_whether_the_target_works() {
        let failure = |cause| Failure { cause, detail: String::new() };
        let retryable = |cause, retry_after: Option<u64>| Outcome::Retryable {
            failure: failure(cause),
            retry_after: retry_after.map(Duration::from_secs),
        };
        for (outcome, expected) in [
            (Outcome::Applied, HealthSignal::Success),
            (retryable(Cause::Status(503), None), HealthSignal::Failure),
            (retryable(Cause::Status(503), Some(1)), HealthSignal::FailureFor(Duration::from_secs(1))),
            (retryable(Cause::Status(409), Some(1)), HealthSignal::Neutral),
            (retryable(Cause::Status(429), Some(1)), HealthSignal::Neutral),
            (retryable(Cause::Status(429), None), HealthSignal::Neutral),
            (retryable(Cause::Timeout, None), HealthSignal::Failure),
            (retryable(Cause::Connection, None), HealthSignal::Failure),
            (Outcome::Refused(failure(Cause::Status(401))), HealthSignal::Failure),
            (Outcome::Rejected(failure(Cause::Status(422))), HealthSignal::Success),
            (Outcome::Rejected(failure(Cause::Unsendable)), HealthSignal::Neutral),
            (Outcome::Conflict(failure(Cause::Status(409))), HealthSignal::Success),
        ] {
            assert_eq!(HealthSignal::of(&outcome), expected, "{outcome:?}");
        }
    }

    proptest! {
        /// Against a recount of everything that ended.
        #[test]
        fn it_trips_when_a_recount_says_so_and_keeps_a_bounded_number(
            attempts in prop::collection::vec((0_u64..4_000_000, 0_u8..8, 0_u8..5), 1..200),
        ) {
            let (mut breaker, mut now, mut all) = (breaker(), 0, Vec::new());
            for (later, record, drawn) in attempts {
                now += later;
                let (at, failed) = (Tick::from_micros(now), drawn > 0);
                all.push((at, record, failed));
                let within = || all.iter().filter(|(then, ..)| at.since(*then) <= Duration::from_secs(10));
                let failures = within().filter(|(.., failed)| *failed).count();
                let records: std::collections::BTreeSet<u8> =
                    within().filter(|(.., failed)| *failed).map(|(_, record, _)| *record).collect();
                let expected = failed && within().count() >= 4 && records.len() >= 3
                    && failures * 4 >= within().count() * 3;
                let record_key = RecordKey::new(record.to_string()).unwrap();
                let signal = if failed { HealthSignal::Failure } else { HealthSignal::Success };
                prop_assert_eq!(breaker.ended(at, &record_key, signal).is_some(), expected);
                if expected {
                    break;
                }
                let BreakerState::Closed(window) = &breaker.state else { panic!("it has not tripped") };
                prop_assert!(window.ended.len() <= ATTEMPTS_KEPT_MAX && window.failing.len() <= window.failures);
            }
        }
    }
}
