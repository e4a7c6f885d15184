//! Targets whose rejections a person believes for a time, as `lanekeeper target believe` publishes it in the stream of members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The longest time that a person can have the rejections of a target believed.
pub const BELIEF_MAX: Duration = Duration::from_secs(24 * 3600);
/// The clocks of two hosts differ by less.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(3600);

/// What a person has said of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedBelief {
    /// The name of a target, or of the limits of one.
    pub(crate) target: String,
    /// When it ends, in seconds since 1970.
    pub(crate) until: u64,
}

/// What was read of the targets of this process. Shared by all its layouts.
#[derive(Clone, Debug)]
pub struct Beliefs(Arc<BeliefState>);

#[derive(Debug)]
struct BeliefState {
    names: BTreeSet<String>,
    /// When it ends, in seconds since 1970; at most one for each name (I6).
    until: watch::Sender<BTreeMap<String, u64>>,
}

impl Beliefs {
    /// Of targets of these names; what is said of others is passed over.
    #[must_use]
    pub fn of(names: BTreeSet<String>) -> Self {
        Self(Arc::new(BeliefState { names, until: watch::Sender::default() }))
    }

    /// Up to when the rejections of which target are believed, in seconds since 1970, as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.0.until.subscribe()
    }

    /// A message was read. One that is over, or ends later than any command makes it, changes nothing; neither does one that
    /// ends earlier than another.
    pub(crate) fn observe(&self, now: u64, PublishedBelief { target, until }: &PublishedBelief) {
        let until_max = now.saturating_add((BELIEF_MAX + CLOCKS_DIFFER_MAX).as_secs());
        if !self.0.names.contains(target) || *until <= now || *until > until_max {
            return;
        }
        self.0.until.send_if_modified(|known| {
            let known = known.entry(target.clone()).or_default();
            *known < *until && std::mem::replace(known, *until) < *until
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_or_absurd_or_of_another_target_is_passed_over_and_the_latest_end_counts() {
        let now = 1_700_000_000;
        let check = |observed: &[(&str, u64)], expected: Option<u64>| {
            let beliefs = Beliefs::of(BTreeSet::from(["crm".to_owned()]));
            for (target, until) in observed {
                beliefs.observe(now, &PublishedBelief { target: (*target).to_owned(), until: *until });
            }
            let known = beliefs.watch().borrow().clone();
            let expected = expected.map(|until| ("crm".to_owned(), until)).into_iter().collect();
            assert_eq!(known, expected, "{observed:?}");
        };
        check(&[("crm", now + 60)], Some(now + 60));
        check(&[("crm", now + 86_400)], Some(now + 86_400));
        check(&[("crm", now + 60), ("crm", now + 30)], Some(now + 60));
        check(&[("crm", now + 30), ("crm", now + 60)], Some(now + 60));
        check(
            &[("erp", now + 60), ("crm", now), ("crm", 0), ("crm", u64::MAX), ("crm", now + 172_800)],
            None,
        );
    }
}
