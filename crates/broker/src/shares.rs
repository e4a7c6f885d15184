//! The parts of the targets' limits that the replicas claim, as their notes state them ([`lanekeeper_core::pacing::share`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use lanekeeper_core::pacing::share::{Demand, OtherNote, Share, ShareNote};

/// Replicas that are known of; a further one is taken to claim everything.
const REPLICAS_MAX: usize = 1024;
/// Limits of which a note states the part: they are to fit into a message. Of further ones every replica has all.
pub const LIMITS_SHARED_MAX: usize = 128;

/// Of a replica that states nothing.
const NOTHING: ShareNote = ShareNote { demand: Demand { requests: 0, in_flight: 0 }, claim: Share::NONE };

/// What a note states of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedShare {
    #[serde(flatten)]
    note: ShareNote,
    /// Of the claim: grows each time it is raised.
    number: u64,
}

/// By the name of the limit.
pub(crate) type PublishedShares = BTreeMap<String, PublishedShare>;

/// Shared by all layouts of a process.
#[derive(Clone, Debug, Default)]
pub struct Shares(Arc<Mutex<ShareBook>>, Arc<GivingUp>);

/// This process makes no further requests.
#[derive(Debug, Default)]
struct GivingUp {
    /// The next note is to say so.
    begun: watch::Sender<bool>,
    /// A note that says so was read back.
    done: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct ShareBook {
    /// For the notes of this process.
    own: PublishedShares,
    /// Where the first note of this process stands that states the present number of a claim.
    own_offsets: BTreeMap<String, (u64, u64)>,
    others: BTreeMap<String, OtherReplica>,
    /// There are more replicas than are known of.
    overflows_until: Option<Instant>,
    /// When a note of this process was read back last: all that stood before it is known.
    own_note_at: Option<Instant>,
    /// For long no note came back: those of others may have run out, and new ones are awaited.
    unsure_until: Option<Instant>,
}

#[derive(Debug)]
struct OtherReplica {
    valid_until: Instant,
    offset: u64,
    /// It had read everything before this offset.
    read: Option<u64>,
    shares: PublishedShares,
}

impl Shares {
    fn book(&self) -> MutexGuard<'_, ShareBook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next notes of this process: what it states of a limit, and the number of its claim.
    pub fn state(&self, limit: &str, note: ShareNote, number: u64) {
        let mut book = self.book();
        let is_over = *self.1.begun.borrow();
        if !is_over && (book.own.len() < LIMITS_SHARED_MAX || book.own.contains_key(limit)) {
            book.own.insert(limit.to_owned(), PublishedShare { note, number });
        }
    }

    /// This process makes no further requests: its notes state nothing any more. Returns when the others can know, or after
    /// `within`.
    pub async fn give_up(&self, within: Duration) {
        self.book().own.clear();
        self.1.begun.send_replace(true);
        let mut done = self.1.done.subscribe();
        let _ = timeout(within, done.wait_for(|done| *done)).await;
    }

    /// Changes when the next note must not wait.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.1.begun.subscribe()
    }

    /// The newest notes of all other replicas; `None`: they are not known now. While the broker takes no publishes, nobody's
    /// notes come.
    #[must_use]
    pub fn others(&self, limit: &str, valid_for: Duration) -> Option<Vec<OtherNote>> {
        let (now, mut book) = (Instant::now(), self.book());
        book.others.retain(|_, other| other.valid_until > now);
        let unsure = [book.overflows_until, book.unsure_until].into_iter().flatten().max();
        if book.own_note_at.is_none_or(|at| now - at > valid_for) || unsure.is_some_and(|until| until > now) {
            return None;
        }
        let own = book.own.get(limit).map(|share| share.number);
        let stated_at = book.own_offsets.get(limit).filter(|(number, _)| Some(*number) == own);
        let others = book.others.values().map(|other| OtherNote {
            note: other.shares.get(limit).map_or(NOTHING, |share| share.note),
            seen: stated_at.is_some_and(|(_, offset)| other.read.is_some_and(|read| read > *offset)),
        });
        Some(others.collect())
    }

    pub(crate) fn own(&self) -> PublishedShares {
        self.book().own.clone()
    }

