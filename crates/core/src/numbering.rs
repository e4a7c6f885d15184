//! How tenures are numbered: an epoch stands above the offset of the claim.
//!
//! A claim's offset in the stream of members grows only as long as it is the same stream. A stream that was deleted and
//! declared again begins at a low offset. So the number of a tenure has two parts, and the upper one, the epoch, grows when
//! the stream is found to be another one. Each claim names the epoch of its process, so that all who read it agree on its
//! number, and the number stays one integer that grows for everybody: other processes, the ledger and the targets.

use std::fmt;

use super::message::TenureNumber;

/// Bits of the offset: two million messages. A longer stream goes on into the epoch, and numbers still grow: an epoch is
/// counted in seconds, and a second has fewer messages.
const OFFSET_BITS: u32 = 21;
/// Largest number that a target reads exactly where numbers are doubles (RFC 8259, section 6).
const NUMBER_MAX: u64 = (1 << 53) - 1;

impl TenureNumber {
    /// The number of a claim at this offset.
    ///
    /// # Panics
    /// It would be 2^53 or more, which an epoch that is counted in seconds reaches in the year 2106.
    #[must_use]
    pub fn at(epoch: u64, offset: u64) -> Self {
        let number = (epoch << OFFSET_BITS).saturating_add(offset);
        assert!(number <= NUMBER_MAX, "epoch {epoch} is out of range");
        Self(number)
    }

    /// The epoch that it was made in, or one that follows where the offset is large.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.0 >> OFFSET_BITS
    }
}

/// The highest epoch that is used, and that a message which is not damaged can name: in 2106. What is above it is for the
/// offsets of a long stream.
pub const EPOCH_MAX: u64 = (NUMBER_MAX >> OFFSET_BITS) - (1 << 16);

/// A clock that shows the year 2100 is wrong, and would use up the epochs.
const CLOCK_MAX: u64 = 4_102_444_800;

/// The highest offset that a message which is not damaged can name: thousands of years of notes.
pub const OFFSET_MAX: u64 = 1 << 36;

/// What a message says of the stream that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where it stands.
    pub offset: u64,
    /// The epoch of its process; 0: an older program, which knows none.
    pub epoch: u64,
    /// Its process had read everything before this offset; `None`: it does not say.
    pub read: Option<u64>,
    /// Its process knew the stream by then: it had read all that stood there when it began.
    pub knows_stream: bool,
}

/// Why a stream is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// Nobody who had read it numbers in it, in the newest epoch that is known.
    Unnumbered,
    /// It ends below what somebody had read.
    EndsBelowRead,
    /// It ends below the highest number in the ledger.
    EndsBelowLedger,
}

impl fmt::Display for Anew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unnumbered => "nobody numbers in it",
            Self::EndsBelowRead => "it ends below what was read",
            Self::EndsBelowLedger => "it ends below a number in the ledger",
        })
    }
}

/// What one reader knows of the numbers that were given away, and if the stream goes on from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// That this process claims in.
    epoch: u64,
    /// The highest one of the messages that were read: the same for all who have read them.
    read: u64,
    /// Nothing higher is known to have been given away; from the ledger, or from messages.
    highest: TenureNumber,
    /// The highest number of the ledger that must stand in this stream by now.
    floor: Option<TenureNumber>,
    /// Somebody who knew the stream numbers in our epoch.
    continues: bool,
    /// Somebody has read further in our epoch than the stream reaches.
    ends_below: bool,
}

impl Numbering {
    /// `epoch`: the highest of which the layout document or this process knows. `floor`: the highest number in the ledger.
    #[must_use]
    pub fn new(epoch: u64, floor: Option<TenureNumber>) -> Self {
        let highest = TenureNumber::at(epoch, 0).max(floor.unwrap_or(TenureNumber(0)));
        Self { epoch, read: 0, highest, floor, continues: false, ends_below: false }
    }

    /// The epoch that this process claims in.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The highest epoch of the messages that were read. A claim of a lower one that stands behind them is void for all.
    #[must_use]
    pub const fn epoch_read(&self) -> u64 {
        self.read
    }

