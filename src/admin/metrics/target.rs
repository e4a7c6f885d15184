//! Metrics of the targets and their breakers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{OfAttempt, OfTarget, OfTrace, SecondsCounter, TracedHistogram, traced_histogram};
use lanekeeper_core::outcome::{Cause, Outcome};

#[derive(Clone, Debug)]
pub(super) struct TargetFamilies {
    updates_delivered: Family<OfTarget, Counter>,
    attempts: Family<OfAttempt, Counter>,
    attempt_duration: Family<OfTarget, TracedHistogram, fn() -> TracedHistogram>,
    end_to_end_duration: Family<OfTarget, TracedHistogram, fn() -> TracedHistogram>,
    circuit_state: Family<OfTarget, Gauge>,
    circuit_trips: Family<OfTarget, Counter>,
    circuit_shut: Family<OfTarget, SecondsCounter>,
    target_paused: Family<OfTarget, Gauge>,
    paced: Family<OfTarget, Gauge>,
    throttled: Family<OfTarget, Counter>,
}

impl Default for TargetFamilies {
    fn default() -> Self {
        Self {
            updates_delivered: Family::default(),
            attempts: Family::default(),
            attempt_duration: Family::new_with_constructor(traced_histogram),
            end_to_end_duration: Family::new_with_constructor(traced_histogram),
            circuit_state: Family::default(),
            circuit_trips: Family::default(),
            circuit_shut: Family::default(),
            target_paused: Family::default(),
            paced: Family::default(),
            throttled: Family::default(),
        }
    }
}

impl TargetFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "updates_delivered",
            "Updates applied by the target.",
            self.updates_delivered.clone(),
        );
        registry.register("attempts", "Requests to targets that ended.", self.attempts.clone());
        registry.register_with_unit(
            "attempt_duration",
            "From the start of an attempt to the end of its answer.",
            Unit::Seconds,
            self.attempt_duration.clone(),
        );
        registry.register_with_unit(
            "end_to_end_duration",
            "From the publisher's timestamp (whole seconds, its clock) to applied.",
            Unit::Seconds,
            self.end_to_end_duration.clone(),
        );
        registry.register(
            "circuit_state",
            "0: attempts are made as usual; 1: the target is shut, because it fails for everyone, and only probes are made.",
            self.circuit_state.clone(),
        );
        registry.register("circuit_trips", "Times that a target was shut.", self.circuit_trips.clone());
        registry.register_with_unit(
            "circuit_shut",
            "Time for which a target was shut, counted with each probe that ends.",
            Unit::Seconds,
            self.circuit_shut.clone(),
        );
        registry.register(
            "target_paused",
            "1: a person has paused the target, and no request is made.",
            self.target_paused.clone(),
        );
        registry.register(
            "paced",
            "1: requests to the target need permits, because a limit is set, or because it refuses requests.",
            self.paced.clone(),
        );
        registry.register(
            "throttled",
            "Requests that the target refused for all (429, or 503 with Retry-After). They cost no update its budget.",
            self.throttled.clone(),
        );
    }

    /// The config has changed: there may be other targets, or none of them shut or paced.
    pub(super) fn change(&self) {
        self.circuit_state.clear();
        self.target_paused.clear();
        self.paced.clear();
    }

    /// Gives every family a label value, so that it is encoded. The compiler asks for a new family here.
    #[cfg(test)]
    pub(super) fn create_all(&self) {
        let Self {
            updates_delivered,
            attempts,
            attempt_duration,
            end_to_end_duration,
            circuit_state,
            circuit_trips,
            circuit_shut,
            target_paused,
            paced,
            throttled,
        } = self;
        let of = OfTarget { target: "crm".into() };
        for counters in [updates_delivered, circuit_trips, throttled] {
            drop(counters.get_or_create(&of));
        }
        for histograms in [attempt_duration, end_to_end_duration] {
            drop(histograms.get_or_create(&of));
        }
        drop(circuit_state.get_or_create(&of));
        drop(target_paused.get_or_create(&of));
        drop(paced.get_or_create(&of));
        drop(circuit_shut.get_or_create(&of));
        let of = OfAttempt { target: of.target, outcome: "applied", code_class: "2xx" };
        drop(attempts.get_or_create(&of));
    }
}

/// Metrics of one target.
#[derive(Debug)]
pub struct TargetMetrics {
    target: Arc<str>,
    updates_delivered: Counter,
    attempt_duration: TracedHistogram,
    end_to_end_duration: TracedHistogram,
    attempts: Family<OfAttempt, Counter>,
}

