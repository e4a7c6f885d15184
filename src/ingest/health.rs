//! Whether the door is ready: it is connected, and not asked to stop.

use std::sync::{Arc, Mutex, PoisonError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct DoorHealth(Arc<Mutex<DoorStage>>);

#[derive(Debug)]
enum DoorStage {
    /// Why nothing can be published now.
    Unconnected(String),
    Connected,
    Stopping,
}

impl Default for DoorHealth {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(DoorStage::Unconnected("waiting for the broker".to_owned()))))
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
        if !matches!(*current, DoorStage::Stopping) {
            *current = stage;
        }
    }

    /// Why this process is not ready; `None`: it is ready.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            DoorStage::Connected => None,
            DoorStage::Unconnected(why) => Some(why.clone()),
            DoorStage::Stopping => Some("draining".to_owned()),
        }
    }
}
