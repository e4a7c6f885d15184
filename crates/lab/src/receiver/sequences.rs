//! Which sequence numbers of a record were applied: a set in little memory.

/// Ranges kept per record. If order is more scattered, the oldest gap is no longer looked for.
const RANGES_MAX: usize = 1024;

/// A set of numbers from 1. If they came in order, it is one range, however many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequences {
    /// First and last of each range, ascending, never touching.
    ranges: Vec<(u64, u64)>,
    count: u64,
}

impl Sequences {
    /// All from 1 to the highest; zero: none.
    pub(super) fn up_to(highest: u64) -> Self {
        let ranges = if highest == 0 { Vec::new() } else { vec![(1, highest)] };
        Self { ranges, count: highest }
    }

    /// Adds a number. Returns false if it was there before.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        // The range that contains it, else the next one above.
        let above = self.ranges.partition_point(|(_, last)| *last < number);
        if self.ranges.get(above).is_some_and(|(first, _)| *first <= number) {
            return false;
        }
        self.count += 1;
        let joins_below = above > 0 && self.ranges[above - 1].1 + 1 == number;
        let joins_above = self.ranges.get(above).is_some_and(|(first, _)| number + 1 == *first);
        match (joins_below, joins_above) {
            (true, true) => {
                self.ranges[above - 1].1 = self.ranges[above].1;
                self.ranges.remove(above);
            }
            (true, false) => self.ranges[above - 1].1 = number,
            (false, true) => self.ranges[above].0 = number,
            (false, false) => self.ranges.insert(above, (number, number)),
        }
        if self.ranges.len() > RANGES_MAX {
            // What is missing between the two lowest ranges stays counted as missing; if it comes, it is a duplicate.
            self.ranges[1].0 = self.ranges[0].0;
            self.ranges.remove(0);
        }
        true
    }

    /// The highest number; zero if there is none.
    pub(super) fn highest(&self) -> u64 {
        self.ranges.last().map_or(0, |(_, last)| *last)
    }

    /// Numbers from 1 to the highest that are not there.
    pub(super) fn missing(&self) -> u64 {
        self.highest() - self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::vec(1..60_u64, 0..80)) {
            let mut model = BTreeSet::new();
            let mut sequences = Sequences::default();
            for number in numbers {
                prop_assert_eq!(sequences.insert(number), model.insert(number));
                let highest = *model.last().unwrap();
                prop_assert_eq!(sequences.highest(), highest);
                prop_assert_eq!(sequences.missing(), highest - model.len() as u64);
                prop_assert!(sequences.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }

    #[test]
    fn an_orderly_record_takes_no_room_and_a_scattered_one_is_bounded() {
        let mut sequences = Sequences::default();
        assert!((1..=100_000).all(|number| sequences.insert(number)));
        assert_eq!((sequences.ranges.len(), sequences.missing()), (1, 0));
        assert!((1..=10_000).all(|number| sequences.insert(200_000 + 2 * number)));
        assert_eq!(sequences.ranges.len(), RANGES_MAX);
        assert_eq!(sequences.missing(), 220_000 - 110_000);
        assert!(sequences.insert(u64::MAX - 1));
    }
}
