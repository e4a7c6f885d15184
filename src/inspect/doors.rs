//! What doors report of themselves, and if a person must act on one. Doors publish reports; dispatchers keep the last one of
//! each and answer for them, so that a door needs no right but to publish. All times are milliseconds since 1970-01-01 UTC, by
//! the wall clock of the door.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::words::length;
use crate::printable::printable;

/// Form of the messages that this program reads.
pub const DOOR_MESSAGE_FORM: u32 = 1;
/// Clients and hooks of a report; of more, those that have sent nothing are left out first.
pub const SENDERS_MAX: usize = 64;
/// Doors of one answer.
pub const DOORS_MAX: usize = 256;
/// A door reports every two seconds.
const SILENT_MAX_MS: u64 = 10_000;
/// How long a door may be without its broker, or the broker without a confirm, before a person must act.
const STUCK_MAX_MS: i64 = 10_000;
/// So many requests in a row without a good signature are no chance.
const WRONG_SIGNATURES_MIN: u64 = 5;
/// Older failures are no reason to act now.
const FAILURE_AGE_MAX_MS: i64 = 3_600_000;
/// What a door that was asked to stop says of itself.
pub const DRAINING: &str = "draining";
/// Doors, or hooks, that are named one by one.
const NAMED_MAX: usize = 5;
const TEXT_CHARS_MAX: usize = 300;
const CODES_MAX: usize = 64;

/// What a door publishes. Fields that came later are absent where they say nothing, so that programs of before read these
/// messages, and their messages are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorMessage {
    /// [`DOOR_MESSAGE_FORM`]; others are passed over.
    pub form: u32,
    /// The door ends.
    #[serde(default)]
    pub ended: bool,
    /// How it is.
    pub door: DoorReport,
}

/// How one door is. Counts are since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorReport {
    /// `instance.name`.
    pub instance: String,
    /// Another one at each start.
    pub process: String,
    /// Of Lanekeeper.
    pub version: String,
    /// When it started.
    pub started_at_ms: i64,
    /// When it reported this.
    pub reported_at_ms: i64,
    /// Why `/readyz` does not answer 200, such as that the broker cannot be reached; `None`: it does.
    pub unready: Option<String>,
    /// Since when.
    pub unready_since_ms: Option<i64>,
    /// The broker takes no publishes from it, since it has a memory or disk alarm.
    pub blocked: bool,
    /// How often its connection was made again.
    pub reconnects: u64,
    /// Updates that the broker refused, and that were published again.
    pub negative_confirms: u64,
    /// Updates that wait for their confirm.
    pub pending: usize,
    /// `ingest.pending_max`.
    pub pending_max: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// `ingest.pending_bytes_max`.
    pub pending_bytes_max: usize,
    /// Updates wait, and the broker has confirmed none since then.
    pub no_confirm_since_ms: Option<i64>,
    /// Updates that were accepted, of all clients and hooks.
    pub accepted: u64,
    /// Updates that were known.
    pub known: u64,
    /// Requests that were refused, by the code of the problem; also those of which it is not known who sent them.
    pub refused: BTreeMap<String, u64>,
    /// Why the last one was refused of which it is not known who sent it.
    pub last_failure: Option<String>,
    /// When that was.
    pub last_failure_ms: Option<i64>,
    /// Its clients, then its hooks, in the order of the config; at most 64.
    pub senders: Vec<DoorSenderReport>,
    /// How many were left out.
    pub senders_left_out: usize,
}

/// What a door knows of a client or a hook. Counts are since the start of the door.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorSenderReport {
    /// Its name.
    pub name: String,
    /// It is a hook.
    pub is_hook: bool,
    /// Updates that were accepted.
    pub accepted: u64,
    /// Updates that were known.
    pub known: u64,
    /// Updates that were accepted or known in the last minute.
    pub per_minute: u64,
    /// Updates that wait for their confirm.
    pub pending: usize,
    /// Requests that were refused, by the code of the problem.
    pub refused: BTreeMap<String, u64>,
    /// Of a hook: requests without a good signature, since the last one with a good one.
    pub wrong_signatures: u64,
    /// When an update was accepted or known for the last time.
    pub last_accepted_ms: Option<i64>,
    /// Of a hook: when a signature was good for the last time.
    pub last_signed_ms: Option<i64>,
    /// Why the last request was refused that was.
    pub last_failure: Option<String>,
    /// When that was.
    pub last_failure_ms: Option<i64>,
}

