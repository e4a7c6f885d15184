//! Why a record waits, and what ends the wait: the one table of causes. What the commands, the pages and the log say of a
//! wait comes from here.
//!
//! A [`WaitCause`] is found by [`Partition::explain`](crate::partition::Partition::explain) for what a process holds, and by the
//! program that asks for what it does not hold: parked updates, and what the broker has not handed over.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::outcome::Cause;

/// What a record waits for. Its name in snake case is the code of the cause, which does not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantNames)]
#[serde(rename_all = "snake_case", tag = "code")]
#[strum(serialize_all = "snake_case")]
pub enum WaitCause {
    /// Its attempt is out.
    InFlight {
        /// The attempt's number, from 1.
        attempt: u32,
    },
    /// Its attempt failed, and the next one has a time.
    Retry {
        /// Attempts so far.
        attempts: u32,
        /// How the last one failed.
        failure: String,
    },
    /// Its target refuses us, not the update (401, 403, 407, a redirect).
    Refused {
        /// Attempts so far.
        attempts: u32,
        /// How the last one failed.
        failure: String,
    },
    /// Its target rejects it or is in conflict with it, and the config keeps it at the head of its lane.
    Blocked {
        /// Attempts so far.
        attempts: u32,
        /// How the last one failed.
        failure: String,
    },
    /// Its target rejects it, as it rejects record after record.
    Doubted {
        /// Attempts so far.
        attempts: u32,
        /// How the last one failed.
        failure: String,
    },
    /// No request was made: the ledger did not answer in time, or the lease was over.
    Withheld,
    /// As many attempts are out as the partition may have.
    Room {
        /// Attempts out.
        in_flight: usize,
        /// `dispatch.in_flight_max`.
        in_flight_max: usize,
        /// Records that are before it.
        before: usize,
    },
    /// Its target is shut.
    TargetShut {
        /// A probe is out, or about to leave.
        probing: bool,
        /// Records that are before it.
        before: usize,
    },
    /// A person has paused its target.
    TargetPaused {
        /// Records that are before it.
        before: usize,
    },
    /// A limit of its target is used up.
    Limit {
        /// Records of the partition that are before it.
        before: usize,
    },
    /// An owner before this one may have sent it, and its request can still be at work.
    TakeOver,
    /// Older updates of it may be in its partition of the previous layout.
    PreviousLayout {
        /// The number of that partition.
        partition: u16,
    },
    /// An attempt that this process began before it lost the partition has not ended.
    EarlierAttempt,
    /// What this process resolved before it lost the partition is being written down.
    EarlierRecording,
    /// Its attempts are over, and that is being written down.
    Recording {
        /// How its turn ends.
        resolution: String,
    },
    /// Another record is before it, since the partition sends one update after another.
    Strict {
        /// Updates of other records that are before it.
        before: usize,
        /// What the first of these waits for.
        first: Box<WaitCause>,
    },
    /// The process holds it, and its claim on the partition is not confirmed.
    Claim,
    /// The process holds it, and its lease has run out.
    LeaseLapsed,
    /// The process holds it, and gives the partition back.
    HandBack,
    /// Another process has become the owner; the broker delivers it there.
    Overtaken,
    /// It is parked.
    Parked {
        /// Why: the kind and the target's words.
        reason: String,
    },
    /// It was parked, and a person has released it.
    Released,
    /// The broker has not handed it over, if it is in its partition at all.
    NotHandedOver {
        /// Updates that are ready in its partition.
        ready: u64,
        /// Updates that the owner holds.
        held: usize,
        /// How many the owner can hold.
        window: usize,
    },
    /// Nobody consumes its partition.
    NoConsumer {
        /// Updates that are ready in its partition.
        ready: u64,
    },
    /// The owner of its partition did not answer.
    OwnerSilent {
        /// `instance.name` of the owner, as it is known by its last note.
        owner: String,
    },
    /// A person has paused it: its updates are parked as they come.
    RecordPaused {
        /// By whom, and why.
        pause: String,
    },
    /// Its layout is dispatched when the one before it is drained.
    LayoutPending {
        /// Updates that are ready in its partition.
        ready: u64,
    },
    /// The queue of its partition does not exist.
    QueueMissing,
    /// Not everything that can hold it could be asked.
    Unknown {
        /// Updates that are ready in its partition.
        ready: u64,
        /// What was not asked, and why.
        reason: String,
    },
    /// Nothing waits.
    Nothing,
}

/// Names and figures that the process knows and the table needs. What is not known is left out of the sentence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words<'a> {
    /// The target's name.
    pub target: &'a str,
    /// Why it is shut: how the newest attempt failed.
    pub target_failure: Option<&'a str>,
    /// Which limit is used up, for example `rate_max`.
    pub limit: Option<&'a str>,
}