    /// A note of this process was read back.
    pub(crate) fn own_note(&self, offset: u64, shares: &PublishedShares, valid_for: Duration) {
        if shares.is_empty() && *self.1.begun.borrow() {
            self.1.done.send_replace(true);
        }
        let (now, mut book) = (Instant::now(), self.book());
        if book.own_note_at.replace(now).is_some_and(|before| now - before > valid_for / 2) {
            book.unsure_until = Some(now + valid_for);
        }
        for (limit, share) in shares {
            let known = book.own_offsets.entry(limit.clone()).or_insert((share.number, offset));
            if known.0 < share.number {
                *known = (share.number, offset);
            }
        }
    }

    /// A note of another replica was read.
    pub(crate) fn observe(
        &self,
        process: &str,
        (offset, read): (u64, Option<u64>),
        shares: &PublishedShares,
        valid_for: Duration,
    ) {
        let (now, mut book) = (Instant::now(), self.book());
        let valid_until = now + valid_for;
        book.others.retain(|_, other| other.valid_until > now);
        if book.others.len() >= REPLICAS_MAX && !book.others.contains_key(process) {
            book.overflows_until = Some(valid_until);
            return;
        }
        // Each layout has a reader of its own, and one of them can be behind.
        if book.others.get(process).is_some_and(|known| known.offset >= offset) {
            return;
        }
        if shares.is_empty() {
            book.others.remove(process); // it makes no further requests
        } else {
            let shares = shares.clone();
            book.others.insert(process.to_owned(), OtherReplica { valid_until, offset, read, shares });
        }
    }

    /// Offsets were of a stream that was deleted.
    pub(crate) fn recreated(&self) {
        let mut book = self.book();
        book.own_offsets.clear();
        book.own_note_at = None;
        for other in book.others.values_mut() {
            (other.offset, other.read) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn note(claim: u32) -> ShareNote {
        let demand = Demand { requests: 1, in_flight: 0 };
        ShareNote { demand, claim: Share::from_millionths(claim) }
    }

    fn seen(shares: &Shares) -> Option<Vec<(u32, bool)>> {
        let others = shares.others("crm", SECOND)?;
        Some(others.iter().map(|other| (other.note.claim.millionths(), other.seen)).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_of_another_has_seen_ours_if_it_was_written_after_ours_was_read() {
        let (one, other) = (Shares::default(), Shares::default());
        other.state("crm", note(7), 1);
        assert_eq!(seen(&one), None, "the stream is not read yet");
        one.own_note(3, &one.own(), SECOND);
        assert_eq!(seen(&one), Some(vec![]));
        one.state("crm", note(5), 1);
        one.observe("other", (4, Some(4)), &other.own(), SECOND);
        assert_eq!(seen(&one), Some(vec![(7, false)]), "ours is not in the stream");
        one.own_note(6, &one.own(), SECOND);
        one.own_note(9, &one.own(), SECOND);
        one.observe("other", (7, Some(6)), &other.own(), SECOND);
        assert_eq!(seen(&one), Some(vec![(7, false)]), "ours was not read");
        one.observe("other", (10, Some(7)), &other.own(), SECOND);
        assert_eq!(seen(&one), Some(vec![(7, true)]));
        one.state("crm", note(8), 2);
        assert_eq!(seen(&one), Some(vec![(7, false)]), "the claim was raised");
        one.observe("other", (8, Some(8)), &PublishedShares::new(), SECOND);
        assert_eq!(seen(&one), Some(vec![(7, false)]), "an older note changes nothing");
        one.observe("other", (11, Some(11)), &PublishedShares::new(), SECOND);
        assert_eq!(seen(&one), Some(vec![]), "it has ended in order");
        one.observe("other", (12, Some(12)), &other.own(), SECOND);
        one.recreated();
        assert_eq!(seen(&one), None);
        tokio::time::advance(2 * SECOND).await;
        one.own_note(0, &one.own(), SECOND);
        assert_eq!(seen(&one), Some(vec![]), "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_notes_come_nobody_counts_as_gone() {
        let (one, other) = (Shares::default(), Shares::default());
        other.state("crm", note(0), 1);
        let come = |offset: u64| {
            one.own_note(offset, &one.own(), SECOND);
            one.observe("other", (offset + 1, None), &other.own(), SECOND);
        };
        come(1);
        assert_eq!(seen(&one), Some(vec![(0, false)]));
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(seen(&one), None, "the broker takes no publishes");
        one.own_note(3, &one.own(), SECOND);
        assert_eq!(seen(&one), None, "those of others may come now");
        for offset in [5, 7, 9] {
            tokio::time::advance(SECOND / 3).await;
            come(offset);
        }
        tokio::time::advance(SECOND / 100).await;
        assert_eq!(seen(&one), Some(vec![(0, false)]));
    }
}
