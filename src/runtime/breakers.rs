//! The circuit breakers, one for the targets that share limits (by default one per target), shared by all drivers of this
//! process: a lock around the core's breakers; logs, counts and publishes their changes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{error, info};

use crate::admin::health::Health;
use crate::admin::metrics::{CircuitMetrics, Metrics};
use crate::config::{BreakerConfig, LimitsConfig};
use crate::printable::printable;
use crate::wall_time::format_time;
use lanekeeper_core::breaker::{AttemptEnd, Breaker, Circuit, Trip};
use lanekeeper_core::message::Event;
use lanekeeper_core::outcome::Failure;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

/// All breakers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Breakers(Arc<BreakerSet>);

#[derive(Debug)]
struct BreakerSet {
    /// In the order of the config; empty if breakers are turned off.
    breakers: Mutex<Vec<WatchedBreaker>>,
    /// The place of each target's breaker among them.
    of_target: Vec<usize>,
    changed: watch::Sender<()>,
    health: Health,
}

#[derive(Debug)]
struct WatchedBreaker {
    /// `limits` of its targets: by default the name of the one target.
    name: String,
    breaker: Breaker,
    metrics: CircuitMetrics,
    /// While the target is shut: since when, and up to when the metric counts it.
    shut: Option<(Tick, Tick)>,
    /// Until when a person believes the rejections of its targets.
    believed_until: Option<Tick>,
}

/// How an attempt failed, for people: it names an update, and no record key.
#[derive(Clone, Debug)]
pub struct Why {
    update_id: String,
    failure: String,
}

/// The longest text of an answer in a log line, in characters.
const ANSWER_CHARS_MAX: usize = 200;

impl Why {
    /// The target may repeat the record key in its answer.
    #[must_use]
    pub fn new(update: &Update, failure: &Failure) -> Self {
        let detail = failure.detail.replace(update.record_key.as_str(), "{record_key}");
        let full = Failure { cause: failure.cause, detail }.to_string();
        let mut failure: String = full.chars().take(ANSWER_CHARS_MAX).collect();
        if failure.len() < full.len() {
            failure.push('…');
        }
        Self { update_id: update.id.as_str().to_owned(), failure }
    }

    /// The id of the update.
    #[must_use]
    pub fn update_id(&self) -> &str {
        &self.update_id
    }

    /// The failure, without the id.
    #[must_use]
    pub fn failure(&self) -> &str {
        &self.failure
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; update {}", self.failure, printable(&self.update_id))
    }
}

impl WatchedBreaker {
    fn believe(&mut self, now: Tick, lasts: Duration) {
        let until = now.after(lasts);
        if lasts.is_zero() || self.believed_until.is_some_and(|known| until <= known) {
            return;
        }
        self.breaker.believe_until(now, until);
        self.believed_until = Some(until);
        info!(
            target_name = self.name,
            until = format_time(SystemTime::now() + lasts),
            "rejections of this target are believed, since a person says that they are its own word: the records are treated as failure.rejected says, and do not shut the target"
        );
    }

    /// Logged with the first attempt after it, or the first time that a probe is asked for.
    fn log_end_of_belief(&mut self, now: Tick) {
        if self.believed_until.take_if(|until| *until <= now).is_some() {
            info!(
                target_name = self.name,
                "the time is over for which a person has had the rejections of this target believed: from now on, one that record after record gets is doubted again"
            );
        }
    }

    fn log_trip(&mut self, now: Tick, trip: Trip, why: Option<&Why>, health: &Health) {
        let Trip { attempts, failures, records } = trip;
        let shown = why.map(ToString::to_string).unwrap_or_default();
        let (failure, update_id) = why.map_or(("", ""), |why| (why.failure(), why.update_id.as_str()));
        error!(
            target_name = self.name,
            why = failure,
            update_id,
            attempts,
            failures,
            records,
            "target shut, since it fails for all records: single attempts will show if it works again"
        );
        self.shut = Some((now, now));
        self.metrics.shut();
        health.set_shut(&self.name, Some((SystemTime::now(), shown)));
    }

