//! Targets that a person has paused, perhaps by another process: found by asking the ledger regularly. Logs, counts and shows
//! them, and tells the drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::pausing::since;
use crate::printable::printable;
use crate::wall_time::format_millis;
use lanekeeper_core::message::Event;
use lanekeeper_core::routes::TargetId;
use lanekeeper_ledger::{
    AnyLedger, ChangeFilter, ChangeKind, ChangeSubject, LedgerError, Operations, OperatorReason, Pause,
};

/// How often the ledger is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Among so many of the newest changes, the one that has resumed a target is looked for.
const CHANGES_LOOKED_AT: u32 = 200;

/// What the ledger said last. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pauses(watch::Receiver<Arc<PausesNow>>);

#[derive(Debug, Default, PartialEq, Eq)]
struct PausesNow {
    /// Paused targets by name; also those that this config does not have.
    paused: BTreeMap<String, Pause>,
    /// Those that were paused before, and who has resumed them, if that is known.
    resumed: BTreeMap<String, OperatorReason>,
}

impl Pauses {
    /// Without a ledger there are none.
    #[must_use]
    pub fn none() -> Self {
        Self(watch::channel(Arc::default()).1)
    }

    /// When it has returned, the paused targets of now are known: an attempt that started before could be one at a paused
    /// target. Polls until all clones of this are dropped. While the ledger does not answer, what is paused stays paused.
    ///
    /// # Errors
    /// The ledger did not answer.
    pub async fn begin(ledger: Arc<AnyLedger>) -> Result<Self, LedgerError> {
        let (now, pauses) = watch::channel(Arc::new(read(&ledger, &BTreeMap::new()).await?));
        tokio::spawn(async move {
            let mut poll = interval(POLL_INTERVAL);
            poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !now.is_closed() {
                poll.tick().await;
                let before = Arc::clone(&now.borrow());
                // A fault is logged by those who need the ledger to go on.
                if let Ok(read) = read(&ledger, &before.paused).await
                    && read.paused != before.paused
                {
                    now.send_replace(Arc::new(read));
                }
            }
        });
        Ok(Self(pauses))
    }

    /// Logs what is paused of these targets, and shows it in metrics and readiness, until what this returns is dropped.
    pub fn show(&self, names: &[String], metrics: &Metrics, health: &Health) -> AbortOnDropHandle<()> {
        let (mut pauses, health) = (self.0.clone(), health.clone());
        let gauges: BTreeMap<String, _> =
            names.iter().map(|name| (name.clone(), metrics.paused(name))).collect();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut shown: BTreeSet<String> = BTreeSet::new();
            loop {
                let now = Arc::clone(&pauses.borrow_and_update());
                let ours = now.paused.iter().filter(|(name, _)| gauges.contains_key(*name));
                let paused: BTreeMap<&String, &Pause> = ours.collect();
                for (name, pause) in &paused {
                    if !shown.contains(*name) {
                        log_paused(name, pause);
                    }
                }
                for name in &shown {
                    if !paused.contains_key(name) {
                        log_resumed(name, now.resumed.get(name));
                    }
                }
                for (name, gauge) in &gauges {
                    gauge.set(i64::from(paused.contains_key(name)));
                }
                health.set_paused(
                    paused.iter().map(|(name, pause)| format!("{name} {}", since(pause))).collect(),
                );
                shown = paused.into_keys().cloned().collect();
                if pauses.changed().await.is_err() {
                    return; // the process ends
                }
            }
        }))
    }

    /// Since when the target is paused, by whom and why; `None`: it is not.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Pause> {
        self.0.borrow().paused.get(name).cloned()
    }

    /// For one driver. `names`: of the targets, in the order of the config.
    #[must_use]
    pub fn watch(&self, names: Arc<[String]>) -> PauseWatch {
        let mut changes = self.0.clone();
        changes.mark_changed();
        PauseWatch { changes, last_seen: vec![false; names.len()], names }
    }
}

async fn read(ledger: &AnyLedger, before: &BTreeMap<String, Pause>) -> Result<PausesNow, LedgerError> {
    let paused = ledger.poll_paused_targets().await?;
    let paused: BTreeMap<String, Pause> =
        paused.into_iter().map(|target| (target.name, target.pause)).collect();
    let mut resumed = BTreeMap::new();
    if before.keys().any(|name| !paused.contains_key(name)) {
        // It is for the log alone.
        let newest =
            ledger.changes(&ChangeFilter::default(), None, CHANGES_LOOKED_AT).await.unwrap_or_default();
        for change in newest {
            if let (ChangeKind::ResumeTarget, ChangeSubject::Named(name)) = (change.kind, change.subject) {
                resumed.entry(name).or_insert(change.operator_reason);
            }
        }
        resumed.retain(|name, _| before.contains_key(name) && !paused.contains_key(name));
    }
    Ok(PausesNow { paused, resumed })
}

fn log_paused(name: &str, pause: &Pause) {
    let OperatorReason { who, why } = &pause.operator_reason;
    let since = format_millis(pause.since_ms);
    info!(
        target_name = name,
        who = printable(who),
        why = printable(why),
        since,
        "target paused by a person: requests in flight end, none starts, and its updates wait until it is resumed"
    );
}

fn log_resumed(name: &str, operator_reason: Option<&OperatorReason>) {
    let (who, why) =
        operator_reason.map_or(("unknown", ""), |reason| (reason.who.as_str(), reason.why.as_str()));
    info!(
        target_name = name,
        who = printable(who),
        why = printable(why),
        "target resumed by a person: its updates are attempted"
    );
}

/// One driver's access to them.
#[derive(Debug)]
pub struct PauseWatch {
    changes: watch::Receiver<Arc<PausesNow>>,
    names: Arc<[String]>,
    /// Of each target.
    last_seen: Vec<bool>,
}

impl PauseWatch {
    /// Waits until [`Self::take_changes`] may return something; at first at once.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await; // the process ends
        }
    }

    /// What has changed since the last call, for the core.
    pub fn take_changes(&mut self) -> Vec<Event> {
        let now = Arc::clone(&self.changes.borrow_and_update());
        let mut events = Vec::new();
        for (number, (name, last_seen)) in self.names.iter().zip(&mut self.last_seen).enumerate() {
            let (target, paused) = (TargetId(number), now.paused.contains_key(name));
            if std::mem::replace(last_seen, paused) != paused {
                events.push(if paused { Event::TargetPaused(target) } else { Event::TargetResumed(target) });
            }
        }
        events
    }

    /// Returns true if the core was told that the target is paused.
    #[must_use]
    pub fn is_paused(&self, target: TargetId) -> bool {
        self.last_seen.get(target.0).copied().unwrap_or(false)
    }
}
