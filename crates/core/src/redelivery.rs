//! Recognises updates without an id of their publisher when they are handed over again: by what they say and by their
//! place in the order of their record. Then they keep the id that was made for them, and are known by it.
//!
//! What comes back of a record is the end of what was handed over: its settled updates from some place on (only the
//! newest acks are lost), then all that were held. Where equal updates leave that place in doubt, the latest possible one
//! is taken: at worst one that was settled is sent again, never one left out that was not.
//!
//! After all that comes what the broker had handed over and nobody had taken in, and this can say the same as a settled
//! one. So a record may begin with a settled one only where something that was held is still to come: of the record
//! itself, or of the partition the newest.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::update::{IdOrigin, RecordKey, Update, UpdateId};

/// An update that was handed over before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RedeliveryMatch {
    /// As it was made for the first delivery.
    pub(super) id: UpdateId,
    /// It was settled, and its ack was lost.
    pub(super) settled: bool,
}

#[derive(Debug)]
struct Entry {
    id: UpdateId,
    content_hash: u64,
    settled: Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It is held, or was when its tenure ended.
    No,
    /// In this tenure.
    Now,
    /// In an earlier one.
    Before,
}

impl Entry {
    fn is_settled(&self) -> bool {
        self.settled != Settled::No
    }
}

/// What is known of one record: settled ones first, since a record's updates are settled in order.
#[derive(Debug, Default)]
struct Order {
    entries: VecDeque<Entry>,
    /// Where the next one that comes back is; `None`: none has come back in this tenure.
    next: Option<usize>,
}

/// See the module's documentation. Bounded by the window that is held and twice as many settled ones.
#[derive(Debug)]
pub(super) struct RedeliveryMatcher {
    settled_max: usize,
    records: HashMap<RecordKey, Order>,
    /// Record and print of the newest update of all records that was held when a tenure ended, until it has come back.
    newest_held: Option<(RecordKey, u64)>,
    /// The settled entries, oldest first; some may be forgotten by now.
    settled: VecDeque<(RecordKey, UpdateId)>,
}

impl RedeliveryMatcher {
    pub(super) fn new(window: usize) -> Self {
        Self { settled_max: 2 * window, records: HashMap::new(), newest_held: None, settled: VecDeque::new() }
    }

    /// A delivery came. What it is known as, where it came before.
    pub(super) fn received(&mut self, update: &Update, redelivered: bool) -> Option<RedeliveryMatch> {
        let was_taken_in = self.newest_held.is_some();
        self.newest_held.take_if(|(of, newest)| *of == update.record_key && *newest == content_hash(update));
        if update.id.origin() == IdOrigin::Publisher {
            return None;
        }
        let order = self.records.entry(update.record_key.clone()).or_default();
        let content_hash = content_hash(update);
        if redelivered {
            if let Some(place) = order.place_of(content_hash, was_taken_in) {
                order.next = Some(place + 1);
                let entry = &order.entries[place];
                return Some(RedeliveryMatch { id: entry.id.clone(), settled: entry.is_settled() });
            }
            if order.next != Some(order.entries.len()) {
                // Not what was handed over before: nothing tells what the record holds.
                order.entries.clear();
            }
        }
        order.entries.push_back(Entry { id: update.id.clone(), content_hash, settled: Settled::No });
        order.next = Some(order.entries.len());
        None
    }

    pub(super) fn settled(&mut self, record_key: &RecordKey, id: &UpdateId) {
        if id.origin() == IdOrigin::Publisher {
            return;
        }
        let Some(order) = self.records.get_mut(record_key) else { return };
        let Some(entry) = order.entries.iter_mut().find(|entry| entry.id == *id) else { return };
        if std::mem::replace(&mut entry.settled, Settled::Now) != Settled::No {
            return;
        }
        self.settled.push_back((record_key.clone(), id.clone()));
        if self.settled.len() > self.settled_max
            && let Some((record_key, id)) = self.settled.pop_front()
        {
            self.forget_oldest(&record_key, &id);
        }
    }

    fn forget_oldest(&mut self, record_key: &RecordKey, id: &UpdateId) {
        let Some(order) = self.records.get_mut(record_key) else { return };
        if order.entries.front().is_some_and(|oldest| oldest.id == *id) {
            order.entries.pop_front();
            order.next = order.next.and_then(|next| next.checked_sub(1));
        }
        if order.entries.is_empty() {
            self.records.remove(record_key);
        }
    }

    /// A tenure ended: all that is held comes back.
    pub(super) fn expect_redeliveries(&mut self, newest_held: Option<&Update>) {
        // One that has not come back since an earlier tenure is newer than all that has.
        let newest = newest_held.map(|newest| (newest.record_key.clone(), content_hash(newest)));
        self.newest_held = self.newest_held.take().or(newest);
        for order in self.records.values_mut() {
            order.next = None;
            for entry in order.entries.iter_mut().filter(|entry| entry.is_settled()) {
                entry.settled = Settled::Before;
            }
        }
    }

    /// Everything returned has come: what was held and is not among it went elsewhere.
    pub(super) fn redeliveries_done(&mut self) {
        self.newest_held = None;
        self.records.retain(|_, order| {
            let came = order.next.unwrap_or_default();
            let mut place = 0..;
            order.entries.retain(|entry| {
                let place = place.next().expect("without end");
                entry.is_settled() || place < came
            });
            order.next = Some(order.entries.len());
            !order.entries.is_empty()
        });
    }