impl TargetMetrics {
    pub(super) fn new(all: &TargetFamilies, target: &str) -> Self {
        let of = OfTarget { target: target.into() };
        Self {
            updates_delivered: all.updates_delivered.get_or_create_owned(&of),
            attempt_duration: all.attempt_duration.get_or_create_owned(&of),
            end_to_end_duration: all.end_to_end_duration.get_or_create_owned(&of),
            target: of.target,
            attempts: all.attempts.clone(),
        }
    }

    /// The target's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target
    }

    /// An attempt ended. It counts only if a request was sent. `trace_id`: of a trace that is sampled.
    pub fn attempt_ended(&self, outcome: &Outcome, took: Duration, trace_id: Option<String>) {
        if !outcome.was_sent() {
            return;
        }
        let (target, outcome, code_class) =
            (Arc::clone(&self.target), outcome.kind().name(), code_class(outcome));
        self.attempts.get_or_create(&OfAttempt { target, outcome, code_class }).inc();
        observe(&self.attempt_duration, took, trace_id);
    }

    /// An update is applied. `age`: since its timestamp, if the publisher set one. `trace_id`: of a trace that is sampled.
    pub fn delivered(&self, age: Option<Duration>, trace_id: Option<String>) {
        self.updates_delivered.inc();
        if let Some(age) = age {
            observe(&self.end_to_end_duration, age, trace_id);
        }
    }
}

fn observe(histogram: &TracedHistogram, seconds: Duration, trace_id: Option<String>) {
    let trace = trace_id.map(|trace_id| OfTrace { trace_id });
    let at = trace.is_some().then(SystemTime::now);
    histogram.observe(seconds.as_secs_f64(), trace, at);
}

fn code_class(outcome: &Outcome) -> &'static str {
    let Some(failure) = outcome.failure() else {
        return if *outcome == Outcome::Applied { "2xx" } else { "none" };
    };
    match failure.cause {
        Cause::Status(status) => match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
        Cause::Timeout => "timeout",
        Cause::Connection => "connection",
        Cause::Unsendable | Cause::NoCredential => "none",
    }
}

impl TargetFamilies {
    /// 1 while a person has paused the target.
    pub(super) fn paused(&self, target: &str) -> Gauge {
        self.target_paused.get_or_create_owned(&OfTarget { target: target.into() })
    }
}

/// Metrics of one target's breaker.
#[derive(Debug)]
pub struct CircuitMetrics {
    state: Gauge,
    trips: Counter,
    shut: SecondsCounter,
}

impl CircuitMetrics {
    pub(super) fn new(all: &TargetFamilies, target: &str) -> Self {
        let of = OfTarget { target: target.into() };
        Self {
            state: all.circuit_state.get_or_create_owned(&of),
            trips: all.circuit_trips.get_or_create_owned(&of),
            shut: all.circuit_shut.get_or_create_owned(&of),
        }
    }

    /// The target was shut.
    pub fn shut(&self) {
        self.state.set(1);
        self.trips.inc();
    }

    /// The target was shut for this much more time.
    pub fn shut_for(&self, time: Duration) {
        self.shut.inc_by(time.as_secs_f64());
    }

    /// The target is open again.
    pub fn opened(&self) {
        self.state.set(0);
    }
}

/// Metrics of the pacer of one target, or of those that share limits.
#[derive(Debug)]
pub struct PacerMetrics {
    paced: Gauge,
    throttled: Counter,
}

impl PacerMetrics {
    pub(super) fn new(all: &TargetFamilies, target: &str) -> Self {
        let of = OfTarget { target: target.into() };
        Self { paced: all.paced.get_or_create_owned(&of), throttled: all.throttled.get_or_create_owned(&of) }
    }

    /// Requests need permits, or no longer do.
    pub fn paced(&self, in_force: bool) {
        self.paced.set(i64::from(in_force));
    }

    /// A request was refused that means the target as a whole.
    pub fn throttled(&self) {
        self.throttled.inc();
    }
}

#[cfg(test)]
mod tests {
    use lanekeeper_core::outcome::OutcomeKind;

    #[test]
    fn every_outcome_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = OutcomeKind::ALL.map(OutcomeKind::name).into();
        assert_eq!(names.len(), OutcomeKind::ALL.len());
    }
}
