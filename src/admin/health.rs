//! Whether this process does its work: it is attached to every partition, as owner or standing by.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::core::layout::PartitionNumber;

/// Written by the supervisor and the drivers, read by `/readyz`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    /// The broker was not reached yet, or the topology is not complete.
    #[default]
    Starting,
    /// Which partitions are attached.
    Dispatching(Vec<bool>),
    /// Asked to stop.
    Draining,
}

impl Health {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().expect("nothing panics while it holds the stage")
    }

    /// The topology is complete; none of its partitions is attached yet.
    pub fn begin(&self, partitions: u16) {
        *self.stage() = Stage::Dispatching(vec![false; usize::from(partitions)]);
    }

    /// The partition's queue is consumed, or no longer.
    pub fn set_attached(&self, partition: PartitionNumber, attached: bool) {
        if let Stage::Dispatching(all) = &mut *self.stage() {
            all[usize::from(partition.0)] = attached;
        }
    }

    /// The process was asked to stop.
    pub fn set_draining(&self) {
        *self.stage() = Stage::Draining;
    }

    /// Why it is not ready, if it is not.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        match &*self.stage() {
            Stage::Starting => Some("waiting for the broker".to_owned()),
            Stage::Draining => Some("draining".to_owned()),
            Stage::Dispatching(attached) => {
                let apart = (0..).zip(attached).filter(|(_, attached)| !**attached);
                let apart: Vec<String> =
                    apart.map(|(number, _)| PartitionNumber(number).to_string()).collect();
                (!apart.is_empty()).then(|| format!("not attached: {}", apart.join(" ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_attached_to_every_partition() {
        let health = Health::default();
        assert_eq!(health.unready().as_deref(), Some("waiting for the broker"));
        health.begin(2);
        assert_eq!(health.unready().as_deref(), Some("not attached: p000 p001"));
        health.set_attached(PartitionNumber(0), true);
        health.set_attached(PartitionNumber(1), true);
        assert_eq!(health.unready(), None);
        health.set_attached(PartitionNumber(0), false);
        assert_eq!(health.unready().as_deref(), Some("not attached: p000"));
        health.set_draining();
        assert_eq!(health.unready().as_deref(), Some("draining"));
    }
}
