//! What left, what the target has, what was written down and what was settled: seen from outside, and judged at once.
//!
//! A breach is a panic with its name: in the driver's task, or in the test's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One update: its record and its place among the updates of that record, from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) record: String,
    pub(super) place: u32,
}

impl Name {
    /// `id`: as in `a-3`.
    pub(super) fn of(id: &str) -> Self {
        let (record, place) = id.rsplit_once('-').expect("an update id of this world");
        Self { record: record.to_owned(), place: place.parse().expect("a place") }
    }
}

/// Shared by all parts of a world. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Facts(Arc<Mutex<Observed>>);

#[derive(Default)]
struct Observed {
    records: BTreeMap<String, Record>,
    requests: Vec<Request>,
    /// Updates whose turn has ended as the ledger knows; `None`: there is no ledger.
    in_ledger: Option<BTreeSet<Name>>,
    /// Deliveries that were no update and were dead-lettered.
    malformed_dead_lettered: usize,
    /// Another process may have owned the partition: what was applied before may be sent again.
    rival_claimed: bool,
}

#[derive(Default)]
struct Record {
    in_flight: Option<u32>,
    applied: BTreeSet<u32>,
    dead_lettered: BTreeSet<u32>,
}

/// One request as the target saw it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) tenure: Option<u64>,
    pub(super) at: Instant,
    pub(super) traceparent: Option<String>,
}

impl Facts {
    pub(super) fn with_ledger(self, ledger: bool) -> Self {
        self.seen().in_ledger = ledger.then(BTreeSet::new);
        self
    }

    fn seen(&self) -> MutexGuard<'_, Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has reached the target.
    pub(super) fn request_began(&self, request: Request) {
        let name = Name::of(&request.id);
        let mut seen = self.seen();
        let rival_claimed = seen.rival_claimed;
        let record = seen.records.entry(name.record.clone()).or_default();
        assert_eq!(record.in_flight, None, "one at a time: {name:?} was sent");
        let is_resolved =
            |place: u32| record.applied.contains(&place) || record.dead_lettered.contains(&place);
        let open = (1..name.place).find(|place| !is_resolved(*place));
        assert_eq!(open, None, "order: {name:?} was sent before an older update was resolved");
        let later = record.applied.range(name.place + 1..).next();
        assert!(rival_claimed || later.is_none(), "order: {name:?} was sent after {later:?} was applied");
        record.in_flight = Some(name.place);
        seen.requests.push(request);
    }

    /// The request has ended: it was answered or dropped.
    pub(super) fn request_ended(&self, id: &str) {
        let name = Name::of(id);
        self.seen().records.entry(name.record).or_default().in_flight = None;
    }

    pub(super) fn applied(&self, id: &str) {
        let name = Name::of(id);
        self.seen().records.entry(name.record).or_default().applied.insert(name.place);
    }

    pub(super) fn dead_lettered(&self, id: &str) {
        let name = Name::of(id);
        self.seen().records.entry(name.record).or_default().dead_lettered.insert(name.place);
    }

    pub(super) fn malformed_dead_lettered(&self) {
        self.seen().malformed_dead_lettered += 1;
    }

    /// The ledger has committed how the update's turn ended, or that it is parked.
    pub(super) fn written(&self, id: &str) {
        let mut seen = self.seen();
        seen.in_ledger.as_mut().expect("there is a ledger").insert(Name::of(id));
    }

    pub(super) fn rival_claimed(&self) {
        self.seen().rival_claimed = true;
    }

    /// The driver settles the delivery of this update.
    pub(super) fn settled(&self, id: &str) {
        let name = Name::of(id);
        let seen = self.seen();
        let record = seen.records.get(&name.record);
        let is_written = match &seen.in_ledger {
            Some(ledger) => ledger.contains(&name),
            None => record.is_some_and(|record| {
                record.applied.contains(&name.place) || record.dead_lettered.contains(&name.place)
            }),
        };
        assert!(is_written, "settle: {name:?} was settled before it was applied or written down");
    }

    /// The driver settles a delivery that was no update; `before`: so many were settled so.
    pub(super) fn malformed_settled(&self, before: usize) {
        let dead_lettered = self.seen().malformed_dead_lettered;
        assert!(before < dead_lettered, "settle: what is malformed was settled before it was dead-lettered");
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen().requests.clone()
    }

    /// Ids of the requests so far, in order, with a space between them.
    pub(super) fn sent(&self) -> String {
        let ids: Vec<String> = self.requests().into_iter().map(|request| request.id).collect();
        ids.join(" ")
    }

    pub(super) fn in_flight(&self) -> usize {
        self.seen().records.values().filter(|record| record.in_flight.is_some()).count()
    }

    /// When the requests were made, counted from the first one.
    pub(super) fn offsets(&self) -> Vec<Duration> {
        let requests = self.requests();
        requests.iter().map(|request| request.at - requests[0].at).collect()
    }

    /// Every update of these records, up to this place, was applied or dead-lettered.
    pub(super) fn assert_complete<'a>(&self, records: impl Iterator<Item = (&'a str, u32)>) {
        let seen = self.seen();
        for (name, places) in records.filter(|(_, places)| *places > 0) {
            let record = &seen.records[name];
            let is_resolved =
                |place: &u32| record.applied.contains(place) || record.dead_lettered.contains(place);
            assert_eq!((1..=places).find(|place| !is_resolved(place)), None, "lost: an update of {name}");
        }
    }
}