    /// A message was read.
    pub fn read(&mut self, message: Sighting) {
        self.read = self.read.max(message.epoch);
        if message.epoch > self.epoch {
            (self.epoch, self.continues, self.ends_below) = (message.epoch, false, false);
        }
        if message.epoch < self.epoch {
            return;
        }
        // Bounded: what a foreign message names must not end the process.
        let furthest = message.read.unwrap_or_default().max(message.offset).min(OFFSET_MAX);
        self.highest = self.highest.max(TenureNumber::at(self.epoch, furthest));
        self.ends_below |= message.read.is_some_and(|read| read > message.offset);
        self.continues |= message.knows_stream;
    }

    /// The highest number in the ledger is this, and all that stood in the stream when this was known was read since.
    pub fn raise_floor(&mut self, floor: TenureNumber) {
        self.floor = self.floor.max(Some(floor));
        self.highest = self.highest.max(floor);
    }

    /// All that stood in the stream when this process began was read: its end is at `position`. Returns why it is another stream
    /// than the one that numbers were given away in, so that a new epoch must begin; `None`: it is the same.
    #[must_use]
    pub fn is_another(&self, position: u64) -> Option<Anew> {
        if self.floor.is_some_and(|floor| floor >= TenureNumber::at(self.epoch, position)) {
            Some(Anew::EndsBelowLedger)
        } else if self.ends_below {
            Some(Anew::EndsBelowRead)
        } else {
            (!self.continues).then_some(Anew::Unnumbered)
        }
    }

    /// The stream is another one. `newest`: the highest epoch that this process knows by other ways: it can be that of the stream
    /// before. `seconds` since 1970 by the clock of this host: more than what was given away at any earlier time, if nobody
    /// remembers that. Returns the epoch that this process claims in from now on.
    pub fn begin_epoch(&mut self, newest: u64, seconds: u64) -> u64 {
        let known = self.highest.epoch().max(newest);
        let seconds = if seconds < CLOCK_MAX { seconds } else { 0 };
        self.epoch = (known + 1).max(seconds).min(EPOCH_MAX);
        self.highest = self.highest.max(TenureNumber::at(self.epoch, 0));
        (self.continues, self.ends_below) = (true, false);
        self.epoch
    }

