//! The pacers, one per limits group, shared by all drivers of this process: a lock around the core's pacers, a task that
//! grants permits when their time has come, and the mail of the drivers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::breakers::Why;

use crate::admin::metrics::{Metrics, PacerMetrics};
use crate::config::LimitsConfig;
use lanekeeper_broker::{Clock, LIMITS_SHARED_MAX, Shares};
use lanekeeper_core::applied_lately::AppliedLately;
use lanekeeper_core::log_interval::LogInterval;
use lanekeeper_core::message::Event;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::pacing::share::{Claim, Share};
use lanekeeper_core::pacing::{Asker, Pacer, PacerView, Refusal, RequestEnd};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;

/// What is granted sooner than this is granted together.
const GRANT_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Of a limit, while it is not known what others use.
const UNDIVIDED: Share = Share::from_millionths(100_000);
/// How often the limits are divided again: at least twice between two notes.
const DIVIDE_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// The pacers of all targets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pacers {
    shared: Arc<PacerSet>,
    _granting: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct PacerSet {
    state: Mutex<State>,
    /// Of each target, in the order of the config.
    group_of: Vec<usize>,
    clock: Clock,
    /// The next permit may come sooner than the task knows.
    hurry: Notify,
}

#[derive(Debug)]
struct State {
    groups: Vec<WatchedPacer>,
    drivers_begun: u64,
    /// Of the drivers that live.
    mail: BTreeMap<u64, Arc<Mail>>,
}

#[derive(Debug)]
struct WatchedPacer {
    name: String,
    pacer: Pacer,
    applied: AppliedLately,
    /// What this process claims of the limits.
    claim: Claim,
    metrics: PacerMetrics,
    /// As the drivers know.
    in_force: bool,
    /// Refusals that mean the target as a whole.
    refusals: LogInterval,
    /// When the task grants next, as it knows.
    next_at: Option<Tick>,
}

/// What a driver has not read yet.
#[derive(Debug)]
struct Mail {
    /// Permits, by target.
    granted: Mutex<Vec<usize>>,
    changed: Notify,
}

impl Mail {
    fn granted(&self) -> MutexGuard<'_, Vec<usize>> {
        self.granted.lock().expect("nothing panics while it holds the mail")
    }
}

impl WatchedPacer {
    fn log_refusal(&mut self, now: Tick, why: Option<&Why>) {
        self.metrics.throttled();
        if let (Some(refused), Some(why)) = (self.refusals.count(now), why) {
            warn!(
                target_name = self.name,
                why = why.failure(),
                update_id = why.update_id(),
                refused,
                "the target refuses requests of several records for now: its updates are sent more slowly, and none of them uses up its attempts or time"
            );
        }
    }
}

impl Pacers {
    /// Runs until it is dropped with all its clones.
    #[must_use]
    pub fn begin(groups: &[LimitsConfig], metrics: &Metrics, clock: Clock) -> Self {
        let targets = groups.iter().enumerate().flat_map(|(group, LimitsConfig { targets, .. })| {
            targets.iter().map(move |target| (*target, group))
        });
        let group_of = targets.collect::<BTreeMap<_, _>>().into_values().collect();
        let watched = |LimitsConfig { name, limits, .. }: &LimitsConfig| {
            let pacer = Pacer::new(*limits);
            let in_force = pacer.is_in_force();
            let applied = AppliedLately::default();
            let metrics = metrics.pacer(name);
            metrics.paced(in_force);
            let claim = Claim::default();
            let refusals = LogInterval::default();
            WatchedPacer {
                name: name.clone(),
                pacer,
                applied,
                claim,
                metrics,
                in_force,
                refusals,
                next_at: None,
            }
        };
        let groups = groups.iter().map(watched).collect();
        let state = Mutex::new(State { groups, drivers_begun: 0, mail: BTreeMap::new() });
        let shared = Arc::new(PacerSet { state, group_of, clock, hurry: Notify::new() });
        let granting = tokio::spawn(grant_for_ever(Arc::clone(&shared)));
        Self { shared, _granting: Arc::new(AbortOnDropHandle::new(granting)) }
    }