/// The last report of a door, as a dispatcher has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedDoor {
    /// What it reported.
    #[serde(flatten)]
    pub report: DoorReport,
    /// How long ago it came, in milliseconds by the clock of the dispatcher; `None`: the dispatcher takes in no reports now.
    #[serde(default)]
    pub silent_ms: Option<u64>,
    /// The door has said that it ends.
    #[serde(default)]
    pub ended: bool,
}

impl DoorReport {
    /// With no more than a dispatcher keeps: whoever may publish reports could write anything.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.instance, &mut self.process, &mut self.version] {
            bound(text);
        }
        for text in [&mut self.unready, &mut self.last_failure].into_iter().flatten() {
            bound(text);
        }
        bound_codes(&mut self.refused);
        self.senders_left_out =
            self.senders_left_out.saturating_add(self.senders.len().saturating_sub(SENDERS_MAX));
        self.senders.truncate(SENDERS_MAX);
        for sender in &mut self.senders {
            bound(&mut sender.name);
            if let Some(text) = &mut sender.last_failure {
                bound(text);
            }
            bound_codes(&mut sender.refused);
        }
        self
    }

    /// Requests that were refused, whoever sent them.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        sum(&self.refused)
    }

    /// Updates that were accepted or known in the last minute.
    #[must_use]
    pub fn per_minute(&self) -> u64 {
        self.senders.iter().map(|sender| sender.per_minute).fold(0, u64::saturating_add)
    }

    /// The newest failure of all, with the client or hook that it was of, and when it was.
    #[must_use]
    pub fn newest_failure(&self) -> Option<(Option<&str>, &str, i64)> {
        let of_nobody = self.last_failure.as_deref().zip(self.last_failure_ms);
        let of_nobody = of_nobody.map(|(failure, at)| (None, failure, at));
        let of_senders = self.senders.iter().filter_map(|sender| {
            let (failure, at) = sender.last_failure.as_deref().zip(sender.last_failure_ms)?;
            Some((Some(sender.name.as_str()), failure, at))
        });
        of_senders.chain(of_nobody).max_by_key(|(_, _, at)| *at)
    }

    /// Whether it reaches the broker, in a few words.
    #[must_use]
    pub fn broker_words(&self) -> String {
        match (&self.unready, self.blocked) {
            (Some(why), _) => why.clone(),
            (None, true) => "blocked by an alarm".to_owned(),
            (None, false) => "connected".to_owned(),
        }
    }
}

impl DoorSenderReport {
    /// Requests that were refused.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        sum(&self.refused)
    }

    /// What it is, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.is_hook { "hook" } else { "client" }
    }
}

impl ReportedDoor {
    /// Returns true if a report is overdue.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent_ms.is_some_and(|silent| silent > SILENT_MAX_MS)
    }

    /// How it is, in a few words.
    #[must_use]
    pub fn state_words(&self) -> String {
        match self.silent_ms.filter(|_| self.is_silent()) {
            Some(silent) => format!("no report for {}", length(silent)),
            None => self.report.broker_words(),
        }
    }

    /// Returns true if it takes updates, as far as is known.
    #[must_use]
    pub fn is_well(&self) -> bool {
        !self.is_silent() && self.report.unready.is_none() && !self.report.blocked
    }
}

/// `422 no_key 3, 401 unauthorized 1`, most frequent first; empty: nothing was refused.
#[must_use]
pub fn refused_words(refused: &BTreeMap<String, u64>) -> String {
    let mut codes: Vec<(&String, &u64)> = refused.iter().filter(|(_, count)| **count > 0).collect();
    codes.sort_by_key(|(code, count)| (std::cmp::Reverse(**count), (*code).clone()));
    codes.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", ")
}

fn sum(refused: &BTreeMap<String, u64>) -> u64 {
    refused.values().copied().fold(0, u64::saturating_add)
}

fn bound(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(end);
    }
}

fn bound_codes(refused: &mut BTreeMap<String, u64>) {
    while refused.len() > CODES_MAX {
        refused.pop_last();
    }
    refused.retain(|code, _| code.len() <= TEXT_CHARS_MAX);
}

