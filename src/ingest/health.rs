//! Whether the door is ready: it is connected, and not asked to stop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::inspect::doors::DRAINING;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct DoorHealth(Arc<Mutex<(DoorStage, Instant)>>);

#[derive(Debug)]
enum DoorStage {
    /// Why nothing can be published now.
    Unconnected(String),
    Connected,
    Stopping,
}

impl Default for DoorHealth {
    fn default() -> Self {
        let stage = DoorStage::Unconnected("waiting for the broker".to_owned());
        Self(Arc::new(Mutex::new((stage, Instant::now()))))
    }
}

impl DoorHealth {
    pub(super) fn set_connected(&self) {
        self.set(DoorStage::Connected);
    }

    pub(super) fn set_unconnected(&self, why: String) {
        self.set(DoorStage::Unconnected(why));
    }

    pub(super) fn set_stopping(&self) {
        self.set(DoorStage::Stopping);
    }

    /// A stop is for good.
    fn set(&self, stage: DoorStage) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&current.0, &stage) {
            (DoorStage::Stopping, _) => {}
            // For another reason, but for just as long.
            (DoorStage::Unconnected(_), DoorStage::Unconnected(_)) => current.0 = stage,
            _ => *current = (stage, Instant::now()),
        }
    }

    /// Why this process is not ready; `None`: it is ready.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        self.unready_for().map(|(why, _)| why)
    }

    /// As [`Self::unready`], and for how long.
    pub(super) fn unready_for(&self) -> Option<(String, Duration)> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = match &current.0 {
            DoorStage::Connected => return None,
            DoorStage::Unconnected(why) => why.clone(),
            DoorStage::Stopping => DRAINING.to_owned(),
        };
        Some((why, current.1.elapsed()))
    }
}