    fn log_probe(&mut self, now: Tick, opened: bool, why: Option<&Why>, health: &Health) {
        let Some((since, counted_to)) = self.shut else { return };
        if let Some(why) = why.filter(|_| !opened) {
            health.set_shut_why(&self.name, &why.to_string());
        }
        self.metrics.shut_for(now.since(counted_to));
        self.shut = (!opened).then_some((since, now));
        if opened {
            let shut_seconds = now.since(since).as_secs();
            info!(target_name = self.name, shut_seconds, "target open again: its updates are attempted");
            self.metrics.opened();
            health.set_shut(&self.name, None);
        }
    }
}

impl Breakers {
    /// One for each group; each target is in one.
    #[must_use]
    pub fn new(config: &BreakerConfig, groups: &[LimitsConfig], metrics: &Metrics, health: &Health) -> Self {
        let limits = match config {
            BreakerConfig::Off => None,
            BreakerConfig::On(limits) => Some(Arc::new(limits.clone())),
        };
        let watched = |name: &str| {
            let metrics = metrics.circuit(name);
            let breaker = Breaker::new(Arc::clone(limits.as_ref()?));
            Some(WatchedBreaker { name: name.to_owned(), breaker, metrics, shut: None, believed_until: None })
        };
        let breakers = Mutex::new(groups.iter().filter_map(|group| watched(&group.name)).collect());
        let mut of_target = vec![0; groups.iter().map(|group| group.targets.len()).sum()];
        for (place, group) in groups.iter().enumerate() {
            for target in &group.targets {
                of_target[target.0] = place;
            }
        }
        let (changed, health) = (watch::Sender::new(()), health.clone());
        Self(Arc::new(BreakerSet { breakers, of_target, changed, health }))
    }

    /// A person says that rejections of the target, and of those that share its limits, are its own word for so long: they are
    /// believed, and do not shut it. If it is shut, its next probe may open it.
    pub fn believe(&self, now: Tick, target: TargetId, lasts: Duration) {
        let mut breakers = self.0.breakers();
        if let Some(watched) = self.0.of_target.get(target.0).and_then(|place| breakers.get_mut(*place)) {
            watched.believe(now, lasts);
        }
    }

    /// The state of a target's breaker, and since when it is shut.
    #[must_use]
    pub fn view(&self, target: TargetId) -> (Circuit, Option<Tick>) {
        let breakers = self.0.breakers();
        let watched = self.0.of_target.get(target.0).and_then(|place| breakers.get(*place));
        watched.map_or((Circuit::Closed, None), |watched| {
            (watched.breaker.circuit(), watched.shut.map(|(since, _)| since))
        })
    }

    /// For one driver.
    #[must_use]
    pub fn watch(&self) -> BreakerWatch {
        let last_seen = vec![Circuit::Closed; self.0.of_target.len()];
        BreakerWatch { shared: Arc::clone(&self.0), changes: self.0.changed.subscribe(), last_seen }
    }
}

impl BreakerSet {
    fn breakers(&self) -> MutexGuard<'_, Vec<WatchedBreaker>> {
        self.breakers.lock().expect("nothing panics while it holds the breakers")
    }
}

/// One driver's access to them: reports how its attempts end, and reads what has changed.
#[derive(Debug)]
pub struct BreakerWatch {
    shared: Arc<BreakerSet>,
    changes: watch::Receiver<()>,
    /// Of each target.
    last_seen: Vec<Circuit>,
}

impl BreakerWatch {
    /// Waits until [`Self::take_changes`] may return something.
    pub async fn changed(&mut self) {
        self.changes.changed().await.expect("this holds the sender");
    }

