//! What both acts share: the customers, their updates, and how the API behaves.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;

use crate::receiver::{FailingRecord, ReceiverSettings, Safeguards};
use lanekeeper_core::update::RecordKey;

/// Time between two updates of one customer. It is longer for many customers, since the demo is not about load.
const PACE_MIN: Duration = Duration::from_millis(50);
/// Average time between two updates of any customers: a slow machine keeps up with it, even with a debug build.
const SPACING_MIN: Duration = Duration::from_micros(1_250);
/// The API's average latency, and the share by which it varies.
const LATENCY: Duration = Duration::from_millis(20);
const LATENCY_JITTER: f64 = 0.75;
/// Share of requests that fail, and how they fail: each of these is equally likely.
const FAIL_SHARE: f64 = 0.2;
const FAIL_WITH: [&str; 5] = ["500", "500", "applied-then-500", "applied-then-500", "429"];
/// Sent with 429 and 503.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// All requests of this record fail, for so long from its first request on.
pub(super) const FAILING_RECORD: &str = "customer-7";
const FAILING_FOR: Duration = Duration::from_secs(4);
/// The same in short.
const FAILING_FOR_SHORT: Duration = Duration::from_secs(2);

const STREETS: [&str; 8] = [
    "Mill Lane",
    "Oak Street",
    "Station Road",
    "High Street",
    "Church Way",
    "Park Avenue",
    "Garden Row",
    "Bridge End",
];

/// The updates of all customers, in the order in which they happen.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) updates: Vec<Planned>,
    /// Customers.
    pub(super) records: u64,
    /// Updates of each customer.
    pub(super) each: u64,
    /// Between two updates of one customer.
    pub(super) pace: Duration,
    /// How long [`FAILING_RECORD`] fails.
    failing_for: Duration,
    seed: u64,
}

/// One update that is to happen.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// When it happens, from the beginning of the act.
    pub(super) due: Duration,
    pub(super) record_key: RecordKey,
    /// From 1, per customer.
    pub(super) sequence: u64,
    pub(super) id: String,
    /// Sent as the header `record-version`.
    pub(super) version: Option<i64>,
    /// The whole new state of the customer. The receiver judges the order by the member `sequence`, and accepts any value,
    /// as an API does that knows no such number.
    pub(super) body: Bytes,
}

impl Workload {
    /// Equal seeds make equal updates.
    pub(super) fn new(records: u64, each: u64, seed: u64) -> Self {
        let pace = PACE_MIN.max(SPACING_MIN.mul_f64(records as f64));
        let mut updates = Vec::new();
        for sequence in 1..=each {
            for record in 1..=records {
                let turns = (sequence - 1) as f64 + (record - 1) as f64 / records as f64;
                updates.push(planned(pace.mul_f64(turns), record, sequence, seed));
            }
        }
        Self { updates, records, each, pace, failing_for: FAILING_FOR, seed }
    }

    /// One for somebody who has seen the whole story.
    pub(super) fn short(seed: u64) -> Self {
        Self { failing_for: FAILING_FOR_SHORT, ..Self::new(20, 10, seed) }
    }

    /// Number of updates.
    pub(super) fn total(&self) -> u64 {
        self.records * self.each
    }

    /// The last update of each customer, which has the right final value.
    pub(super) fn last_updates(&self) -> &[Planned] {
        let first = self.updates.iter().position(|update| update.sequence == self.each);
        &self.updates[first.unwrap_or_default()..]
    }

    /// How the API behaves, in both acts. It checks the idempotency key; only the second act sends one.
    pub(super) fn api_settings(&self) -> ReceiverSettings {
        let failing = format!("{FAILING_RECORD}=503:{}s", self.failing_for.as_secs());
        ReceiverSettings {
            latency: LATENCY,
            latency_jitter: LATENCY_JITTER,
            fail_share: FAIL_SHARE,
            fail_with: FAIL_WITH.map(|fault| fault.parse().expect("it is a fault")).to_vec(),
            retry_after: Some(RETRY_AFTER),
            fail_records: vec![failing.parse::<FailingRecord>().expect("it is a failing record")],
            safeguards: Safeguards::ALL,
            seed: self.seed,
            ..ReceiverSettings::default()
        }
    }

    /// How the API behaves, as two lines for people.
    pub(super) fn api_described(&self) -> [String; 2] {
        let vary = |sign: f64| LATENCY.mul_f64(1.0 + sign * LATENCY_JITTER).as_millis();
        [
            format!(
                "The API answers within {} to {} ms. One request in {} fails: with 500, with 500 although",
                vary(-1.0),
                vary(1.0),
                (1.0 / FAIL_SHARE).round(),
            ),
            format!(
                "the update was applied, or with 429 and Retry-After. {FAILING_RECORD} gets only 503 for {} s.",
                self.failing_for.as_secs(),
            ),
        ]
    }
}

fn planned(due: Duration, record: u64, sequence: u64, seed: u64) -> Planned {
    let record_key = format!("customer-{record}");
    let mut hasher = DefaultHasher::new();
    (seed, record, sequence).hash(&mut hasher);
    let chance = hasher.finish();
    // The remainders of a sequence make neighbours differ in every member.
    let balance = 100 + (chance % 80) * 10 + sequence % 10;
    let street = STREETS[usize::try_from((record + sequence) % 8).expect("it is below 8")];
    let address = format!("{} {street}", chance % 90 + 1);
    let body = serde_json::json!({ "sequence": sequence, "balance": balance, "address": address });
    Planned {
        due,
        id: format!("{record_key}-update-{sequence}"),
        record_key: RecordKey::new(record_key).expect("it is short"),
        sequence,
        version: None,
        body: Bytes::from(body.to_string()),
    }
}

/// A customer in words for people.
pub(super) fn format_customer(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    format!("balance {}, {}", value["balance"], value["address"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_happen_in_order_and_each_changes_the_customer() {
        let workload = Workload::new(10, 30, 3);
        assert_eq!(workload.updates.len(), 300);
        assert!(workload.updates.is_sorted_by_key(|update| update.due));
        for (earlier, later) in workload.updates.iter().zip(&workload.updates[10..]) {
            assert_eq!(earlier.record_key, later.record_key);
            assert_eq!(earlier.sequence + 1, later.sequence);
            assert_ne!(format_customer(&earlier.body), format_customer(&later.body));
        }
        let last: Vec<_> = workload.last_updates().iter().map(|update| update.sequence).collect();
        assert_eq!(last, [30; 10]);
        assert_eq!(workload.updates[7].body, Workload::new(10, 30, 3).updates[7].body);
    }
}
