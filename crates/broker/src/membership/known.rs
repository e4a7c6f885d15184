//! What a replica knows of the claims on a partition, from the messages that it reads. Pure.

use super::message::{Kind, Note, Oneself};
use lanekeeper_core::message::TenureNumber;

/// What is known of the claims on one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Our newest claim that was read back, and its number.
    pub(crate) ours: Option<(u64, TenureNumber)>,
    /// The newest claim of another process before it.
    pub(crate) before_ours: Option<TenureNumber>,
    /// The newest claim of another process.
    pub(crate) other: Option<TenureNumber>,
    /// Offset of the newest message in which a replica of a higher priority than ours says that it consumes the partition.
    pub(crate) outranked_at: Option<u64>,
    /// Our claim that does without a number, since the broker takes no publishes.
    pub(crate) waived: Option<u64>,
    /// Offset of the newest request for a status.
    pub(crate) asked: Option<u64>,
}

impl Known {
    /// A message was read at this offset. Returns true if it changes anything.
    pub(crate) fn read(&mut self, oneself: &Oneself, own_priority: i32, offset: u64, note: &Note) -> bool {
        let number = TenureNumber(offset);
        let is_ours = note.process == oneself.process;
        match note.kind {
            Kind::Claimed if is_ours => {
                // Published twice where the first was slow to come back: one claim, one number.
                if self.ours.is_some_and(|(claim, _)| claim >= note.claim) {
                    return false;
                }
                self.before_ours = self.other;
                self.ours = Some((note.claim, number));
                true
            }
            Kind::Claimed => {
                self.other = Some(number);
                true
            }
            Kind::Attached if !is_ours && note.priority > own_priority => {
                self.outranked_at = Some(offset);
                true
            }
            Kind::Asks => {
                self.asked = Some(offset);
                true
            }
            Kind::Attached | Kind::Moved | Kind::Holds => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::parse;
    use super::*;
    use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

    fn oneself(process: &str) -> Oneself {
        Oneself { instance: process.to_owned(), process: process.to_owned(), layout: LayoutNumber(1) }
    }

    /// Notes as `process kind number`, where the number is a claim's or the priority; what "a" of priority 5 knows.
    fn check(notes: &[(&str, Kind, i32)], expected: Known) {
        let mut known = Known::default();
        for (offset, (process, kind, number)) in (10..).zip(notes) {
            let claim = if *kind == Kind::Claimed { (*number).try_into().unwrap() } else { 0 };
            let note = oneself(process).note(*kind, PartitionNumber(0), *number, claim);
            let note = parse(&serde_json::to_vec(&note).unwrap()).expect("it can be read back");
            known.read(&oneself("a"), 5, offset, &note);
        }
        assert_eq!(known, expected, "{notes:?}");
    }

    #[test]
    fn the_offset_of_a_claim_is_its_number() {
        use Kind::{Attached, Claimed};
        let ours = |claim, number| Some((claim, TenureNumber(number)));
        let other = |number| Some(TenureNumber(number));
        check(&[("a", Attached, 5), ("a", Claimed, 1)], Known { ours: ours(1, 11), ..Known::default() });
        // Published again: the first one counts.
        check(&[("a", Claimed, 1), ("a", Claimed, 1)], Known { ours: ours(1, 10), ..Known::default() });
        check(
            &[("a", Claimed, 1), ("b", Claimed, 1)],
            Known { ours: ours(1, 10), other: other(11), ..Known::default() },
        );
        check(
            &[("a", Claimed, 1), ("b", Claimed, 1), ("a", Claimed, 2)],
            Known { ours: ours(2, 12), before_ours: other(11), other: other(11), ..Known::default() },
        );
        check(
            &[("b", Claimed, 1), ("a", Claimed, 1), ("a", Claimed, 2)],
            Known { ours: ours(2, 12), before_ours: other(10), other: other(10), ..Known::default() },
        );
    }

    #[test]
    fn only_a_higher_priority_of_another_outranks() {
        use Kind::Attached;
        check(&[("a", Attached, 9), ("b", Attached, 5), ("b", Attached, 4)], Known::default());
        check(&[("b", Attached, 6)], Known { outranked_at: Some(10), ..Known::default() });
    }

    #[test]
    fn a_status_request_is_known_by_its_offset() {
        use Kind::{Asks, Holds};
        check(&[("o", Asks, 0), ("o", Asks, 0)], Known { asked: Some(11), ..Known::default() });
        check(&[("b", Holds, 0)], Known::default());
    }
}
