//! What people are to be told of that several processes can see: targets that are shut, and partitions without an owner. One
//! process tells it: the first, of those that are alive. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::event::{NotifyEvent, Place, ShutTarget};
use lanekeeper_broker::{AnnouncedEvents, PresentReplica};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// What is seen at one moment.
#[derive(Clone, Debug)]
pub(super) struct Observation<'a> {
    pub(super) now: Instant,
    /// Whose notes come, in the order of all.
    pub(super) replicas: &'a [PresentReplica],
    /// What is shut here, and why.
    pub(super) shut: &'a BTreeMap<String, String>,
    /// The names that targets can be shut under.
    pub(super) targets: &'a BTreeSet<String>,
    /// The partitions that this process consumes.
    pub(super) partitions: &'a BTreeSet<Place>,
    /// False: notes are not published now (an alarm of the broker), so that nobody knows who owns what.
    pub(super) owners_known: bool,
    /// What people were told, as the notes say.
    pub(super) announced: &'a AnnouncedEvents,
}

impl Observation<'_> {
    /// Partitions that no note names as owned: it is to be seen if updates wait in their queues. An owner that never got an
    /// update has claimed nothing, so that not all of them lack an owner.
    pub(super) fn unclaimed(&self) -> BTreeSet<Place> {
        if !self.owners_known {
            return BTreeSet::new();
        }
        let owned: BTreeSet<Place> =
            self.replicas.iter().flat_map(|replica| replica.owned.iter().copied()).collect();
        self.partitions.difference(&owned).copied().collect()
    }
}

/// What this process knows, and what people were told.
#[derive(Debug)]
pub(super) struct ClusterEvents {
    instance: String,
    /// How long a process must be the first before it tells anything: until then it may not know the notes of the others.
    grace: Duration,
    /// How long updates wait in a partition without an owner before people are told.
    without_owner_for: Duration,
    first_since: Option<Instant>,
    announced: AnnouncedEvents,
    /// Partitions without an owner in whose queues updates wait, since when.
    waiting_since: BTreeMap<Place, Instant>,
}

impl ClusterEvents {
    pub(super) fn new(instance: &str, grace: Duration, without_owner_for: Duration) -> Self {
        Self {
            instance: instance.to_owned(),
            grace,
            without_owner_for,
            first_since: None,
            announced: AnnouncedEvents::default(),
            waiting_since: BTreeMap::new(),
        }
    }

    /// Takes in what is seen. Returns true if this process is the one that tells.
    pub(super) fn look(&mut self, seen: &Observation<'_>) -> bool {
        let first = seen.replicas.iter().find(|replica| replica.shut.is_some());
        // If no notes come at all, each process tells what it sees: better twice than not at all.
        if first.is_some_and(|first| !first.is_own) {
            self.first_since = None;
            self.waiting_since.clear();
        } else {
            self.first_since.get_or_insert(seen.now);
        }
        let announces = self.first_since.is_some_and(|since| seen.now - since >= self.grace);
        if !announces {
            self.announced = seen.announced.clone();
        }
        announces
    }

    /// For the notes, while this process tells.
    pub(super) fn announced(&self) -> &AnnouncedEvents {
        &self.announced
    }

    /// Targets that are shut for at least one process and were not when people were last told, and the other way round.
    pub(super) fn targets(&mut self, seen: &Observation<'_>) -> Vec<NotifyEvent> {
        let mut shut_at: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for replica in seen.replicas.iter().filter(|replica| !replica.is_own) {
            for name in replica.shut.iter().flatten() {
                shut_at.entry(name).or_default().push(replica.instance.clone());
            }
        }
        for name in seen.shut.keys() {
            shut_at.entry(name).or_default().push(self.instance.clone());
        }
        shut_at.retain(|name, _| seen.targets.contains(*name));
        // A target that the config has no more is neither shut nor open.
        self.announced.shut.retain(|name| seen.targets.contains(name));
        let opened: Vec<String> =
            self.announced.shut.iter().filter(|name| !shut_at.contains_key(name.as_str())).cloned().collect();
        let mut events = Vec::new();
        for name in opened {
            self.announced.shut.remove(&name);
            events.push(NotifyEvent::TargetOpened(name));
        }
        for (name, mut shut_at) in shut_at {
            if self.announced.shut.insert(name.to_owned()) {
                shut_at.sort();
                let why = seen.shut.get(name).cloned().unwrap_or_default();
                events.push(NotifyEvent::TargetShut(ShutTarget { target: name.to_owned(), why, shut_at }));
            }
        }
        events
    }