    /// Divides the limits with other replicas, until what it returns is dropped. Before they are known, this process uses
    /// nothing of a limit.
    pub fn divide(&self, shares: Shares, heartbeat: Duration) -> AbortOnDropHandle<()> {
        let shared = Arc::clone(&self.shared);
        let begun = shared.clock.now();
        shared.divide(&shares, heartbeat, begun);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut interval = interval((heartbeat / 8).min(DIVIDE_INTERVAL_MAX));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                shared.divide(&shares, heartbeat, begun);
            }
        }))
    }

    /// What keeps requests to a target back.
    #[must_use]
    pub fn view(&self, target: TargetId) -> PacerView {
        let now = self.shared.clock.now();
        self.shared.state().groups[self.shared.group_of[target.0]].pacer.view(now)
    }

    /// For one driver.
    #[must_use]
    pub fn watch(&self) -> PacerWatch {
        let targets = self.shared.group_of.len();
        let mail = Arc::new(Mail { granted: Mutex::new(vec![0; targets]), changed: Notify::new() });
        let mut state = self.shared.state();
        state.drivers_begun += 1;
        let driver = state.drivers_begun;
        state.mail.insert(driver, Arc::clone(&mail));
        drop(state);
        let (shared, last_seen, out) = (Arc::clone(&self.shared), vec![false; targets], vec![0; targets]);
        mail.changed.notify_one(); // targets with limits are paced from the beginning
        PacerWatch { shared, driver, mail, last_seen, out }
    }
}

impl PacerSet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the pacers")
    }

    /// Takes in what other replicas state, and states what this one claims.
    fn divide(&self, shares: &Shares, heartbeat: Duration, begun: Tick) {
        let now = self.clock.now();
        let mut state = self.state();
        let State { groups, mail, .. } = &mut *state;
        for watched in groups.iter_mut().take(LIMITS_SHARED_MAX) {
            let demand = watched.pacer.demand(now);
            let share = match shares.others(&watched.name, heartbeat) {
                Some(others) => watched.claim.update(demand, &others),
                // Under an alarm of the broker no notes come, and it may end only if updates are sent.
                None if watched.claim.number() == 0 && now.since(begun) > 2 * heartbeat => UNDIVIDED,
                None => watched.claim.in_use(),
            };
            shares.state(&watched.name, watched.claim.note(demand), watched.claim.number());
            watched.pacer.set_share(now, share);
            if self.settle(watched, mail, now) {
                self.hurry.notify_one();
            }
        }
    }

    fn asker(&self, driver: u64, target: TargetId) -> Asker {
        Asker(driver * self.group_of.len() as u64 + target.0 as u64)
    }

    /// Changes the pacer of a target, and hands out what may be used now.
    fn with<A>(&self, target: TargetId, now: Tick, change: impl FnOnce(&mut WatchedPacer) -> A) -> A {
        let mut state = self.state();
        let State { groups, mail, .. } = &mut *state;
        let watched = &mut groups[self.group_of[target.0]];
        let result = change(watched);
        if self.settle(watched, mail, now) {
            self.hurry.notify_one();
        }
        result
    }

    /// Hands out what may be used now. Returns true if the task must be waked earlier than it knows.
    fn settle(&self, watched: &mut WatchedPacer, mail: &BTreeMap<u64, Arc<Mail>>, now: Tick) -> bool {
        for (Asker(asker), permits) in watched.pacer.grant(now) {
            let targets = self.group_of.len() as u64;
            let target = usize::try_from(asker % targets).expect("a target's number is small");
            if let Some(mail) = mail.get(&(asker / targets)) {
                mail.granted()[target] += permits;
                mail.changed.notify_one();
            } else {
                watched.pacer.returned(now, permits);
            }
        }
        let in_force = watched.pacer.is_in_force();
        if std::mem::replace(&mut watched.in_force, in_force) != in_force {
            watched.metrics.paced(in_force);
            debug!(target_name = watched.name, in_force, "permits are needed from now on, or no longer");
            for mail in mail.values() {
                mail.changed.notify_one();
            }
        }
        let next_at = watched.pacer.next_grant_at();
        let earlier = next_at.is_some_and(|next| watched.next_at.is_none_or(|known| next < known));
        watched.next_at = next_at;
        earlier
    }
}