    /// What has changed since the last call, for the core.
    pub fn take_changes(&mut self) -> Vec<Event> {
        self.changes.mark_unchanged();
        let breakers = self.shared.breakers();
        let mut events = Vec::new();
        for (number, (last_seen, place)) in self.last_seen.iter_mut().zip(&self.shared.of_target).enumerate()
        {
            let Some(watched) = breakers.get(*place) else { continue };
            let (target, circuit) = (TargetId(number), watched.breaker.circuit());
            if std::mem::replace(last_seen, circuit) != circuit {
                events.push(match circuit {
                    Circuit::Closed => Event::TargetOpened(target),
                    Circuit::Shut { probe_from } => {
                        Event::TargetShut { target, probe_from: Some(probe_from) }
                    }
                    Circuit::Probing => Event::TargetShut { target, probe_from: None },
                });
            }
        }
        events
    }

    /// An attempt ended; `why`: how it failed. All drivers learn what comes of it. Returns false if it ended with a rejection
    /// that is not believed.
    pub fn ended(
        &self,
        now: Tick,
        target: TargetId,
        end: AttemptEnd<'_>,
        probe: bool,
        why: Option<&Why>,
    ) -> bool {
        let mut believed = true;
        self.with(target, |watched, health| {
            watched.log_end_of_belief(now);
            if probe {
                let report = watched.breaker.probe_ended(now, end);
                believed = report.believed;
                watched.log_probe(now, report.opened, why, health);
                return true;
            }
            let report = watched.breaker.ended(now, end);
            believed = report.believed;
            if let Some(trip) = report.trip {
                watched.log_trip(now, trip, why, health);
            }
            report.trip.is_some()
        });
        believed
    }

    /// Asks for the probe of a target that is shut. Returns true if this partition may make it.
    pub fn grant_probe(&mut self, now: Tick, target: TargetId) -> bool {
        // Who asks assumes from then on that a probe is out, and must learn of its end even if nothing else has changed.
        if let Some(last_seen) = self.last_seen.get_mut(target.0) {
            *last_seen = Circuit::Probing;
        }
        self.with(target, |watched, _| {
            watched.log_end_of_belief(now);
            watched.breaker.grant_probe(now)
        })
    }

    /// This partition does not make the probe that it was granted.
    pub fn return_probe(&self, now: Tick, target: TargetId) {
        self.with(target, |watched, _| {
            watched.breaker.probe_returned(now);
            true
        });
    }