/// The doors that all dispatchers know, by `instance.name`; of each, what was heard last. A door that one of them has heard to
/// end is gone.
#[must_use]
pub fn all_doors(answers: impl Iterator<Item = ReportedDoor>) -> Vec<ReportedDoor> {
    let mut newest: BTreeMap<String, ReportedDoor> = BTreeMap::new();
    for door in answers {
        let age = |door: &ReportedDoor| (!door.ended, door.silent_ms.unwrap_or(u64::MAX));
        match newest.get(&door.report.process) {
            Some(known) if age(known) <= age(&door) => {}
            _ => {
                newest.insert(door.report.process.clone(), door);
            }
        }
    }
    let mut doors: Vec<ReportedDoor> = newest.into_values().filter(|door| !door.ended).collect();
    doors.sort_by(|one, other| {
        (&one.report.instance, &one.report.process).cmp(&(&other.report.instance, &other.report.process))
    });
    doors
}

/// What a person must do about doors. `all_is_known`: otherwise, as during an alarm of the broker, reports may not come.
#[must_use]
pub fn door_reasons(doors: &[ReportedDoor], all_is_known: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    let silent = doors.iter().filter(|door| all_is_known && door.is_silent());
    let silent: Vec<String> = silent.map(|door| printable(&door.report.instance)).collect();
    if !silent.is_empty() {
        reasons.push(format!(
            "No report from {}: ended without a word, or without its broker. Look at the process, and at its /readyz.",
            named("door", &silent)
        ));
    }
    // A stop waits for confirms, and nobody need act.
    let is_stopping = |door: &ReportedDoor| door.report.unready.as_deref() == Some(DRAINING);
    for door in doors.iter().filter(|door| !door.is_silent() && !is_stopping(door)) {
        let DoorReport { instance, unready, unready_since_ms, reported_at_ms, pending, .. } = &door.report;
        let is_stuck = |since: Option<i64>| {
            since.is_some_and(|since| reported_at_ms.saturating_sub(since) > STUCK_MAX_MS)
        };
        let instance = printable(instance);
        if let Some(why) = unready.as_ref().filter(|_| is_stuck(*unready_since_ms)) {
            reasons.push(format!(
                "Door {instance} is not ready: {}. Who sends to it is answered 503.",
                printable(why)
            ));
        } else if is_stuck(door.report.no_confirm_since_ms) && !door.report.blocked && unready.is_none() {
            reasons.push(format!(
                "The broker has confirmed nothing to door {instance} for over {} s, and {pending} of its updates wait: look if all queues \
                 have a leader.",
                STUCK_MAX_MS / 1_000
            ));
        }
    }
    let others = reasons.len().saturating_sub(NAMED_MAX);
    reasons.truncate(NAMED_MAX);
    if others > 0 {
        reasons.push(format!("{others} more doors are not ready or get no confirms."));
    }
    reasons.extend(signature_reason(doors));
    reasons
}

/// Hooks that only get wrong signatures. Behind a balancer, each door sees a part of the requests of a hook.
fn signature_reason(doors: &[ReportedDoor]) -> Option<String> {
    #[derive(Default)]
    struct Signatures {
        wrong: u64,
        failed_ms: Option<i64>,
        signed_ms: Option<i64>,
    }
    let mut hooks: BTreeMap<&str, Signatures> = BTreeMap::new();
    for door in doors {
        for sender in door.report.senders.iter().filter(|sender| sender.is_hook) {
            let hook = hooks.entry(&sender.name).or_default();
            hook.signed_ms = hook.signed_ms.max(sender.last_signed_ms);
            if sender.wrong_signatures > 0 {
                hook.wrong = hook.wrong.saturating_add(sender.wrong_signatures);
                hook.failed_ms = hook.failed_ms.max(sender.last_failure_ms);
            }
        }
    }
    let now_ms = doors.iter().map(|door| door.report.reported_at_ms).max()?;
    hooks.retain(|_, hook| {
        hook.wrong >= WRONG_SIGNATURES_MIN
            && hook.failed_ms > hook.signed_ms
            && hook.failed_ms.is_some_and(|at| now_ms.saturating_sub(at) <= FAILURE_AGE_MAX_MS)
    });
    let wrong = hooks.values().map(|hook| hook.wrong).fold(0, u64::saturating_add);
    let names: Vec<String> = hooks.into_keys().map(printable).collect();
    (!names.is_empty()).then(|| {
        format!(
            "The last {wrong} requests to {} had no good signature: compare `secrets` of [[ingest.hook]] with the sender's, or somebody \
             else tries to send.",
            named("hook", &names)
        )
    })
}

/// `door a`, or `doors a, b and 3 more`.
fn named(kind: &str, names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let listed = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match (names.len(), more) {
        (1, _) => format!("{kind} {listed}"),
        (_, 0) => format!("{kind}s {listed}"),
        _ => format!("{kind}s {listed} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
