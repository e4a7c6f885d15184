//! Which processes are alive, and what they own, as the stream of members shows it to somebody who is none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::message::{MemberMessage, MessageKind, READING, millis, parse};
use super::reader::MESSAGE_BYTES_MAX;
use crate::channel::stream_reader::{StreamOffset, offset_of};
use crate::error::SourceError;
use crate::names::Names;
use crate::topology::document_stream::last_offset;
use crate::topology::session::TopologySession;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;

/// Processes that are looked at.
const PROCESSES_MAX: usize = 1_024;
/// If the notes of now are not in the stream, so many of its last messages are looked at.
const MESSAGES_BACK: u64 = 4_000;
/// A process publishes a note in about a quarter of its lease. Who has published none in the time of so many of its own, as the
/// notes of another process show it, is gone.
const NOTES_MISSED_MAX: u64 = 12;
/// How long reading these messages may take.
const READ_TIMEOUT: Duration = Duration::from_millis(700);
/// A URL of HTTP has this length at most; a longer one is of somebody else.
const URL_BYTES_MAX: usize = 300;

/// A process that was alive not long ago, as the stream of members shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenProcess {
    /// `instance.name`.
    pub instance: String,
    /// The URL of its admin port, as the note says.
    pub admin: Option<String>,
    /// The partitions that the process owned by its newest note of each layout, with the numbers of their tenures.
    pub owned: BTreeMap<(LayoutNumber, PartitionNumber), u64>,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct SeenProcesses {
    pub(super) processes: BTreeMap<String, SeenProcess>,
    /// Those that have said that they end: what of theirs was on its way can follow.
    ended: BTreeSet<String>,
}

impl SeenProcesses {
    /// A message of the stream shows that its process is alive, or that its tenure of a partition has ended.
    pub(super) fn see(&mut self, offset: u64, message: MemberMessage) {
        let Self { processes: seen, ended } = self;
        let layout = LayoutNumber(message.layout);
        match message.kind {
            // The next note may be seconds away.
            MessageKind::Claimed if !ended.contains(&message.process) => {
                let place = (layout, PartitionNumber(message.partition));
                for process in seen.values_mut() {
                    process.owned.remove(&place);
                }
                if seen.len() < PROCESSES_MAX || seen.contains_key(&message.process) {
                    let number = TenureNumber::at(message.epoch.unwrap_or_default(), offset);
                    let process = seen.entry(message.process).or_default();
                    process.instance = message.instance;
                    process.owned.insert(place, number.0);
                }
            }
            // Notes can follow.
            MessageKind::Note if ended.contains(&message.process) => {}
            MessageKind::Note if seen.len() < PROCESSES_MAX || seen.contains_key(&message.process) => {
                let process = seen.entry(message.process).or_default();
                process.instance = message.instance;
                let url = message.admin.filter(|url| url.len() <= URL_BYTES_MAX);
                process.admin = url.or(process.admin.take());
                process.owned.retain(|(of, _), _| *of != layout);
                let owned = message.owned.into_iter();
                process
                    .owned
                    .extend(owned.map(|(partition, tenure)| ((layout, PartitionNumber(partition)), tenure)));
            }
            MessageKind::TenureEnded => {
                if let (Some(process), Some(end)) = (seen.get_mut(&message.process), message.end) {
                    process.owned.retain(|_, tenure| *tenure != end.tenure);
                }
            }
            MessageKind::ProcessEnded if ended.len() < PROCESSES_MAX => {
                seen.remove(&message.process);
                ended.insert(message.process);
            }
            _ => {}
        }
    }
}

/// Who was alive when the last messages were written, by process, and if they were read to the end: during an alarm of the broker
/// no notes are written.
///
/// # Errors
/// The stream cannot be read.
pub(crate) async fn last_seen(
    session: &TopologySession<'_>,
    names: &Names,
) -> Result<(BTreeMap<String, SeenProcess>, bool), SourceError> {
    let stream = names.members();
    let last = last_offset(session, &stream).await?;
    let Some(last) = last else { return Ok((BTreeMap::new(), false)) };
    let first = StreamOffset::At(last.saturating_sub(MESSAGES_BACK));
    let mut reader = session.read_stream(&stream, first, READING).await?;
    let (mut seen, mut notes, mut is_whole) = (SeenProcesses::default(), Vec::new(), false);
    let until = Instant::now() + READ_TIMEOUT;
    while let Ok(delivery) = timeout_at(until, reader.next()).await {
        let delivery = delivery?;
        let offset = offset_of(&delivery).unwrap_or_default();
        if let Some(message) = parse_short(&delivery.data) {
            if let (MessageKind::Note, Some(terms)) = (message.kind, message.terms) {
                notes.push((message.process.clone(), message.layout, millis(terms.terms().lease)));
            }
            seen.see(offset, message);
        }
        if offset >= last {
            is_whole = true;
            break;
        }
    }
    reader.close().await;
    let mut processes = seen.processes;
    let alive = alive(&notes);
    processes.retain(|process, _| alive.contains(process.as_str()));
    Ok((processes, is_whole))
}

