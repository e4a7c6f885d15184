//! Answers what people ask of this process: how it is, and what records wait for. Each driver is asked for what it holds, by a
//! mailbox of its own; the rest is of the process.

mod convert;
mod doors;
mod parked;
mod process;
mod responder;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use self::doors::ReportedDoors;
pub use self::parked::InspectedLedger;
pub use self::process::InspectedProcess;
pub use self::responder::answer_questions;
use crate::inspect::question::KeyMatcher;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::partition::{Explained, Limits, View};

/// Inquiries that wait for one driver (I6).
const QUESTIONS_MAX: usize = 8;
/// How long a driver may take. It answers between two events; one that closes its channel answers later.
const DRIVER_TIMEOUT: Duration = Duration::from_millis(600);

/// A partition of a layout.
pub type Place = (LayoutNumber, PartitionNumber);

/// A question to a driver.
#[derive(Debug)]
pub enum DriverQuestion {
    /// How the partition is.
    State(oneshot::Sender<DriverState>),
    /// What the record waits for that this names.
    Record(Arc<KeyMatcher>, oneshot::Sender<FoundRecord>),
    /// What the records wait for whose oldest update came first, at most so many.
    Oldest(usize, oneshot::Sender<Vec<Explained>>),
}

/// What a driver knows of a record.
#[derive(Clone, Debug)]
pub struct FoundRecord {
    /// `None`: the driver holds no update of it.
    pub explained: Option<Explained>,
    /// The records that keep it waiting, if what it waits for is room: those whose attempts have been out longest, or those with
    /// the most updates.
    pub holders: Vec<Explained>,
}

/// How a partition is.
#[derive(Clone, Debug)]
pub struct DriverState {
    /// Its queue is consumed.
    pub attached: bool,
    /// The broker has delivered something, and no other process is known to have it.
    pub owns: bool,
    /// The state of the claim.
    pub ownership: OwnershipState,
    /// What it holds.
    pub view: View,
    /// Its bounds.
    pub limits: Limits,
    /// What the record waits for whose oldest update came first.
    pub oldest: Option<Explained>,
}

/// The mailboxes of all drivers of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct DriverMailboxes(Arc<Mutex<BTreeMap<Place, mpsc::Sender<DriverQuestion>>>>);

/// The mailbox of one driver, open while the driver lives.
#[derive(Debug)]
pub struct DriverMailbox {
    mailboxes: DriverMailboxes,
    place: Place,
    received: mpsc::Receiver<DriverQuestion>,
}

impl DriverMailboxes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, mpsc::Sender<DriverQuestion>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens that of a driver.
    #[must_use]
    pub fn open(&self, place: Place) -> DriverMailbox {
        let (sender, received) = mpsc::channel(QUESTIONS_MAX);
        self.all().insert(place, sender);
        DriverMailbox { mailboxes: self.clone(), place, received }
    }

    /// The partitions that have a driver.
    pub fn places(&self) -> Vec<Place> {
        self.all().keys().copied().collect()
    }

    /// Asks a driver; `None`: there is none, or it did not answer in time.
    pub async fn ask<A>(
        &self,
        place: Place,
        question: impl FnOnce(oneshot::Sender<A>) -> DriverQuestion,
    ) -> Option<A> {
        let mailbox = self.all().get(&place).cloned()?;
        let (sender, answer) = oneshot::channel();
        mailbox.try_send(question(sender)).ok()?;
        timeout(DRIVER_TIMEOUT, answer).await.ok()?.ok()
    }
}

impl DriverMailbox {
    /// The next question. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> DriverQuestion {
        match self.received.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }
}

impl Drop for DriverMailbox {
    fn drop(&mut self) {
        self.received.close();
        // A driver of the same partition may have opened another one since.
        let mut all = self.mailboxes.all();
        if all.get(&self.place).is_some_and(mpsc::Sender::is_closed) {
            all.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (LayoutNumber(1), PartitionNumber(0));

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_is_busy_or_gone_does_not_keep_the_others_waiting() {
        let mailboxes = DriverMailboxes::default();
        let ask = |mailboxes: &DriverMailboxes| {
            let mailboxes = mailboxes.clone();
            async move { mailboxes.ask(PLACE, |answer| DriverQuestion::Oldest(1, answer)).await.is_some() }
        };
        assert!(!ask(&mailboxes).await, "there is none");
        let mut mailbox = mailboxes.open(PLACE);
        assert!(!ask(&mailboxes).await, "it does not answer");
        let replying = tokio::spawn(async move {
            loop {
                if let DriverQuestion::Oldest(_, answer) = mailbox.next().await {
                    let _ = answer.send(Vec::new());
                }
            }
        });
        assert!(ask(&mailboxes).await);
        replying.abort();
        let _ = replying.await;
        assert_eq!(mailboxes.places(), []);
    }

    #[test]
    fn the_mailbox_of_the_next_driver_stays_open_when_the_one_before_is_dropped() {
        let mailboxes = DriverMailboxes::default();
        let first = mailboxes.open(PLACE);
        let second = mailboxes.open(PLACE);
        drop(first);
        assert_eq!(mailboxes.places(), [PLACE]);
        drop(second);
        assert_eq!(mailboxes.places(), []);
    }
}
