//! How many connections there are at once. A new one takes the place of the oldest that is idle: of those that have shown no
//! token or signature, or else of all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

/// The connections of the door, oldest first.
#[derive(Debug)]
pub(super) struct DoorConnections {
    connections_max: usize,
    open: Mutex<BTreeMap<u64, (Activity, AbortHandle)>>,
}

/// Whether somebody who is known sends by a connection. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<ActivityState>);

#[derive(Debug, Default)]
struct ActivityState {
    /// A request of somebody who is known is at work.
    is_busy: AtomicBool,
    /// A right token or signature was shown.
    is_known: AtomicBool,
}

impl Activity {
    /// A request of somebody who is known begins.
    pub(super) fn begin(&self) {
        self.0.is_known.store(true, Ordering::Relaxed);
        self.0.is_busy.store(true, Ordering::Relaxed);
    }

    /// The request has its answer.
    pub(super) fn end(&self) {
        self.0.is_busy.store(false, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        !self.0.is_busy.load(Ordering::Relaxed)
    }

    fn is_of_a_stranger(&self) -> bool {
        self.is_idle() && !self.0.is_known.load(Ordering::Relaxed)
    }
}

impl DoorConnections {
    pub(super) fn new(connections_max: usize) -> Self {
        Self { connections_max, open: Mutex::default() }
    }

    /// Makes room for one more. Returns false if there is none: all of them are at work.
    pub(super) fn make_room(&self) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < self.connections_max {
            return true;
        }
        open.retain(|_, (_, task)| !task.is_finished());
        if open.len() < self.connections_max {
            return true;
        }
        let strange = open.iter().find(|(_, (activity, _))| activity.is_of_a_stranger());
        let idle = strange.or_else(|| open.iter().find(|(_, (activity, _))| activity.is_idle()));
        let Some(number) = idle.map(|(number, _)| *number) else { return false };
        if let Some((_, task)) = open.remove(&number) {
            task.abort();
        }
        true
    }

    pub(super) fn add(&self, number: u64, activity: Activity, task: AbortHandle) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (activity, task));
    }

    pub(super) fn remove(&self, number: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_that_is_idle_makes_room_first_and_who_is_at_work_never() {
        let connections = DoorConnections::new(3);
        let [known, strange, busy]: [Activity; 3] = Default::default();
        known.begin();
        known.end();
        busy.begin();
        let tasks = [&known, &strange, &busy].map(|activity| {
            let task = tokio::spawn(std::future::pending::<()>());
            let number = [&known, &strange, &busy].iter().position(|of| Arc::ptr_eq(&of.0, &activity.0));
            connections.add(number.expect("it is one of them") as u64, activity.clone(), task.abort_handle());
            task
        });
        let left = || connections.open.lock().unwrap().keys().copied().collect::<Vec<_>>();
        let add = |number| {
            let activity = Activity::default();
            activity.begin();
            connections.add(number, activity, tasks[2].abort_handle());
        };
        assert!(connections.make_room());
        assert_eq!(left(), [0, 2]);
        add(3);
        assert!(connections.make_room());
        assert_eq!(left(), [2, 3]);
        add(4);
        assert!(!connections.make_room());
    }
}
