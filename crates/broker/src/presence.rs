//! Which replicas are alive, what each of them owns, and what each knows that people are to be told of, as their notes say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// Replicas that are known of; of more, some are not.
const REPLICAS_MAX: usize = 1024;
/// Names of targets that a note states, each of up to 100 bytes, and partitions. A note with everything that it can state must
/// stay below the 64 KiB that readers take. What it does not state is known to its own replica alone.
const NAMES_MAX: usize = 32;
const PARTITIONS_MAX: usize = 128;

/// What people were told, and is not over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedEvents {
    /// Targets that they were told are shut.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shut: BTreeSet<String>,
    /// Partitions that they were told have no owner: layout and number.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without_owner: BTreeSet<(u32, u16)>,
}

/// What a replica that tells people of events states in its notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notices {
    /// Targets that are shut for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shut: BTreeSet<String>,
    /// What people were told, if it is the replica that tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<AnnouncedEvents>,
}

impl Notices {
    fn bounded(mut self) -> Self {
        let bound = |names: BTreeSet<String>| names.into_iter().take(NAMES_MAX).collect();
        self.shut = bound(self.shut);
        if let Some(announced) = &mut self.announced {
            announced.shut = bound(std::mem::take(&mut announced.shut));
            announced.without_owner =
                std::mem::take(&mut announced.without_owner).into_iter().take(PARTITIONS_MAX).collect();
        }
        self
    }
}

/// A replica whose notes come.
#[derive(Clone, Debug)]
pub struct PresentReplica {
    /// `instance.name`.
    pub instance: String,
    /// It is this process.
    pub is_own: bool,
    /// Targets that are shut for it; `None`: it tells nobody of events.
    pub shut: Option<BTreeSet<String>>,
    /// What it owns.
    pub owned: BTreeSet<(LayoutNumber, PartitionNumber)>,
}

/// Shared by all layouts of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<Mutex<PresenceState>>);

#[derive(Debug, Default)]
struct PresenceState {
    /// For the notes of this process; `None`: it tells nobody of events.
    own: Option<Notices>,
    /// By the name of the process.
    replicas: BTreeMap<String, SeenReplica>,
    /// As the newest note says of a replica that tells people.
    announced: AnnouncedEvents,
}

#[derive(Debug)]
struct SeenReplica {
    instance: String,
    is_own: bool,
    valid_until: Instant,
    shut: Option<BTreeSet<String>>,
    /// Of each layout, until when.
    owned: BTreeMap<u32, (Instant, BTreeSet<u16>)>,
}

/// A note that was read.
#[derive(Debug)]
pub(crate) struct SeenNote<'a> {
    pub(crate) instance: &'a str,
    pub(crate) process: &'a str,
    pub(crate) is_own: bool,
    pub(crate) layout: u32,
    pub(crate) owned: &'a [(u16, u64)],
    pub(crate) notices: Option<&'a Notices>,
}

impl Presence {
    fn state(&self) -> MutexGuard<'_, PresenceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next notes of this process; `None`: it tells nobody of events.
    pub fn state_notices(&self, notices: Option<Notices>) {
        self.state().own = notices.map(Notices::bounded);
    }

    /// For a note.
    pub(crate) fn own(&self) -> Option<Notices> {
        self.state().own.clone()
    }

    /// A note was read, which holds for so long. Notes come in the order of the stream.
    pub(crate) fn observe(&self, note: &SeenNote<'_>, valid_for: Duration) {
        let (now, mut state) = (Instant::now(), self.state());
        if let Some(announced) = note.notices.and_then(|notices| notices.announced.as_ref()) {
            state.announced = announced.clone();
        }
        state.replicas.retain(|_, replica| replica.valid_until > now);
        if state.replicas.len() >= REPLICAS_MAX && !state.replicas.contains_key(note.process) {
            return;
        }
        let valid_until = now + valid_for;
        let replica = state.replicas.entry(note.process.to_owned()).or_insert_with(|| SeenReplica {
            instance: note.instance.to_owned(),
            is_own: note.is_own,
            valid_until,
            shut: None,
            owned: BTreeMap::new(),
        });
        replica.valid_until = valid_until;
        replica.shut = note.notices.map(|notices| notices.shut.clone());
        replica.owned.retain(|_, (until, _)| *until > now);
        let owned = note.owned.iter().map(|(partition, _)| *partition).collect();
        replica.owned.insert(note.layout, (valid_until, owned));
    }

