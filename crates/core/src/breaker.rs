//! The breaker of one target (circuit breaker): it distinguishes a target that fails for everyone from records that fail.
//!
//! All partitions of a process share it. While it has the target shut, single attempts (probes) find out if the target
//! works again.
//!
//! It also decides if a rejection is believed. A gateway that has lost its target answers 404 for every record; so does a
//! target that lacks one record. The first `records_min` - 1 records that get one answer in a row are believed: an outage
//! costs no more than those. From then on the answer is doubted, until the target has applied an update whose attempt began
//! after the first of them, and if it goes on, the target is shut. A person who knows better can have rejections believed for
//! a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
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
    /// It rejects this update with this status, or something before it does.
    Rejection(u16),
    /// Neither: it asks for time (429), or nothing was sent.
    Neutral,
}

/// The end of an attempt, as a breaker looks at it.
#[derive(Clone, Copy, Debug)]
pub struct AttemptEnd<'a> {
    /// The record.
    pub record_key: &'a RecordKey,
    /// When the request was begun.
    pub began: Tick,
    /// What it says about the target.
    pub signal: HealthSignal,
}

/// What came of the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// A [`HealthSignal::Rejection`] is the target's own word; true for every other signal.
    pub believed: bool,
    /// This attempt has shut the target.
    pub trip: Option<Trip>,
    /// This probe has opened it.
    pub opened: bool,
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
            Self::Success | Self::Failure | Self::Rejection(_) | Self::Neutral => Duration::ZERO,
        }
    }

    /// What this outcome says.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Retryable { failure, .. }
            | Outcome::Throttled(failure)
            | Outcome::Refused(failure)
            | Outcome::Rejected(failure)
            | Outcome::Doubted(failure)
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
            Outcome::Retryable { .. }
            | Outcome::Throttled(_)
            | Outcome::Refused(_)
            | Outcome::RefusedAlone { .. } => Self::Failure,
            // 422 comes from who has read the update.
            Outcome::Rejected(Failure { cause: Cause::Status(status), .. })
            | Outcome::Doubted(Failure { cause: Cause::Status(status), .. })
                if *status != 422 =>
            {
                Self::Rejection(*status)
            }
            Outcome::Applied | Outcome::Rejected(_) | Outcome::Doubted(_) | Outcome::Conflict(_) => {
                Self::Success
            }
        }
    }

    /// The same, where the answer shows that the target itself has given it.
    #[must_use]
    pub const fn of_target(self) -> Self {
        match self {
            Self::Rejection(_) => Self::Success,
            other => other,
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
    /// Rejections since the target has last applied something, by status (I6: a few hundred).
    rejections: BTreeMap<u16, Rejections>,
    /// A person says that rejections before this moment are the target's own word.
    believed_until: Tick,
}

/// Rejections with one status.
#[derive(Debug)]
struct Rejections {
    first_at: Tick,
    /// Hashes of their keys; at most `records_min`.
    records: BTreeSet<u64>,
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

    /// What has ended within the window.
    fn counts(&self) -> Trip {
        Trip { attempts: self.ended.len(), failures: self.failures, records: self.failing.len() }
    }

    /// The same if that shuts the target.
    fn trip(&self, limits: &BreakerLimits) -> Option<Trip> {
        let trip = self.counts();
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
        Self {
            limits,
            state: BreakerState::Closed(Window::default()),
            rejections: BTreeMap::new(),
            believed_until: Tick::ZERO,
        }
    }

    /// A person says that rejections before `until` are the target's own word: each is believed, and shows that the target
    /// works. If this was said before for longer, that still holds. The target stays shut up to its next probe.
    pub fn believe_until(&mut self, now: Tick, until: Tick) {
        if now < until {
            self.believed_until = self.believed_until.max(until);
        }
    }

    /// The end of an attempt: while a person has rejections believed, a rejection is a success.
    fn as_believed<'a>(&self, now: Tick, end: AttemptEnd<'a>) -> AttemptEnd<'a> {
        let signal = if now < self.believed_until { end.signal.of_target() } else { end.signal };
        AttemptEnd { signal, ..end }
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

    /// An attempt ended that was no probe.
    ///
    /// While the target is shut, the ends of attempts that had begun before do not change that.
    pub fn ended(&mut self, now: Tick, end: AttemptEnd<'_>) -> Report {
        let end = self.as_believed(now, end);
        let record = spread(end.record_key.as_str().bytes());
        let (believed, lasts) = self.belief(now, record, end);
        let report = Report { believed, trip: None, opened: false };
        let BreakerState::Closed(window) = &mut self.state else { return report };
        if end.signal == HealthSignal::Neutral {
            return report;
        }
        let failed = end.signal.is_failure() || !believed;
        window.add(EndedAttempt { at: now, record, failed }, self.limits.window);
        // What is doubted for longer, while nothing succeeds, shuts the target however few attempts there are.
        let doubted_for_long = lasts > self.limits.window && window.failures == window.ended.len();
        let trip = window.trip(&self.limits).or_else(|| doubted_for_long.then(|| window.counts()));
        let Some(trip) = trip.filter(|_| failed) else { return report };
        self.state = self.shut(now, 0, end.signal);
        Report { trip: Some(trip), ..report }
    }

    /// If what the attempt says is the target's own word, and how long it has been doubted.
    fn belief(&mut self, now: Tick, record: u64, end: AttemptEnd<'_>) -> (bool, Duration) {
        match end.signal {
            HealthSignal::Success => {
                self.rejections.retain(|_, rejections| end.began < rejections.first_at);
                (true, Duration::ZERO)
            }
            HealthSignal::Rejection(status) => {
                let new = || Rejections { first_at: now, records: BTreeSet::new() };
                let Rejections { first_at, records } = self.rejections.entry(status).or_insert_with(new);
                if records.len() < self.limits.records_min {
                    records.insert(record);
                }
                let believed = records.len() < self.limits.records_min;
                (believed, if believed { Duration::ZERO } else { now.since(*first_at) })
            }
            HealthSignal::Failure | HealthSignal::FailureFor(_) | HealthSignal::Neutral => {
                (true, Duration::ZERO)
            }
        }
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

    /// The probe ended. Only an answer of the target to an update shows that it works.
    pub fn probe_ended(&mut self, now: Tick, end: AttemptEnd<'_>) -> Report {
        let end = self.as_believed(now, end);
        let (believed, _) = self.belief(now, spread(end.record_key.as_str().bytes()), end);
        let report = Report { believed, trip: None, opened: false };
        let BreakerState::Probing { probes_failed } = self.state else { return report };
        let opened = match end.signal {
            HealthSignal::Success => true,
            HealthSignal::Rejection(_) => believed,
            HealthSignal::Failure | HealthSignal::FailureFor(_) | HealthSignal::Neutral => false,
        };
        self.state = if opened {
            BreakerState::Closed(Window::default())
        } else {
            self.shut(now, probes_failed + 1, end.signal)
        };
        Report { opened, ..report }
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
mod tests;
