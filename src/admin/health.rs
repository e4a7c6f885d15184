//! Whether this process does its work: it is attached to every partition, as owner or standing by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::core::layout::PartitionNumber;

/// Written by the drivers, read by `/readyz`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    attached: Vec<AtomicBool>,
    draining: AtomicBool,
}

impl Health {
    /// For this many partitions, none attached yet.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        let attached = (0..partitions).map(|_| AtomicBool::new(false)).collect();
        Self(Arc::new(State { attached, draining: AtomicBool::new(false) }))
    }

    /// The partition's queue is consumed, or no longer.
    pub fn set_attached(&self, partition: PartitionNumber, attached: bool) {
        self.0.attached[usize::from(partition.0)].store(attached, Ordering::Relaxed);
    }

    /// The process was asked to stop.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Why it is not ready, if it is not.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Some("draining".to_owned());
        }
        let apart = |(number, attached): (usize, &AtomicBool)| {
            let number = u16::try_from(number).ok()?;
            (!attached.load(Ordering::Relaxed)).then(|| PartitionNumber(number).to_string())
        };
        let missing: Vec<String> = self.0.attached.iter().enumerate().filter_map(apart).collect();
        (!missing.is_empty()).then(|| format!("not attached: {}", missing.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_attached_to_every_partition() {
        let health = Health::new(2);
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