    /// `ready`: how many updates wait in the queues of those that are unclaimed.
    pub(super) fn partitions(
        &mut self,
        seen: &Observation<'_>,
        ready: &BTreeMap<Place, u32>,
    ) -> Vec<NotifyEvent> {
        if !seen.owners_known {
            // What was seen before does not hold any more.
            self.waiting_since.clear();
            return Vec::new();
        }
        let unclaimed = seen.unclaimed();
        self.waiting_since
            .retain(|place, _| unclaimed.contains(place) && ready.get(place).is_some_and(|ready| *ready > 0));
        for (place, _) in ready.iter().filter(|(place, ready)| **ready > 0 && unclaimed.contains(*place)) {
            self.waiting_since.entry(*place).or_insert(seen.now);
        }
        let mut events = Vec::new();
        for (layout, partition) in self.announced.without_owner.clone() {
            let place = (LayoutNumber(layout), PartitionNumber(partition));
            if !unclaimed.contains(&place) {
                self.announced.without_owner.remove(&(layout, partition));
                // One that is drained needs no owner any more.
                if seen.partitions.contains(&place) {
                    events.push(NotifyEvent::PartitionOwned(place));
                }
            }
        }
        for (place, since) in &self.waiting_since {
            let announced = (place.0.0, place.1.0);
            if seen.now - *since >= self.without_owner_for && self.announced.without_owner.insert(announced) {
                let ready = ready.get(place).copied().unwrap_or_default();
                events.push(NotifyEvent::PartitionWithoutOwner(*place, ready));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const P0: Place = (LayoutNumber(1), PartitionNumber(0));

    struct World {
        cluster_events: ClusterEvents,
        now: Instant,
        replicas: Vec<PresentReplica>,
        shut: BTreeMap<String, String>,
        ready: u32,
        owners_known: bool,
        announced: AnnouncedEvents,
    }

    fn replica(is_own: bool, shut: &[&str], owned: &[Place]) -> PresentReplica {
        PresentReplica {
            instance: if is_own { "own" } else { "other" }.to_owned(),
            is_own,
            shut: Some(shut.iter().map(|&name| name.to_owned()).collect()),
            owned: owned.iter().copied().collect(),
        }
    }

    impl World {
        /// It has been the first for long enough.
        fn new() -> Self {
            let mut world = Self {
                cluster_events: ClusterEvents::new("own", 10 * SECOND, 60 * SECOND),
                now: Instant::now(),
                replicas: vec![replica(true, &[], &[P0])],
                shut: BTreeMap::new(),
                ready: 0,
                owners_known: true,
                announced: AnnouncedEvents::default(),
            };
            assert_eq!(world.seen(), None, "others may be before it");
            world.after(10);
            assert_eq!(world.seen(), Some(vec![]));
            world
        }

        fn after(&mut self, seconds: u32) {
            self.now += seconds * SECOND;
        }

        /// What is told; `None`: another process tells.
        fn seen(&mut self) -> Option<Vec<String>> {
            let targets = ["crm", "erp"].map(str::to_owned).into();
            let partitions = [P0].into();
            let seen = Observation {
                now: self.now,
                replicas: &self.replicas,
                shut: &self.shut,
                targets: &targets,
                partitions: &partitions,
                owners_known: self.owners_known,
                announced: &self.announced,
            };
            if !self.cluster_events.look(&seen) {
                return None;
            }
            let ready = seen.unclaimed().into_iter().map(|place| (place, self.ready)).collect();
            let mut events = self.cluster_events.targets(&seen);
            events.extend(self.cluster_events.partitions(&seen, &ready));
            Some(events.iter().map(|event| format!("{} {}", event.kind().name(), event.target())).collect())
        }
    }

    fn announced(event: &str) -> Vec<String> {
        vec![event.to_owned()]
    }

    const NOTHING: Option<Vec<String>> = Some(Vec::new());

    #[test]
    fn a_target_is_told_once_however_many_processes_shut_it() {
        let mut world = World::new();
        world.replicas.push(replica(false, &["crm"], &[]));
        assert_eq!(world.seen(), Some(announced("target_shut crm")));
        world.shut.insert("crm".to_owned(), "status 503".to_owned());
        assert_eq!(world.seen(), NOTHING);
        world.replicas[1] = replica(false, &[], &[]);
        assert_eq!(world.seen(), NOTHING, "it is shut here");
        world.shut.clear();
        assert_eq!(world.seen(), Some(announced("target_opened crm")));
    }

    #[test]
    fn who_is_not_the_first_tells_nothing_and_goes_on_where_the_first_has_ended() {
        let mut world = World::new();
        world.replicas.insert(0, replica(false, &["crm"], &[]));
        world.shut.insert("crm".to_owned(), String::new());
        world.announced.shut.insert("crm".to_owned());
        assert_eq!(world.seen(), None);
        world.replicas.remove(0);
        assert_eq!(world.seen(), None, "its notes may come again");
        world.after(10);
        assert_eq!(world.seen(), NOTHING, "people know of it");
        world.shut.clear();
        assert_eq!(world.seen(), Some(announced("target_opened crm")));
    }

    #[test]
    fn a_partition_is_told_if_updates_wait_in_it_for_long_and_nobody_owns_it() {
        let mut world = World::new();
        world.replicas[0] = replica(true, &[], &[]);
        world.after(1000);
        assert_eq!(world.seen(), NOTHING, "it is empty, and so nobody has claimed it");
        world.ready = 5;
        assert_eq!(world.seen(), NOTHING);
        world.after(59);
        world.ready = 0;
        assert_eq!(world.seen(), NOTHING, "it was only slow");
        world.ready = 5;
        assert_eq!(world.seen(), NOTHING);
        world.after(60);
        assert_eq!(world.seen(), Some(announced("partition_without_owner ")));
        assert_eq!(world.seen(), NOTHING);
        world.replicas.push(replica(false, &[], &[P0]));
        assert_eq!(world.seen(), Some(announced("partition_owned ")));
    }

    #[test]
    fn under_an_alarm_nobody_knows_who_owns_what() {
        let mut world = World::new();
        (world.replicas, world.ready, world.owners_known) = (Vec::new(), 5, false);
        assert_eq!(world.seen(), NOTHING);
        world.after(1000);
        assert_eq!(world.seen(), NOTHING);
        world.owners_known = true;
        assert_eq!(world.seen(), NOTHING, "notes are yet to come");
        world.after(60);
        assert_eq!(world.seen(), Some(announced("partition_without_owner ")));
    }

    #[test]
    fn a_target_that_the_config_has_no_more_is_forgotten() {
        let mut world = World::new();
        world.cluster_events.announced.shut.insert("gone".to_owned());
        assert_eq!(world.seen(), NOTHING);
        assert!(world.cluster_events.announced().shut.is_empty());
    }
}
