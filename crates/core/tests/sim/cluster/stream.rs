//! The stream of members: what stands in it, and when. Only a majority appends; what the smaller side published is
//! refused, or is appended after the heal.

use std::collections::BTreeSet;
use std::time::Duration;

use lanekeeper_core::tenures::{Claim, Terms};
use lanekeeper_core::tick::Tick;

#[derive(Clone, Debug)]
pub enum Message {
    Claim {
        process: String,
        count: u64,
        read: u64,
        terms: Terms,
    },
    Note {
        process: String,
        /// Counts the notes of the process.
        note: u64,
        terms: Terms,
        /// The number of the tenure that it owns.
        number: Option<u64>,
    },
    Ended {
        number: u64,
        rest: Duration,
    },
}

#[derive(Debug, Default)]
pub struct Stream {
    /// Its place is its offset.
    messages: Vec<Message>,
}

impl Stream {
    pub fn append(&mut self, message: Message) {
        self.messages.push(message);
    }

    pub fn length(&self) -> usize {
        self.messages.len()
    }

    pub fn read(&self, offset: usize) -> Option<Message> {
        self.messages.get(offset).cloned()
    }

    /// Until when a process may wait that read each message at the time given, and whose claim stands at `own`, as the
    /// promise says: for each tenure before it whose end is unknown, what that one published, from when the next owner's
    /// claim was read; for each that has ended, the rest that it named.
    pub fn wait_max(&self, process: &str, own: u64, read_at: &[Tick]) -> Tick {
        let read: Vec<(u64, &Message)> = (0..).zip(&self.messages).take(read_at.len()).collect();
        let ended = |number: u64| {
            read.iter()
                .any(|(_, message)| matches!(message, Message::Ended { number: of, .. } if *of >= number))
        };
        let mut most = Tick::ZERO;
        for (offset, message) in &read {
            let read_then = |offset: u64| read_at[usize::try_from(offset).expect("an offset")];
            match message {
                Message::Claim { process: of, terms, .. } if *offset < own && of != process => {
                    if self.is_void(*offset) || ended(*offset) {
                        continue;
                    }
                    let next = read.iter().find(|(later, message)| {
                        *later > *offset
                            && matches!(message, Message::Claim { process, .. } if process != of)
                            && !self.is_void(*later)
                    });
                    let from = next.map_or(own, |(next, _)| *next);
                    most = most.max(read_then(from).after(terms.whole()));
                }
                Message::Ended { rest, .. } => most = most.max(read_then(*offset).after(*rest)),
                Message::Claim { .. } | Message::Note { .. } => {}
            }
        }
        most
    }

    /// Another process's claim stands between what was read and this one, or it stands here for the second time.
    pub fn is_void(&self, offset: u64) -> bool {
        let at = usize::try_from(offset).expect("an offset");
        let Message::Claim { process, read, .. } = &self.messages[at] else { return false };
        let from = usize::try_from(*read).expect("an offset").min(at);
        let is_other = |place: usize| {
            self.claimant(place).is_some_and(|(of, _)| of != process && !self.is_repeated(place))
        };
        self.is_repeated(at) || (from..at).any(is_other)
    }

    /// The same claim stands before it. Where two further processes have claimed in between, nobody knows that any more.
    fn is_repeated(&self, at: usize) -> bool {
        let Some((process, count)) = self.claimant(at) else { return false };
        let is_same =
            |place: &usize| self.claimant(*place).is_some_and(|(of, n)| of == process && n >= count);
        let Some(before) = (0..at).rev().find(is_same) else { return false };
        let claimants = (before + 1..at).filter_map(|place| self.claimant(place));
        claimants.map(|(of, _)| of).collect::<BTreeSet<_>>().len() < 2
    }

    fn claimant(&self, at: usize) -> Option<(&str, u64)> {
        match &self.messages[at] {
            Message::Claim { process, count, .. } => Some((process, *count)),
            Message::Note { .. } | Message::Ended { .. } => None,
        }
    }
}

impl Message {
    /// As a claim that stands at this offset.
    pub fn as_claim(&self, offset: u64) -> Option<Claim<'_>> {
        let Self::Claim { process, count, read, terms } = self else { return None };
        let (read, terms) = (Some(*read), Some(*terms));
        Some(Claim { offset, epoch: 0, outdated: false, process, count: *count, read, terms, over: None })
    }
}
