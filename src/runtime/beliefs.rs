//! Hands what people say with `lanekeeper target believe` to the breakers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::task::AbortOnDropHandle;

use super::breakers::Breakers;
use lanekeeper_broker::{Beliefs, Clock};
use lanekeeper_core::routes::TargetId;

/// Follows it until what this returns is dropped. `names`: those that the targets go by.
pub fn follow(
    beliefs: &Beliefs,
    names: BTreeMap<String, TargetId>,
    breakers: Breakers,
    clock: Clock,
) -> AbortOnDropHandle<()> {
    let mut watch = beliefs.watch();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            let believed = watch.borrow_and_update().clone();
            for (name, until) in &believed {
                if let Some(target) = names.get(name).filter(|_| known.get(name) != Some(until)) {
                    breakers.believe(clock.now(), *target, seconds_to(*until));
                }
            }
            known = believed;
            if watch.changed().await.is_err() {
                return; // the process ends
            }
        }
    }))
}

/// From now to so many seconds after 1970, by the wall clock.
fn seconds_to(until: u64) -> Duration {
    let until = UNIX_EPOCH + Duration::from_secs(until);
    until.duration_since(SystemTime::now()).unwrap_or_default()
}