impl WaitCause {
    /// The code of the cause, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// Returns true if the wait may not end before a person does something.
    #[must_use]
    pub fn needs_person(&self) -> bool {
        match self {
            Self::Parked { .. }
            | Self::Refused { .. }
            | Self::Blocked { .. }
            | Self::TargetPaused { .. }
            | Self::RecordPaused { .. }
            | Self::QueueMissing
            | Self::NoConsumer { .. } => true,
            Self::Strict { first, .. } => first.needs_person(),
            Self::InFlight { .. }
            | Self::Retry { .. }
            | Self::Doubted { .. }
            | Self::Withheld
            | Self::Room { .. }
            | Self::TargetShut { .. }
            | Self::Limit { .. }
            | Self::TakeOver
            | Self::PreviousLayout { .. }
            | Self::EarlierAttempt
            | Self::EarlierRecording
            | Self::Recording { .. }
            | Self::Claim
            | Self::LeaseLapsed
            | Self::HandBack
            | Self::Overtaken
            | Self::Released
            | Self::NotHandedOver { .. }
            | Self::OwnerSilent { .. }
            | Self::LayoutPending { .. }
            | Self::Unknown { .. }
            | Self::Nothing => false,
        }
    }

    /// One sentence: what it waits for, and why.
    #[must_use]
    pub fn sentence(&self, words: Words<'_>) -> String {
        let target = Target(words.target);
        match self {
            Self::InFlight { attempt } => format!("Attempt {attempt} is in flight at {target}."),
            Self::Retry { attempts, failure } => {
                format!("Attempt {attempts} at {target} failed ({failure}), and the next one waits for its time.")
            }
            Self::Refused { attempts, failure } => format!(
                "{target:#} refused attempt {attempts} ({failure}): it refuses our credentials or the URL, not this update."
            ),
            Self::Blocked { attempts, failure } => format!(
                "{target:#} does not accept the update ({failure}; attempt {attempts}), and the failure policy \"block\" keeps it before the later updates of its record."
            ),
            Self::Doubted { attempts, failure } => format!(
                "{target:#} rejected the update ({failure}; attempt {attempts}), which is not believed, since record after record gets this answer and the target applies nothing."
            ),
            Self::Withheld => {
                "No request was sent: the ledger did not answer in time, or this process could not show that it owns the partition.".to_owned()
            }
            Self::Room { in_flight, in_flight_max, before } => format!(
                "The permits of dispatch.in_flight_max = {in_flight_max} are used by {in_flight} attempts of other records of the partition; {} it.",
                are_before(*before, "record")
            ),
            Self::TargetShut { probing, before } => {
                let failure = words.target_failure.map(|failure| format!(" ({failure})")).unwrap_or_default();
                let probing = if *probing { " A probe is out." } else { "" };
                format!(
                    "{target:#} is shut, since it failed for all records{failure}; {} it in the partition.{probing}",
                    are_before(*before, "record")
                )
            }
            Self::TargetPaused { before } => {
                format!("A person has paused {target}; {} it in the partition.", are_before(*before, "record"))
            }
            Self::Limit { before } => {
                let limit = words.limit.map(|limit| format!(" ({limit})")).unwrap_or_default();
                format!(
                    "A limit of {target} is used up{limit}; {} it in the partition.",
                    are_before(*before, "record")
                )
            }
            Self::TakeOver => "An earlier owner of the partition can still have a request for this record in flight.".to_owned(),
            Self::PreviousLayout { partition } => format!(
                "Older updates of the record may wait in partition p{partition:03} of the previous layout, which is not drained."
            ),
            Self::EarlierAttempt => {
                "This process lost the partition and got it back, and an attempt for the record from before has not ended."
                    .to_owned()
            }
            Self::EarlierRecording => {
                "This process lost the partition and got it back, and is still writing down how an earlier update of the record ended."
                    .to_owned()
            }
            Self::Recording { resolution } => {
                format!("Its attempts are over ({resolution}), and that is being written down before the next update of the record.")
            }
            Self::Strict { before, first } => format!(
                "dispatch.in_flight_max = 1 sends the updates of the partition one after another, and {} it. The first of these waits: {}",
                are_before(*before, "update of another record"),
                first.sentence(words)
            ),
            Self::Claim => {
                "Its owner holds it, and waits until the broker has confirmed the claim on the partition.".to_owned()
            }
            Self::LeaseLapsed => {
                "The lease of its owner has lapsed: nothing is sent until the broker shows that no other process owns the partition.".to_owned()
            }
            Self::HandBack => "Its owner gives the partition back, and begins no attempts.".to_owned(),
            Self::Overtaken => {
                "Another process has become the owner of the partition, and the broker delivers the update there.".to_owned()
            }
            Self::Parked { reason } => format!("The record is parked ({reason})."),
            Self::Released => "The record was released: its parked updates are about to be sent, in order.".to_owned(),
            Self::NotHandedOver { ready, held, window } if held >= window => format!(
                "If an update of it waits, it was not handed over: {} ready in its partition, and the owner holds {held}, as many as dispatch.prefetch = {window} allows.",
                updates_are(*ready)
            ),
            Self::NotHandedOver { ready, held, .. } => format!(
                "If an update of it waits, it was not handed over: {} ready in its partition, and the owner holds {held}, none of this record.",
                updates_are(*ready)
            ),
            Self::NoConsumer { ready } => format!(
                "No process consumes its partition, in which {} ready.",
                updates_are(*ready)
            ),
            Self::OwnerSilent { owner } => {
                format!("Process {owner} owns its partition by its last note, and did not answer in time.")
            }
            Self::RecordPaused { pause } => {
                format!("A person has paused the record ({pause}): its updates are parked as they come.")
            }
            Self::LayoutPending { ready } => format!(
                "Its partition is of the new layout, which is dispatched when the layout before it is drained; in the partition {} ready.",
                updates_are(*ready)
            ),
            Self::QueueMissing => {
                "The queue of its partition does not exist: somebody has deleted it.".to_owned()
            }
            Self::Unknown { ready, reason } => format!(
                "No answer has it, but not all could be asked: {reason}. In its partition {} ready.",
                updates_are(*ready)
            ),
            Self::Nothing => "Nothing waits: no process holds an update of the record, its partition is empty, and the record is not parked.".to_owned(),
        }
    }