    /// What earlier tenures settled no longer tells what this record holds.
    pub(super) fn forget_settled(&mut self, record_key: &RecordKey) {
        let Some(order) = self.records.get_mut(record_key) else { return };
        let before = order.entries.len();
        order.entries.retain(|entry| entry.settled != Settled::Before);
        let forgotten = before - order.entries.len();
        order.next = order.next.map(|next| next.saturating_sub(forgotten));
        if order.entries.is_empty() {
            self.records.remove(record_key);
        }
    }

    /// The same for all records.
    pub(super) fn forget_all(&mut self) {
        self.records.clear();
        self.newest_held = None;
        self.settled.clear();
    }
}

impl Order {
    fn place_of(&self, content_hash: u64, was_taken_in: bool) -> Option<usize> {
        let is_it =
            |place: &usize| self.entries.get(*place).is_some_and(|entry| entry.content_hash == content_hash);
        if self.next.is_some() {
            return self.next.filter(is_it);
        }
        // All that were held come back, so it begins with the oldest of these at the latest.
        let latest = self.entries.iter().take_while(|entry| entry.is_settled()).count();
        let holds_any = latest < self.entries.len();
        let earliest = if was_taken_in || holds_any { 0 } else { latest };
        (earliest..=latest).rev().find(is_it)
    }
}

/// Of everything that a publisher said. Only compared within one process.
fn content_hash(update: &Update) -> u64 {
    let Update {
        record_key: _,
        id: _,
        target,
        update_type,
        version,
        content_type,
        content_encoding,
        if_match,
        published_at,
        headers,
        body,
    } = update;
    let mut hasher = DefaultHasher::new();
    (target.0, update_type, version, content_type, content_encoding, if_match, published_at, headers, body)
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::TargetId;

    /// One record. `x`: an update that says this comes, `<x` comes again, `x.`: the same and is settled, `!`: the tenure
    /// ends, `|`: everything returned has come. Answers for each that came again: the number of the delivery that it is
    /// known from, `.` behind it where that one was settled, or `new`.
    fn check(script: &str, expected: &str) {
        let (mut redelivery, mut made, mut seen) = (RedeliveryMatcher::new(3), 0, Vec::new());
        let mut newest_held = None;
        let record_key = RecordKey::new("r").unwrap();
        for step in script.split(' ') {
            match step {
                "!" => redelivery.expect_redeliveries(newest_held.take().as_ref()),
                "|" => redelivery.redeliveries_done(),
                says => {
                    made += 1;
                    let (redelivered, settle) = (says.starts_with('<'), says.ends_with('.'));
                    let update = Update {
                        record_key: record_key.clone(),
                        id: UpdateId::made(made.to_string()),
                        target: TargetId(0),
                        update_type: None,
                        version: None,
                        content_type: None,
                        content_encoding: None,
                        if_match: None,
                        published_at: None,
                        headers: Vec::new(),
                        body: says.trim_matches(['<', '.']).to_owned().into(),
                    };
                    let matched = redelivery.received(&update, redelivered);
                    if redelivered {
                        seen.push(matched.as_ref().map_or("new".to_owned(), |known| {
                            format!("{}{}", known.id.as_str(), if known.settled { "." } else { "" })
                        }));
                    }
                    if settle {
                        let id = matched.map_or(update.id.clone(), |known| known.id);
                        redelivery.settled(&record_key, &id);
                    } else {
                        newest_held = Some(update);
                    }
                }
            }
        }
        assert_eq!(seen.join(" "), expected, "{script}");
    }

    #[test]
    fn what_comes_back_is_known_by_its_place() {
        check("a. b c ! <b <c", "2 3");
        check("a. b. c ! <a <b <c", "1. 2. 3");
        check("a. b. c ! <b <c d ! <c <d", "2. 3 3 6");
        check("a b ! <a ! <a <b", "1 1 2");
    }

    #[test]
    fn equal_updates_are_distinguished_by_their_place_and_never_left_out() {
        check("a. a ! <a", "2");
        // Both acks were lost, or only the second was never sent: the later place is taken, and the last is sent again.
        check("a. a ! <a <a", "2 new");
        check("a. b. a. b ! <b", "4");
        check("a. b. a. b ! <a <b", "3. 4");
    }

    #[test]
    fn what_was_never_read_or_does_not_fit_is_new() {
        check("a ! <a <b", "1 new");
        check("a. b ! <x <a <b", "new new new");
        check("a b ! <b <a", "new new");
        check("a. b ! | <b", "new");
    }

    #[test]
    fn only_as_many_settled_ones_are_known_as_can_come_back() {
        check("a. b. c. d. e. f. g. h ! <b", "2.");
        check("a. b. c. d. e. f. g. h ! <a <b", "new new");
    }

    #[test]
    fn what_was_handed_over_and_never_taken_in_is_not_taken_for_what_was_settled() {
        check("a. ! <a", "new");
        check("a. b. ! <a", "new");
        check("a. b ! <b <a", "2 new");
        // It is the settled one: b, which came later, is still to come.
        check("a. b ! <a <b", "1. 2");
        check("a. b ! ! <a <b", "1. 2");
        check("a. b ! <a. ! <a <b", "1. 1. 2");
        check("a. b ! <b. ! <a", "2 new");
    }
}