/// A message, unless it is longer than those of processes.
pub(super) fn parse_short(data: &[u8]) -> Option<MemberMessage> {
    (data.len() <= MESSAGE_BYTES_MAX).then(|| parse(data)).flatten()
}

/// Those that have published a note not long before the last ones. `notes`: of which process and layout each is, and the lease of
/// that process in milliseconds.
fn alive(notes: &[(String, u32, u64)]) -> BTreeSet<&str> {
    // Of each process, the leases of the notes that were seen: four times the time that they took.
    let (mut later, mut most, mut alive) = (BTreeMap::new(), 0, BTreeSet::new());
    for (process, layout, lease) in notes.iter().rev() {
        if most <= NOTES_MISSED_MAX.saturating_mul(*lease) {
            alive.insert(process.as_str());
        }
        let later: &mut u64 = later.entry((process, layout)).or_default();
        *later = later.saturating_add(*lease);
        most = most.max(*later);
    }
    alive
}

#[cfg(test)]
mod tests {
    use super::super::message::ReplicaId;
    use super::*;

    fn message(process: &str, kind: MessageKind) -> MemberMessage {
        let (instance, layout) = (process.to_owned(), LayoutNumber(1));
        let replica = ReplicaId { instance, process: process.to_owned(), layout };
        replica.message(kind, PartitionNumber(0), 0, 0)
    }

    fn note(process: &str, owned: &[(u16, u64)]) -> MemberMessage {
        MemberMessage { owned: owned.to_vec(), ..message(process, MessageKind::Note) }
    }

    #[test]
    fn the_newest_note_of_a_process_says_what_it_owns() {
        let mut seen = SeenProcesses::default();
        seen.see(5, note("a", &[(0, 3), (1, 4)]));
        seen.see(5, MemberMessage { layout: 2, ..note("a", &[(7, 9)]) });
        seen.see(5, note("b", &[]));
        seen.see(5, note("a", &[(1, 4)]));
        let owned: Vec<_> =
            seen.processes["a"].owned.keys().map(|(layout, partition)| (layout.0, partition.0)).collect();
        assert_eq!(owned, [(1, 1), (2, 7)]);
        assert_eq!(seen.processes.len(), 2);
    }

    #[test]
    fn a_claim_counts_before_the_next_note() {
        let mut seen = SeenProcesses::default();
        seen.see(5, note("a", &[(0, 3)]));
        seen.see(6, MemberMessage { epoch: Some(1), ..message("b", MessageKind::Claimed) });
        let owned = |of: &str| seen.processes[of].owned.values().copied().collect::<Vec<u64>>();
        assert_eq!((owned("a"), owned("b")), (vec![], vec![TenureNumber::at(1, 6).0]));
    }

    #[test]
    fn a_process_that_has_ended_is_not_waited_for() {
        let mut seen = SeenProcesses::default();
        seen.see(5, note("a", &[]));
        seen.see(5, message("a", MessageKind::ProcessEnded));
        seen.see(5, note("a", &[])); // it was on its way
        assert_eq!(seen.processes, BTreeMap::new());
    }

    #[test]
    fn who_published_nothing_while_another_one_published_much_is_gone() {
        let note = |process: &str, lease| (process.to_owned(), 1, lease);
        let mut notes = vec![note("rare", 30_000), note("killed", 9_000), note("a", 9_000), note("b", 9_000)];
        notes.extend((0..NOTES_MISSED_MAX - 1).map(|_| note("a", 9_000)));
        assert_eq!(alive(&notes), BTreeSet::from(["a", "b", "killed", "rare"]));
        notes.extend([note("b", 9_000), note("a", 9_000)]);
        assert_eq!(alive(&notes), BTreeSet::from(["a", "b", "rare"]), "a note of it is not due yet");
    }
}