    /// What ends the wait; empty if nothing waits. When that is, if it is known, is told apart from it.
    #[must_use]
    pub fn ends(&self) -> &'static str {
        match self {
            Self::InFlight { .. } => "the target's answer, or the target's timeout",
            Self::Retry { .. } | Self::Doubted { .. } => "the next attempt",
            Self::Refused { .. } => {
                "the next attempt after the target lets us in: a person looks at its credentials and its URL"
            }
            Self::Blocked { .. } => {
                "an attempt that the target accepts: a person changes what the target holds, or the failure policy"
            }
            Self::Withheld => "the next attempt, which asks the ledger again",
            Self::Room { .. } => "the end of one of these attempts",
            Self::TargetShut { .. } => "a probe that the target answers",
            Self::TargetPaused { .. } => "a person resumes the target: `lanekeeper target resume`",
            Self::Limit { .. } => "the next permit of the target",
            Self::TakeOver => {
                "the earlier owner's message that none is in flight, or the end of its lease and of its longest timeout"
            }
            Self::PreviousLayout { .. } => {
                "the end of that partition: `lanekeeper topology show` says what keeps it"
            }
            Self::EarlierAttempt => "the end of that attempt",
            Self::EarlierRecording | Self::Recording { .. } => {
                "the confirmation of the ledger, or of the broker for a dead letter"
            }
            Self::Strict { .. } => "the end of the updates before it",
            Self::Claim => "the confirmation of the claim by the broker",
            Self::LeaseLapsed => "a note of the process that comes back from the broker",
            Self::HandBack => "the hand-over to the next owner, to which the broker delivers it",
            Self::Overtaken => "the delivery to the new owner",
            Self::Parked { .. } => "a person: `lanekeeper parked release` or `lanekeeper parked discard`",
            Self::Released => "the next look at the ledger by the owner of its partition",
            Self::NotHandedOver { .. } => "the end of updates that the owner holds",
            Self::NoConsumer { .. } => {
                "a process that consumes it: a person starts one, or finds out why none does"
            }
            Self::OwnerSilent { .. } => "the owner's answer, or the next owner of the partition",
            Self::RecordPaused { .. } => "a person resumes the record: `lanekeeper parked resume`",
            Self::LayoutPending { .. } => {
                "the end of the layout before: `lanekeeper topology show` says what keeps it"
            }
            Self::QueueMissing => "a person: `lanekeeper doctor` says what to do",
            Self::Unknown { .. } => "this question again, when all can be asked",
            Self::Nothing => "",
        }
    }
}

/// How an attempt failed, in the words of the table.
#[must_use]
pub fn failure_words(cause: Option<Cause>, detail: &str) -> String {
    match (cause, detail) {
        (None, "") => "no request was made".to_owned(),
        (None, detail) => detail.to_owned(),
        (Some(cause), "") => cause.to_string(),
        (Some(cause), detail) => format!("{cause}: {detail}"),
    }
}

/// The target's name, if it is known. Alternate: it begins a sentence.
struct Target<'a>(&'a str);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, f.alternate()) {
            ("", true) => f.write_str("Its target"),
            ("", false) => f.write_str("its target"),
            (name, true) => write!(f, "Target {name}"),
            (name, false) => write!(f, "target {name}"),
        }
    }
}

fn are_before(count: usize, what: &str) -> String {
    let (first, rest) = what.split_once(' ').unwrap_or((what, ""));
    let rest = if rest.is_empty() { String::new() } else { format!(" {rest}") };
    match count {
        0 => format!("no {what} is before"),
        1 => format!("1 {what} is before"),
        _ => format!("{count} {first}s{} are before", rest.replace("another record", "other records")),
    }
}

fn updates_are(count: u64) -> String {
    match count {
        0 => "no update is".to_owned(),
        1 => "1 update is".to_owned(),
        _ => format!("{count} updates are"),
    }
}

#[cfg(test)]
mod tests;
