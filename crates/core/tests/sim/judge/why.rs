//! What a partition says a record waits for must be so, by what the judge knows from outside: requests that are out, what is
//! being written down, how attempts ended, who may send. It does not use the table that prints causes.

use lanekeeper_core::outcome::{Known, Outcome};
use lanekeeper_core::partition::Explained;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::why::WaitCause;

use super::Judge;

/// What the world knows of a record whose updates are held.
pub struct HeldRecord {
    pub record: usize,
    /// Its updates that were delivered on this channel and are not settled, oldest first.
    pub held: Vec<usize>,
    /// The resolution of an update of it is being written down.
    pub is_written: bool,
    /// Its oldest update has another one that says the same, so that it cannot be told which one is meant.
    pub ambiguous: bool,
}

impl Judge {
    pub fn judge_why(&self, now: Tick, of: &HeldRecord, explained: Option<&Explained>) {
        let (record, head) = (of.record, of.held[0]);
        let Some(explained) = explained else {
            fault!("why", "#{head} of record {record} is held, and nothing is said of what it waits for");
        };
        let facts = &self.records[record];
        let wrong = |because: &str| -> ! {
            fault!("why", "record {record} with #{head}: {:?}, though {because}", explained.cause)
        };
        // Released updates can be among them, in a world with a ledger.
        let here = explained.behind + 1;
        if here < of.held.len() || !self.kept && here > of.held.len() {
            fault!("why", "{} of record {record} are held, {here} are said to be", of.held.len());
        }
        if !of.ambiguous && !explained.head.released && explained.head.published_at != Some(head as u64) {
            fault!("why", "#{head} is the oldest of record {record}, not #{:?}", explained.head.published_at);
        }
        let may_send = self.claimed.is_some() && now <= self.lease_until && !self.stopping;
        let in_lane = !self.unclaimed.iter().any(|(_, update, _)| *update == head);
        match &explained.cause {
            WaitCause::InFlight { attempt } => match facts.out {
                None => wrong("no request of it is out"),
                Some((_, update)) if self.updates[update].here.attempts != *attempt => {
                    wrong("its attempt has another number")
                }
                Some(_) => {}
            },
            WaitCause::EarlierAttempt if facts.out.is_none() => wrong("no request of it is out"),
            WaitCause::Recording { .. } | WaitCause::EarlierRecording if !of.is_written => {
                wrong("nothing of it is being written down")
            }
            WaitCause::Claim | WaitCause::Overtaken if self.claimed.is_some() => wrong("it is claimed"),
            WaitCause::LeaseLapsed if now <= self.lease_until => wrong("the lease runs"),
            WaitCause::HandBack if !self.stopping => wrong("nobody has asked for that"),
            WaitCause::Room { in_flight, in_flight_max, .. } => {
                if !may_send {
                    wrong("nothing may be sent");
                }
                if *in_flight != self.in_flight || self.in_flight != self.limits.in_flight_max.get() {
                    wrong("there is room");
                }
                if *in_flight_max != self.limits.in_flight_max.get() {
                    wrong("that is not the bound");
                }
            }
            WaitCause::TargetPaused { .. } if !self.circuits.is_paused(explained.head.target.0) => {
                wrong("nobody has paused its target")
            }
            WaitCause::TargetShut { .. } if self.circuits.is_paused(explained.head.target.0) => {
                wrong("a person has paused its target")
            }
            WaitCause::TargetShut { .. } if !self.circuits.is_shut(explained.head.target.0) => {
                wrong("its target is open")
            }
            WaitCause::Strict { .. } if !self.strict() => wrong("records do not wait for each other"),
            WaitCause::Limit { .. } | WaitCause::TakeOver | WaitCause::PreviousLayout { .. } => {
                wrong("there is no such thing in this world")
            }
            WaitCause::Parked { .. }
            | WaitCause::Released
            | WaitCause::NotHandedOver { .. }
            | WaitCause::NoConsumer { .. }
            | WaitCause::OwnerSilent { .. }
            | WaitCause::RecordPaused { .. }
            | WaitCause::LayoutPending { .. }
            | WaitCause::QueueMissing
            | WaitCause::Unknown { .. }
            | WaitCause::Nothing => wrong("it is held here"),
            _ => {}
        }
        if let Some(fits) = self.wait_fits(head, &explained.cause)
            && !explained.head.released
            && self.updates[head].twin.is_none()
        {
            if !fits {
                fault!(
                    "why",
                    "record {record}: {:?} after {:?}",
                    explained.cause,
                    self.updates[head].here.last
                );
            }
            // What has passed is due.
            if explained.ends_at.max(Some(now)) < Some(self.updates[head].here.earliest) {
                wrong("its next attempt is later");
            }
        }
        // Whatever is under way is the cause: nobody is to look elsewhere.
        if in_lane
            && facts.out.is_some()
            && !matches!(
                explained.cause,
                WaitCause::InFlight { .. }
                    | WaitCause::EarlierAttempt
                    | WaitCause::EarlierRecording
                    | WaitCause::Recording { .. }
                    | WaitCause::Strict { .. }
                    | WaitCause::HandBack
                    | WaitCause::Overtaken
            )
        {
            wrong("a request of it is out");
        }
    }

    /// If the cause is a wait between attempts: whether the last one ended like that.
    fn wait_fits(&self, head: usize, cause: &WaitCause) -> Option<bool> {
        let last = self.updates[head].here.last.as_ref();
        Some(match cause {
            WaitCause::Retry { .. } => {
                matches!(last, Some(Outcome::Retryable { .. } | Outcome::Throttled(_)))
            }
            WaitCause::Refused { .. } => {
                matches!(last, Some(Outcome::Refused(_) | Outcome::RefusedAlone { .. }))
            }
            WaitCause::Blocked { .. } => matches!(
                last,
                Some(Outcome::Rejected(_) | Outcome::Conflict(_) | Outcome::Known(Known::IdReused))
            ),
            WaitCause::Doubted { .. } => matches!(last, Some(Outcome::Doubted(_))),
            WaitCause::Withheld => matches!(last, Some(Outcome::Withheld)),
            _ => return None,
        })
    }
}
