//! What the core knows, in the terms of reports: names for numbers, and times of the wall clock for ticks.

use std::time::{Duration, SystemTime};

use crate::inspect::report::{AttemptReport, LaneReport, WaitReport};
use crate::wall_time::unix_millis;
use lanekeeper_broker::Clock;
use lanekeeper_core::partition::Explained;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::why::{WaitCause, Words, failure_words};

use super::Place;

/// Ticks as times of the wall clock, as both clocks stand now.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    now: Tick,
    wall_ms: i64,
}

impl WallClock {
    pub fn of(clock: Clock) -> Self {
        Self { now: clock.now(), wall_ms: unix_millis(SystemTime::now()) }
    }

    pub fn now(&self) -> Tick {
        self.now
    }

    pub fn now_ms(&self) -> i64 {
        self.wall_ms
    }

    pub fn millis(&self, tick: Tick) -> i64 {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        if tick < self.now {
            self.wall_ms.saturating_sub(millis(self.now.since(tick)))
        } else {
            self.wall_ms.saturating_add(millis(tick.since(self.now)))
        }
    }
}

/// What the table of causes needs to know of a target.
#[derive(Clone, Debug, Default)]
pub struct TargetWords {
    pub name: String,
    /// How its newest attempt failed, while it is shut.
    pub failure: Option<String>,
    /// Which limit keeps requests back.
    pub limit: Option<&'static str>,
    /// When the next permit comes.
    pub permit_at: Option<Tick>,
    pub timeout: Duration,
}

/// The same without the record's key, which a target may repeat in its answer.
pub fn without_key(explained: &Explained) -> Explained {
    let key = explained.record_key.as_str();
    let mut without = explained.clone();
    match &mut without.cause {
        WaitCause::Retry { failure, .. }
        | WaitCause::Refused { failure, .. }
        | WaitCause::Blocked { failure, .. }
        | WaitCause::Doubted { failure, .. } => *failure = failure.replace(key, "{record_key}"),
        _ => {}
    }
    without
}

/// What a record waits for, for people.
pub fn wait_report(explained: &Explained, target: &TargetWords, clock: WallClock) -> WaitReport {
    let cause = &explained.cause;
    let words =
        Words { target: &target.name, target_failure: target.failure.as_deref(), limit: target.limit };
    let ends_at = match cause {
        WaitCause::InFlight { .. } => explained.head.latest_began.map(|began| began.after(target.timeout)),
        WaitCause::Limit { .. } => target.permit_at,
        _ => explained.ends_at,
    };
    let since = match cause {
        WaitCause::InFlight { .. } => explained.head.latest_began.unwrap_or(explained.since),
        _ => explained.since,
    };
    WaitReport {
        sentence: cause.sentence(words),
        ends: cause.ends().to_owned(),
        since_ms: Some(clock.millis(since)),
        ends_at_ms: ends_at.map(|at| clock.millis(at)),
        needs_person: cause.needs_person(),
        cause: cause.clone(),
    }
}

/// A record that waits, for people.
pub fn lane_report(
    explained: &Explained,
    (layout, partition): Place,
    target: &TargetWords,
    clock: WallClock,
) -> LaneReport {
    let head = &explained.head;
    let past = explained.past_attempts.iter().map(|attempt| AttemptReport {
        number: attempt.number,
        began_ms: clock.millis(attempt.began),
        took_ms: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
        outcome: attempt.outcome.name().to_owned(),
        status: match attempt.cause {
            Some(lanekeeper_core::outcome::Cause::Status(status)) => Some(status),
            _ => None,
        },
        failure: failure_words(attempt.cause, &attempt.detail),
    });
    LaneReport {
        record_key: explained.record_key.as_str().to_owned(),
        layout: layout.0,
        partition: partition.0,
        wait: wait_report(explained, target, clock),
        update_id: head.update_id.as_str().to_owned(),
        update_type: head.update_type.clone(),
        target: target.name.clone(),
        received_at_ms: head.received_at.map(|at| clock.millis(at)),
        published_at: head.published_at,
        released: head.released,
        redelivered: head.redelivered,
        attempts: head.attempts,
        behind: explained.behind,
        past_attempts: past.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_before_and_after_now_are_times_of_the_wall_clock() {
        let at = |seconds: u64| Tick::from_micros(seconds * 1_000_000);
        let clock = WallClock { now: at(100), wall_ms: 1_700_000_000_000 };
        assert_eq!(clock.millis(at(40)), 1_699_999_940_000);
        assert_eq!(clock.millis(at(160)), 1_700_000_060_000);
        assert_eq!(clock.millis(Tick::from_micros(u64::MAX)), 1_700_000_000_000 + 18_446_744_073_609_551);
    }
}