    /// Another stream is read, from its beginning.
    pub const fn begin_stream(&mut self) {
        self.read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_796_000_000;

    fn message(offset: u64, epoch: u64, read: Option<u64>) -> Sighting {
        Sighting { offset, epoch, read, knows_stream: true }
    }

    /// Whether a stream of these messages, which ends at `position`, is another one than that of the document's epoch and the
    /// ledger's highest number.
    #[track_caller]
    fn check(document: u64, floor: Option<(u64, u64)>, messages: &[Sighting], position: u64, another: bool) {
        let floor = floor.map(|(epoch, offset)| TenureNumber::at(epoch, offset));
        let mut numbering = Numbering::new(document, floor);
        for message in messages {
            numbering.read(*message);
        }
        assert_eq!(numbering.is_another(position).is_some(), another, "{document} {floor:?} {messages:?}");
        if another {
            let newest = messages.iter().map(|message| message.epoch).max().unwrap_or(0).max(document);
            let epoch = numbering.begin_epoch(0, NOW);
            numbering.begin_stream();
            assert!(epoch > newest, "{epoch}");
            assert!(floor.is_none_or(|floor| TenureNumber::at(epoch, 0) > floor), "{epoch} {floor:?}");
            assert!(epoch >= NOW);
            assert_eq!(numbering.is_another(0), None);
        }
    }

    #[test]
    fn a_stream_goes_on_only_if_somebody_who_knew_it_numbers_in_the_known_epoch() {
        check(0, None, &[], 0, true);
        check(0, None, &[message(3, 0, None)], 9, false); // of older programs
        check(7, None, &[message(3, 7, Some(2))], 9, false);
        check(7, None, &[message(3, 6, Some(2))], 9, true);
        check(7, None, &[message(3, 8, Some(2))], 9, false); // the document is older
        let starting = Sighting { knows_stream: false, ..message(3, 7, None) };
        check(7, None, &[starting], 9, true);
    }

    #[test]
    fn a_stream_that_ends_below_an_offset_known_anywhere_is_another_one() {
        check(7, Some((7, 8)), &[message(3, 7, Some(2))], 9, false);
        check(7, Some((7, 9)), &[message(3, 7, Some(2))], 9, true);
        check(7, Some((8, 0)), &[message(3, 7, Some(2))], 900, true);
        check(0, Some((0, 5000)), &[message(3, 0, None)], 9, true);
        check(7, Some((6, 9000)), &[message(3, 7, Some(2))], 9, false);
        // Its process has not noticed yet that it publishes to another stream.
        check(7, None, &[message(3, 7, Some(2)), message(4, 7, Some(400))], 9, true);
        check(7, None, &[message(3, 7, Some(400)), message(4, 8, Some(4))], 9, false);
    }

    #[test]
    fn an_epoch_is_above_everything_that_is_known() {
        assert_eq!(Numbering::new(NOW + 5, None).begin_epoch(0, NOW), NOW + 6);
        assert_eq!(Numbering::new(NOW + 5, None).begin_epoch(NOW + 7, NOW), NOW + 8);
        assert_eq!(Numbering::new(3, Some(TenureNumber::at(NOW + 1, 7))).begin_epoch(4, NOW), NOW + 2);
        assert_eq!(Numbering::new(3, None).begin_epoch(0, u64::MAX), 4, "a clock that cannot be right");
        assert_eq!(Numbering::new(EPOCH_MAX, None).begin_epoch(0, NOW), EPOCH_MAX);
    }

    #[test]
    fn no_message_ends_the_process() {
        let mut numbering = Numbering::new(NOW, None);
        numbering.read(message(u64::MAX, EPOCH_MAX, Some(u64::MAX)));
        assert_eq!(numbering.epoch(), EPOCH_MAX);
        assert_eq!(numbering.is_another(OFFSET_MAX), None);
    }

    #[test]
    fn numbers_grow_with_the_epoch_and_within_it() {
        assert_eq!(TenureNumber::at(0, 12), TenureNumber(12));
        assert!(TenureNumber::at(1, 0) > TenureNumber::at(0, (1 << OFFSET_BITS) - 1));
        assert!(
            TenureNumber::at(2, 1 << OFFSET_BITS) >= TenureNumber::at(3, 0),
            "a large offset goes on into the epoch"
        );
        assert_eq!(TenureNumber::at(NOW, 77).epoch(), NOW);
        assert!(TenureNumber::at(EPOCH_MAX, 1 << OFFSET_BITS).0 < 1 << 53);
        // A clock that stands still does not make the next epoch too low.
        let mut numbering = Numbering::new(NOW, None);
        numbering.read(message(5 << OFFSET_BITS, NOW, None));
        let epoch = numbering.begin_epoch(0, NOW);
        assert!(TenureNumber::at(epoch, 0) > TenureNumber::at(NOW, 5 << OFFSET_BITS), "{epoch}");
    }

    #[test]
    fn all_who_read_the_same_messages_agree_which_epoch_is_over() {
        let mut late = Numbering::new(0, None);
        late.begin_epoch(0, NOW + 3);
        let mut early = Numbering::new(0, None);
        early.begin_epoch(0, NOW);
        for numbering in [&mut late, &mut early] {
            numbering.begin_stream();
            numbering.read(message(0, NOW, None));
            assert_eq!(
                numbering.epoch_read(),
                NOW,
                "a claim behind it counts, also for one who will claim in a higher one"
            );
            numbering.read(message(1, NOW + 3, None));
            assert_eq!((numbering.epoch_read(), numbering.epoch()), (NOW + 3, NOW + 3));
        }
    }
}