    /// The replicas whose notes come, in an order that is the same for all of them: the first that tells people of events
    /// tells what all of them know.
    #[must_use]
    pub fn replicas(&self) -> Vec<PresentReplica> {
        let (now, state) = (Instant::now(), self.state());
        let present = state.replicas.values().filter(|replica| replica.valid_until > now);
        let present = present.map(|replica| {
            let owned = replica.owned.iter().filter(|(_, (until, _))| *until > now);
            PresentReplica {
                instance: replica.instance.clone(),
                is_own: replica.is_own,
                shut: replica.shut.clone(),
                owned: owned
                    .flat_map(|(layout, (_, owned))| {
                        owned.iter().map(|partition| (LayoutNumber(*layout), PartitionNumber(*partition)))
                    })
                    .collect(),
            }
        });
        present.collect()
    }

    /// What people were told by another replica, or by this one before, and is not over.
    #[must_use]
    pub fn announced(&self) -> AnnouncedEvents {
        self.state().announced.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn note<'a>(process: &'a str, owned: &'a [(u16, u64)], notices: Option<&'a Notices>) -> SeenNote<'a> {
        SeenNote { instance: "host", process, is_own: process == "a", layout: 1, owned, notices }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_present_as_long_as_its_notes_come() {
        let presence = Presence::default();
        let notices = Notices { shut: ["crm".to_owned()].into(), announced: None };
        presence.observe(&note("b", &[(3, 7)], Some(&notices)), 2 * SECOND);
        presence.observe(&note("a", &[], None), SECOND);
        let seen = || -> Vec<(bool, Option<usize>, usize)> {
            let replicas = presence.replicas();
            replicas
                .iter()
                .map(|of| (of.is_own, of.shut.as_ref().map(BTreeSet::len), of.owned.len()))
                .collect()
        };
        assert_eq!(seen(), [(true, None, 0), (false, Some(1), 1)]);
        tokio::time::advance(SECOND).await;
        assert_eq!(seen(), [(false, Some(1), 1)]);
        presence.observe(&note("b", &[], Some(&Notices::default())), SECOND);
        assert_eq!(seen(), [(false, Some(0), 0)]);
        tokio::time::advance(SECOND).await;
        assert_eq!(seen(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_people_were_told_outlives_who_told_them() {
        let presence = Presence::default();
        let announced =
            |shut: &str| AnnouncedEvents { shut: [shut.to_owned()].into(), ..AnnouncedEvents::default() };
        let notices = |announced| Notices { announced, ..Notices::default() };
        presence.observe(&note("a", &[], Some(&notices(Some(announced("crm"))))), SECOND);
        presence.observe(&note("b", &[], Some(&notices(None))), SECOND);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(presence.announced(), announced("crm"));
        presence.observe(&note("b", &[], Some(&notices(Some(announced("erp"))))), SECOND);
        assert_eq!(presence.announced(), announced("erp"));
    }

    #[test]
    fn a_note_has_a_bound() {
        let presence = Presence::default();
        let shut: BTreeSet<String> = (0..1000).map(|n| format!("target-{n}")).collect();
        let without_owner = (0..1000).map(|n| (1, n)).collect();
        let announced = AnnouncedEvents { shut: shut.clone(), without_owner };
        presence.state_notices(Some(Notices { shut, announced: Some(announced) }));
        let notices = presence.own().expect("it was stated");
        let announced = notices.announced.expect("it was stated");
        assert_eq!((notices.shut.len(), announced.shut.len(), announced.without_owner.len()), (32, 32, 128));
    }
}
