//! Whether this process is ready: it consumes every partition, as owner or standing by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use crate::wall_time::format_time;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// The readiness of this process. The supervisor and the drivers write it, `/readyz` reads it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<HealthState>);

#[derive(Debug, Default)]
struct HealthState {
    stage: Mutex<Stage>,
    /// Targets that are shut, by name: since when, and how the newest attempt failed.
    shut: Mutex<BTreeMap<String, (SystemTime, String)>>,
    /// Targets that a person has paused, each with the time, the person and the reason.
    paused: Mutex<Vec<String>>,
    /// Layouts whose lease has run out.
    lapsed: Mutex<BTreeSet<LayoutNumber>>,
}

#[derive(Debug, Default)]
enum Stage {
    /// The broker was not reached yet, or the topology is not complete.
    #[default]
    Starting,
    /// Which partitions are attached: their queue is consumed.
    Dispatching(BTreeMap<(LayoutNumber, PartitionNumber), bool>),
    /// Asked to stop.
    Stopping,
}

impl Health {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.stage.lock().expect("nothing panics while it holds the stage")
    }

    /// A layout starts: none of these partitions is attached yet. Partitions of other layouts stay until [`Self::end`].
    pub fn begin(&self, layout: LayoutNumber, partitions: impl IntoIterator<Item = PartitionNumber>) {
        let stage = &mut *self.stage();
        if matches!(stage, Stage::Starting) {
            *stage = Stage::Dispatching(BTreeMap::new());
        }
        if let Stage::Dispatching(all) = stage {
            all.extend(partitions.into_iter().map(|partition| ((layout, partition), false)));
        }
    }

    /// The partition is drained and does not count any more.
    pub fn end(&self, layout: LayoutNumber, partition: PartitionNumber) {
        if let Stage::Dispatching(all) = &mut *self.stage() {
            all.remove(&(layout, partition));
        }
    }

    /// The partition's queue is consumed, or no longer.
    pub fn set_attached(&self, layout: LayoutNumber, partition: PartitionNumber, attached: bool) {
        if let Stage::Dispatching(all) = &mut *self.stage() {
            all.entry((layout, partition)).and_modify(|known| *known = attached);
        }
    }

    /// The lease of this process for a layout is good, or has run out.
    pub fn set_lease(&self, layout: LayoutNumber, good: bool) {
        let mut lapsed = self.lapsed();
        if good {
            lapsed.remove(&layout)
        } else {
            lapsed.insert(layout)
        };
    }

    fn lapsed(&self) -> MutexGuard<'_, BTreeSet<LayoutNumber>> {
        self.0.lapsed.lock().expect("nothing panics while it holds the layouts")
    }

    /// All partitions are attached again, with another config. Which targets are shut is found out again.
    pub fn set_attaching_again(&self) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Dispatching(_)) {
            *stage = Stage::Starting;
        }
        drop(stage);
        self.shut_targets().clear();
        self.lapsed().clear();
    }

    /// The process was asked to stop.
    pub fn set_stopping(&self) {
        *self.stage() = Stage::Stopping;
    }

    /// The target was shut at this time, because it fails for everyone, and how; `None`: it is open again.
    pub fn set_shut(&self, target: &str, since: Option<(SystemTime, String)>) {
        let mut shut = self.shut_targets();
        match since {
            Some(since) => shut.insert(target.to_owned(), since),
            None => shut.remove(target),
        };
    }

    /// A target that is shut has failed once more, and how.
    pub fn set_shut_why(&self, target: &str, why: &str) {
        if let Some((_, shown)) = self.shut_targets().get_mut(target) {
            why.clone_into(shown);
        }
    }

    /// Which targets are shut, since when and why; `None`: all are open. A shut target does not make this process unready.
    #[must_use]
    pub fn shut(&self) -> Option<String> {
        let shut = self.shut_targets();
        let described = |(target, (since, why)): (&String, &(SystemTime, String))| {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            format!("{target} since {}{why}", format_time(*since))
        };
        let described: Vec<String> = shut.iter().map(described).collect();
        (!described.is_empty()).then(|| format!("shut: {}", described.join(", ")))
    }

    /// Which targets are shut, and why.
    #[must_use]
    pub fn shut_reasons(&self) -> BTreeMap<String, String> {
        self.shut_targets().iter().map(|(target, (_, why))| (target.clone(), why.clone())).collect()
    }

    /// The partitions that this process is to consume.
    #[must_use]
    pub fn partitions(&self) -> BTreeSet<(LayoutNumber, PartitionNumber)> {
        match &*self.stage() {
            Stage::Dispatching(all) => all.keys().copied().collect(),
            Stage::Starting | Stage::Stopping => BTreeSet::new(),
        }
    }

    /// These targets are paused now: each with its name, since when, by whom and why.
    pub fn set_paused(&self, described: Vec<String>) {
        *self.paused_targets() = described;
    }

    /// Which targets a person has paused, since when, who and why; `None`: none. A paused target does not make this process
    /// unready.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        let paused = self.paused_targets();
        (!paused.is_empty()).then(|| format!("paused: {}", paused.join(", ")))
    }

    fn paused_targets(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.paused.lock().expect("nothing panics while it holds the texts")
    }

    fn shut_targets(&self) -> MutexGuard<'_, BTreeMap<String, (SystemTime, String)>> {
        self.0.shut.lock().expect("nothing panics while it holds the names")
    }

    /// Why this process is not ready; `None`: it is ready.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        match &*self.stage() {
            Stage::Starting => Some("waiting for the broker".to_owned()),
            Stage::Stopping => Some("draining".to_owned()),
            Stage::Dispatching(attached) => {
                let lapsed = self.lapsed();
                let lapsed = attached.keys().any(|(layout, _)| lapsed.contains(layout));
                let apart = attached.iter().filter(|(_, attached)| !**attached);
                let apart: Vec<String> =
                    apart.map(|((layout, partition), _)| format!("l{}.{partition}", layout.0)).collect();
                let apart = (!apart.is_empty()).then(|| format!("not attached: {}", apart.join(" ")));
                let reasons: Vec<String> =
                    lapsed.then(|| "lease lapsed".to_owned()).into_iter().chain(apart).collect();
                (!reasons.is_empty()).then(|| reasons.join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn targets_that_are_shut_are_named_with_the_time_and_do_not_count() {
        let health = Health::default();
        assert_eq!(health.shut(), None);
        let since = |seconds| Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), String::new()));
        health.set_shut("erp", since(7));
        health.set_shut("crm", since(86_400));
        let described = "shut: crm since 1970-01-02T00:00:00Z, erp since 1970-01-01T00:00:07Z";
        assert_eq!(health.shut().as_deref(), Some(described));
        health.set_shut("crm", Some((SystemTime::UNIX_EPOCH - Duration::from_secs(1), String::new())));
        assert!(health.shut().is_some_and(|shut| shut.starts_with("shut: crm since before 1970")));
        health.set_shut("crm", None);
        assert_eq!(health.shut().as_deref(), Some("shut: erp since 1970-01-01T00:00:07Z"));
        health.begin(LayoutNumber(1), []);
        assert_eq!(health.unready(), None);
    }

    #[test]
    fn ready_is_attached_to_every_partition() {
        let (one, two) = (LayoutNumber(1), LayoutNumber(2));
        let health = Health::default();
        assert_eq!(health.unready().as_deref(), Some("waiting for the broker"));
        health.begin(one, [0, 1].map(PartitionNumber));
        assert_eq!(health.unready().as_deref(), Some("not attached: l1.p000 l1.p001"));
        health.set_attached(one, PartitionNumber(0), true);
        health.set_attached(one, PartitionNumber(1), true);
        assert_eq!(health.unready(), None);
        health.set_attached(one, PartitionNumber(0), false);
        assert_eq!(health.unready().as_deref(), Some("not attached: l1.p000"));
        health.begin(two, [0].map(PartitionNumber));
        assert_eq!(health.unready().as_deref(), Some("not attached: l1.p000 l2.p000"), "two side by side");
        health.set_attached(two, PartitionNumber(0), true);
        health.end(one, PartitionNumber(0));
        assert_eq!(health.unready(), None, "a partition that is drained is not missed");
        health.set_attached(one, PartitionNumber(0), false);
        assert_eq!(health.unready(), None);
        health.set_stopping();
        health.begin(two, [1].map(PartitionNumber));
        assert_eq!(health.unready().as_deref(), Some("draining"));
    }
}