/// Grants permits when their time has come.
async fn grant_for_ever(shared: Arc<PacerSet>) {
    loop {
        let next = {
            let mut state = shared.state();
            let State { groups, mail, .. } = &mut *state;
            let now = shared.clock.now();
            for watched in &mut *groups {
                shared.settle(watched, mail, now);
            }
            groups.iter().filter_map(|watched| watched.next_at).min()
        };
        match next {
            Some(next) => {
                tokio::select! {
                    () = sleep_until(shared.clock.instant(next).max(Instant::now() + GRANT_INTERVAL_MIN)) => {}
                    () = shared.hurry.notified() => {}
                }
            }
            None => shared.hurry.notified().await,
        }
    }
}

/// One driver's access to them. When it is dropped, its permits are free.
#[derive(Debug)]
pub struct PacerWatch {
    shared: Arc<PacerSet>,
    driver: u64,
    mail: Arc<Mail>,
    /// Which targets were paced.
    last_seen: Vec<bool>,
    /// Permits that the driver was given and that are in use, by target.
    out: Vec<usize>,
}

impl PacerWatch {
    /// Waits until [`Self::take_changes`] may return something.
    pub async fn changed(&self) {
        self.mail.changed.notified().await;
    }

    /// What has changed since the last call, for the core.
    pub fn take_changes(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let state = self.shared.state();
        for (number, last_seen) in self.last_seen.iter_mut().enumerate() {
            let paced = state.groups[self.shared.group_of[number]].in_force;
            if std::mem::replace(last_seen, paced) != paced {
                let target = TargetId(number);
                events.push(if paced { Event::TargetPaced(target) } else { Event::TargetUnpaced(target) });
            }
        }
        drop(state);
        let mut granted = self.mail.granted();
        for (number, granted) in granted.iter_mut().enumerate() {
            let permits = std::mem::take(granted);
            if permits > 0 {
                self.out[number] += permits;
                events.push(Event::PermitsGranted { target: TargetId(number), permits });
            }
        }
        events
    }

    /// The driver's lanes wait for so many more permits.
    pub fn ask(&self, now: Tick, target: TargetId, permits: usize) {
        let asker = self.shared.asker(self.driver, target);
        self.shared.with(target, now, |watched| watched.pacer.ask(asker, permits));
    }

    /// They no longer wait for what they have asked for. What was granted meanwhile comes all the same.
    pub fn withdraw(&self, now: Tick, target: TargetId) {
        let asker = self.shared.asker(self.driver, target);
        self.shared.with(target, now, |watched| watched.pacer.withdraw(asker));
    }

    /// So many permits are not used.
    pub fn give_up(&mut self, now: Tick, target: TargetId, permits: usize) {
        let permits = permits.min(self.out[target.0]); // all may have been given up before
        self.out[target.0] -= permits;
        self.shared.with(target, now, |watched| watched.pacer.returned(now, permits));
    }

    /// All permits in use are free: the requests were cut off.
    pub fn give_up_all(&mut self, now: Tick) {
        for number in 0..self.out.len() {
            let permits = std::mem::take(&mut self.out[number]);
            if permits > 0 {
                self.shared.with(TargetId(number), now, |watched| watched.pacer.returned(now, permits));
            }
        }
    }

    /// A request has ended so. Returns the outcome as it is to be judged: what was refused may mean the target as a whole, or
    /// this record alone.
    /// `why`: how it failed.
    pub fn ended(
        &mut self,
        now: Tick,
        target: TargetId,
        end: &RequestEnd<'_>,
        outcome: Outcome,
        why: Option<&Why>,
    ) -> Outcome {
        self.out[target.0] -= usize::from(end.permit);
        self.shared.with(target, now, |watched| {
            if outcome == Outcome::Applied {
                watched.applied.applied(end.record_key, end.began);
            }
            match watched.pacer.ended(now, end) {
                Refusal::OfTarget => {
                    watched.log_refusal(now, why);
                    outcome.throttled()
                }
                Refusal::None | Refusal::OfRecord => {
                    outcome.beside(watched.applied.by_others(end.record_key))
                }
            }
        })
    }
}

impl Drop for PacerWatch {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shared.state().mail.remove(&self.driver);
        let unread = std::mem::take(&mut *self.mail.granted());
        for (number, permits) in unread.into_iter().enumerate() {
            self.out[number] += permits;
            self.withdraw(now, TargetId(number));
        }
        self.give_up_all(now);
    }
}

#[cfg(test)]
mod tests;
