//! If a target applies updates of other records: what distinguishes a record that is refused from a target that refuses us.

use super::spread::spread;
use super::tick::Tick;
use super::update::RecordKey;

/// What a target has applied last. One for the targets that share limits and breaker.
#[derive(Clone, Debug, Default)]
pub struct AppliedLately {
    /// A hash of the record, and when the newest request began with which something of it was applied. Two records that
    /// share a hash count as one, which only makes it slower.
    newest: Option<(u64, Tick)>,
    /// The same of the record with the newest such request among all others.
    other: Option<(u64, Tick)>,
}

impl AppliedLately {
    /// An update of the record was applied with a request that began at this moment.
    pub fn applied(&mut self, record_key: &RecordKey, began: Tick) {
        let record = spread(record_key.as_str().bytes());
        match &mut self.newest {
            Some((newest, at)) if *newest == record => *at = began.max(*at),
            _ => self.other = self.newest.replace((record, began)),
        }
    }

    /// When the newest request began with which an update of another record was applied.
    #[must_use]
    pub fn by_others(&self, record_key: &RecordKey) -> Option<Tick> {
        let record = spread(record_key.as_str().bytes());
        [self.newest, self.other].into_iter().flatten().find(|(other, _)| *other != record).map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_records_count() {
        let [a, b, c] = ["a", "b", "c"].map(|key| RecordKey::new(key).unwrap());
        let mut lately = AppliedLately::default();
        assert_eq!(lately.by_others(&a), None);
        lately.applied(&a, Tick::from_micros(1));
        assert_eq!((lately.by_others(&a), lately.by_others(&b)), (None, Some(Tick::from_micros(1))));
        lately.applied(&b, Tick::from_micros(2));
        lately.applied(&b, Tick::from_micros(3));
        assert_eq!(lately.by_others(&b), Some(Tick::from_micros(1)));
        assert_eq!([&a, &c].map(|key| lately.by_others(key)), [Some(Tick::from_micros(3)); 2]);
    }
}
