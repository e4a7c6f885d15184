//! The doors that this process has heard of: the last report of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::inspect::doors::{DOOR_MESSAGE_FORM, DOORS_MAX, DoorMessage, DoorReport, ReportedDoor};
use lanekeeper_broker::DoorEvent;

/// A door that has said nothing for so long is forgotten: it has ended, or goes on as another process.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The reports of all doors together: an answer of this process has them all.
const BYTES_MAX: usize = 1024 * 1024;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ReportedDoors(Arc<Mutex<DoorsState>>);

#[derive(Debug, Default)]
struct DoorsState {
    /// Since when reports come; `None`: they do not come now.
    listening_since: Option<Instant>,
    /// By process.
    doors: BTreeMap<String, LastReport>,
    /// The last report found no room.
    is_full: bool,
}

#[derive(Debug)]
struct LastReport {
    at: Instant,
    bytes: usize,
    ended: bool,
    report: DoorReport,
}

impl ReportedDoors {
    /// Takes in what comes of doors.
    pub fn observe(&self, event: DoorEvent<'_>) {
        self.observe_at(event, Instant::now());
    }

    fn observe_at(&self, event: DoorEvent<'_>, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            DoorEvent::Listening => state.listening_since = Some(now),
            DoorEvent::Interrupted => state.listening_since = None,
            DoorEvent::Report(body) => match serde_json::from_slice::<DoorMessage>(body) {
                Ok(DoorMessage { form: DOOR_MESSAGE_FORM, ended, door }) => {
                    state.take(door.bounded(), (ended, body.len()), now);
                }
                // A door of another version, or somebody who publishes something else: there is one line for each.
                Ok(_) | Err(_) => {
                    debug!("a report of a door was passed over that this version does not understand");
                }
            },
        }
    }

    /// What is known now.
    pub fn known(&self) -> Vec<ReportedDoor> {
        self.known_at(Instant::now())
    }

    fn known_at(&self, now: Instant) -> Vec<ReportedDoor> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget(now);
        let since = state.listening_since;
        let doors = state.doors.values().map(|LastReport { at, ended, report, .. }| ReportedDoor {
            report: report.clone(),
            // Nothing could be heard before.
            silent_ms: since.map(|since| millis(now.saturating_duration_since((*at).max(since)))),
            ended: *ended,
        });
        doors.collect()
    }
}

impl DoorsState {
    fn take(&mut self, report: DoorReport, (ended, bytes): (bool, usize), now: Instant) {
        self.forget(now);
        let process = report.process.clone();
        let others = self.doors.iter().filter(|(known, _)| **known != process);
        let (doors, bytes_of_others) =
            others.fold((0, 0), |(doors, sum), (_, door)| (doors + 1, sum + door.bytes));
        if doors >= DOORS_MAX || bytes_of_others + bytes > BYTES_MAX {
            if !std::mem::replace(&mut self.is_full, true) {
                warn!(
                    doors,
                    "more doors report than are shown, or somebody else publishes to their exchange: the rest is left out"
                );
            }
            return;
        }
        self.is_full = false;
        // Reports of one door come in order: what was on its way when it ended comes before.
        self.doors.insert(process, LastReport { at: now, bytes, ended, report });
    }

    fn forget(&mut self, now: Instant) {
        let since = self.listening_since.unwrap_or(now);
        self.doors.retain(|_, door| now.saturating_duration_since(door.at.max(since)) < FORGOTTEN_AFTER);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn message(process: &str, ended: bool, form: u32) -> Vec<u8> {
        let door = DoorReport { process: process.to_owned(), ..DoorReport::default() };
        serde_json::to_vec(&DoorMessage { form, ended, door }).expect("plain data")
    }

    /// Name, milliseconds of silence, and if it has ended.
    fn known(doors: &ReportedDoors, now: Instant) -> Vec<(String, Option<u64>, bool)> {
        let known = doors.known_at(now).into_iter();
        known.map(|door| (door.report.process, door.silent_ms, door.ended)).collect()
    }

    #[test]
    fn a_door_is_known_by_its_last_report_until_it_is_silent_for_long() {
        let (doors, start) = (ReportedDoors::default(), Instant::now());
        doors.observe_at(DoorEvent::Listening, start);
        for process in ["a", "b"] {
            doors.observe_at(DoorEvent::Report(&message(process, false, 1)), start + SECOND);
        }
        doors.observe_at(DoorEvent::Report(&message("b", true, 1)), start + 2 * SECOND);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(
            known(&doors, start + 3 * SECOND),
            [(a, Some(2_000), false), (b.clone(), Some(1_000), true)]
        );
        assert_eq!(known(&doors, start + 61 * SECOND), [(b, Some(59_000), true)]);
        assert_eq!(known(&doors, start + 63 * SECOND), []);
    }

    #[test]
    fn silence_counts_only_while_reports_can_come() {
        let (doors, start) = (ReportedDoors::default(), Instant::now());
        doors.observe_at(DoorEvent::Listening, start);
        doors.observe_at(DoorEvent::Report(&message("a", false, 1)), start);
        doors.observe_at(DoorEvent::Interrupted, start + SECOND);
        let a = "a".to_owned();
        assert_eq!(known(&doors, start + 100 * SECOND), [(a.clone(), None, false)]);
        doors.observe_at(DoorEvent::Listening, start + 100 * SECOND);
        assert_eq!(known(&doors, start + 101 * SECOND), [(a, Some(1_000), false)]);
    }

    #[test]
    fn what_is_not_understood_or_too_much_is_passed_over() {
        let (doors, now) = (ReportedDoors::default(), Instant::now());
        for body in [b"no JSON".to_vec(), b"{}".to_vec(), message("a", false, 2)] {
            doors.observe_at(DoorEvent::Report(&body), now);
        }
        assert_eq!(known(&doors, now), []);
        for number in 0..2 * DOORS_MAX {
            doors.observe_at(DoorEvent::Report(&message(&number.to_string(), false, 1)), now);
        }
        assert_eq!(known(&doors, now).len(), DOORS_MAX);
    }
}