    /// Changes one breaker. Tells all drivers if `change` returns true, and returns that.
    fn with(&self, target: TargetId, change: impl FnOnce(&mut WatchedBreaker, &Health) -> bool) -> bool {
        let mut breakers = self.shared.breakers();
        let watched = self.shared.of_target.get(target.0).and_then(|place| breakers.get_mut(*place));
        let changed = watched.is_some_and(|watched| change(watched, &self.shared.health));
        drop(breakers);
        if changed {
            self.shared.changed.send_replace(());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::breaker::{BreakerLimits, HealthSignal};
    use lanekeeper_core::outcome::Cause;
    use lanekeeper_core::pacing::PacerLimits;
    use lanekeeper_core::update::RecordKey;

    const SECOND: Tick = Tick::from_micros(1_000_000);

    fn config() -> BreakerConfig {
        BreakerConfig::On(BreakerLimits {
            window: Duration::from_secs(10),
            attempts_min: 2,
            records_min: 2,
            failure_share: 0.9,
            waits: vec![Duration::from_secs(1)],
        })
    }

    /// Groups of these names with these targets.
    fn groups<const N: usize>(groups: [(&str, &[usize]); N]) -> [LimitsConfig; N] {
        groups.map(|(name, targets)| LimitsConfig {
            name: name.to_owned(),
            targets: targets.iter().copied().map(TargetId).collect(),
            limits: PacerLimits::default(),
        })
    }

    fn of_two() -> [LimitsConfig; 2] {
        groups([("crm", &[0]), ("erp", &[1])])
    }

    fn fail(watch: &BreakerWatch) {
        for key in ["a", "b"] {
            end(watch, Tick::ZERO, key, HealthSignal::Failure, false);
        }
    }

    fn end(watch: &BreakerWatch, now: Tick, key: &str, signal: HealthSignal, probe: bool) -> bool {
        end_at(watch, TargetId(1), now, key, signal, probe)
    }

    fn end_at(
        watch: &BreakerWatch,
        target: TargetId,
        now: Tick,
        key: &str,
        signal: HealthSignal,
        probe: bool,
    ) -> bool {
        let record_key = RecordKey::new(key).unwrap();
        let failure = Failure { cause: Cause::Status(503), detail: format!("no backend for {key}") };
        let why = Why { update_id: "u1".to_owned(), failure: failure.to_string() };
        let end = AttemptEnd { record_key: &record_key, began: now, signal };
        watch.ended(now, target, end, probe, Some(&why).filter(|_| signal.is_failure()))
    }

    #[tokio::test]
    async fn every_driver_learns_once_that_a_target_is_shut_and_one_of_them_may_probe() {
        let breakers = Breakers::new(&config(), &of_two(), &Metrics::new(), &Health::default());
        let (mut one, mut other) = (breakers.watch(), breakers.watch());
        fail(&one);
        for watch in [&mut one, &mut other] {
            watch.changed().await;
            let events = watch.take_changes();
            assert!(
                matches!(
                    events[..],
                    [Event::TargetShut { target: TargetId(1), probe_from: Some(from) }] if from == SECOND
                ),
                "{events:?}"
            );
            assert!(watch.take_changes().is_empty());
        }
        assert!(one.grant_probe(SECOND, TargetId(1)));
        assert!(!other.grant_probe(SECOND, TargetId(1)));
        one.return_probe(SECOND, TargetId(1));
        assert!(other.grant_probe(SECOND, TargetId(1)));
        end(&other, SECOND, "a", HealthSignal::Success, true);
        assert!(matches!(one.take_changes()[..], [Event::TargetOpened(TargetId(1))]));
    }

    #[test]
    fn readiness_names_what_is_shut_and_metrics_count_it() {
        let (metrics, health) = (Metrics::new(), Health::default());
        let breakers = Breakers::new(&config(), &of_two(), &metrics, &health);
        let mut watch = breakers.watch();
        fail(&watch);
        let shut = health.shut().expect("it is shut");
        assert!(shut.starts_with("shut: erp since 2"), "{shut}");
        assert!(shut.ends_with("(status 503: no backend for b; update u1)"), "{shut}");
        assert!(watch.grant_probe(SECOND, TargetId(1)));
        end(&watch, SECOND, "c", HealthSignal::Failure, true);
        let shut = health.shut().expect("it is shut");
        assert!(shut.ends_with("(status 503: no backend for c; update u1)"), "{shut}");
        let text = metrics.encode();
        for line in [
            "lanekeeper_circuit_state{target=\"crm\"} 0",
            "lanekeeper_circuit_state{target=\"erp\"} 1",
            "lanekeeper_circuit_trips_total{target=\"erp\"} 1",
            "lanekeeper_circuit_shut_seconds_total{target=\"erp\"} 1.0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(watch.grant_probe(Tick::from_micros(2_000_000), TargetId(1)));
        end(&watch, Tick::from_micros(2_000_000), "a", HealthSignal::Success, true);
        assert_eq!(health.shut(), None);
        assert!(metrics.encode().contains("lanekeeper_circuit_state{target=\"erp\"} 0"));
    }

    #[test]
    fn targets_that_share_limits_are_shut_and_opened_together_by_one_probe() {
        let (metrics, health) = (Metrics::new(), Health::default());
        let breakers =
            Breakers::new(&config(), &groups([("crm", &[0, 2]), ("erp", &[1])]), &metrics, &health);
        let (mut one, mut other) = (breakers.watch(), breakers.watch());
        for (key, target) in [("a", 0), ("b", 2)] {
            end_at(&one, TargetId(target), Tick::ZERO, key, HealthSignal::Failure, false);
        }
        for watch in [&mut one, &mut other] {
            assert_eq!(changes(watch), ["0 shut", "2 shut"]);
        }
        assert!(
            health.shut().is_some_and(|shut| shut.starts_with("shut: crm since 2")),
            "{:?}",
            health.shut()
        );
        let text = metrics.encode();
        assert!(text.contains("lanekeeper_circuit_state{target=\"crm\"} 1"), "{text}");

        assert!(one.grant_probe(SECOND, TargetId(2)));
        assert!(!one.grant_probe(SECOND, TargetId(0)), "one probe for both");
        assert!(!other.grant_probe(SECOND, TargetId(0)), "one probe for both");
        assert_eq!(changes(&mut one), [""; 0], "it has asked for both, and knows");
        assert_eq!(changes(&mut other), ["2 probed"]);
        end_at(&one, TargetId(2), SECOND, "b", HealthSignal::Success, true);
        for watch in [&mut one, &mut other] {
            assert_eq!(changes(watch), ["0 open", "2 open"]);
        }
        assert_eq!(health.shut(), None);
    }

    #[test]
    fn rejections_of_targets_that_a_person_believes_are_believed_for_all_that_share_limits() {
        let (metrics, health) = (Metrics::new(), Health::default());
        let breakers =
            Breakers::new(&config(), &groups([("crm", &[0, 2]), ("erp", &[1])]), &metrics, &health);
        let mut watch = breakers.watch();
        let rejected = |watch: &BreakerWatch, target, key, seconds: u64, probe| {
            let now = Tick::from_micros(seconds * 1_000_000);
            end_at(watch, TargetId(target), now, key, HealthSignal::Rejection(404), probe)
        };
        for (key, believed) in [("a", true), ("b", false), ("c", false)] {
            for target in [0, 1] {
                assert_eq!(rejected(&watch, target, key, 0, false), believed, "{key}");
            }
        }
        // As a status that is doubted for longer than the window shuts a quiet target.
        for target in [0, 1] {
            assert!(!rejected(&watch, target, "c", 11, false));
        }
        assert_eq!(changes(&mut watch), ["0 shut", "1 shut", "2 shut"]);
        breakers.believe(Tick::from_micros(12_000_000), TargetId(2), Duration::from_secs(3600));
        let probed_at = Tick::from_micros(12_000_000);
        for (target, believed) in [(0, true), (1, false)] {
            assert!(watch.grant_probe(probed_at, TargetId(target)));
            assert_eq!(rejected(&watch, target, "c", 12, true), believed, "{target}");
        }
        assert_eq!(changes(&mut watch), ["0 open", "1 shut", "2 open"]);
        for key in ["a", "b", "c", "d"] {
            assert!(rejected(&watch, 2, key, 3600, false), "{key}");
        }
        let over: Vec<bool> = ["a", "b"].map(|key| rejected(&watch, 2, key, 4000, false)).to_vec();
        assert_eq!(over, [true, false]);
    }

    fn changes(watch: &mut BreakerWatch) -> Vec<String> {
        let described = |event| match event {
            Event::TargetShut { target, probe_from: Some(_) } => format!("{} shut", target.0),
            Event::TargetShut { target, probe_from: None } => format!("{} probed", target.0),
            Event::TargetOpened(target) => format!("{} open", target.0),
            other => panic!("{other:?}"),
        };
        watch.take_changes().into_iter().map(described).collect()
    }

    #[test]
    fn breakers_that_are_turned_off_shut_nothing() {
        let breakers = Breakers::new(&BreakerConfig::Off, &of_two(), &Metrics::new(), &Health::default());
        let mut watch = breakers.watch();
        fail(&watch);
        assert!(watch.take_changes().is_empty());
    }
}
