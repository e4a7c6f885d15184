//! The updates of a run, the same for equal seeds, and how they are published.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fastrand::Rng;
use tokio::time::{Instant, sleep_until};

use super::error::BenchError;
use super::scenario::{Keys, Scenario};
use lanekeeper_broker::publisher::{BulkPublisher, Outgoing, ShortText};
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::update::RecordKey;

/// The record that is stuck, if the scenario has one.
pub(super) const STUCK: u32 = 0;

/// Which record each update is of, in the order in which they are published.
#[derive(Debug)]
pub(super) struct Load {
    records: Vec<u32>,
    /// Number of updates at the beginning that are not measured: connections are made, code is loaded.
    warm_up: usize,
    partitions: u16,
    body_bytes: usize,
}

/// One update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadUpdate {
    number: usize,
    pub(super) record: u32,
    /// From 1, per record.
    sequence: u32,
}

impl Load {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let all = 0..scenario.records;
        // If updates are forwarded while they are published, one of each record goes first.
        let mut records: Vec<u32> = match (scenario.pace, scenario.stuck_for) {
            (None, _) => Vec::new(),
            (Some(_), None) => all.collect(),
            (Some(_), Some(_)) => all.filter(|record| *record != STUCK).collect(),
        };
        let warm_up = records.len();
        records.extend(scenario.stuck_for.map(|_| STUCK));
        let ranks = Ranks::new(if scenario.keys == Keys::Zipf { scenario.records } else { 0 });
        for number in (0..).take(warm_up + scenario.updates - records.len()) {
            records.push(match scenario.keys {
                Keys::Uniform => rng.u32(..scenario.records),
                Keys::Zipf => ranks.at(rng.f64()),
                Keys::Distinct => number,
            });
        }
        Self { records, warm_up, partitions: scenario.partitions, body_bytes: scenario.body_bytes }
    }

    /// Updates.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Different records.
    pub(super) fn records(&self) -> usize {
        let mut records = self.records.clone();
        records.sort_unstable();
        records.dedup();
        records.len()
    }

    /// Publishes all updates as fast as the broker takes them. When this has returned, all are confirmed.
    pub(super) async fn publish(&self, bulk: &mut BulkPublisher) -> Result<(), BenchError> {
        for planned in self.planned() {
            bulk.publish(&self.outgoing(planned, false)).await?;
        }
        Ok(bulk.confirmed().await?)
    }

    /// Publishes the updates before the measurement; their number.
    pub(super) async fn publish_warm_up(&self, bulk: &mut BulkPublisher) -> Result<usize, BenchError> {
        for planned in self.planned().take(self.warm_up) {
            bulk.publish(&self.outgoing(planned, false)).await?;
        }
        bulk.confirmed().await?;
        Ok(self.warm_up)
    }

    /// Publishes the other updates, each when it is due.
    pub(super) async fn publish_paced(
        &self,
        bulk: &mut BulkPublisher,
        begun: Instant,
        pace: f64,
    ) -> Result<(), BenchError> {
        for (index, planned) in self.planned().skip(self.warm_up).enumerate() {
            sleep_until(begun + Duration::from_secs_f64(index as f64 / pace)).await;
            bulk.publish(&self.outgoing(planned, true)).await?;
        }
        Ok(bulk.confirmed().await?)
    }

    /// Updates of the stuck record's neighbours (other records of its partition) that are published after the warm-up, until
    /// this time.
    pub(super) fn neighbours_published(&self, by: Duration, pace: f64) -> usize {
        let due = (by.as_secs_f64() * pace).max(0.0);
        let due =
            self.records.iter().skip(self.warm_up).enumerate().filter(|(index, _)| (*index as f64) < due);
        due.filter(|(_, record)| self.is_neighbour(&record_key(**record))).count()
    }

    /// True if this record shares the partition of the stuck record.
    pub(super) fn is_neighbour(&self, key: &str) -> bool {
        let stuck = record_key(STUCK);
        key != stuck && self.partition(key) == self.partition(&stuck)
    }

    fn partition(&self, key: &str) -> PartitionNumber {
        partition_of(key.as_bytes(), self.partitions)
    }

    /// All updates, in order.
    pub(super) fn planned(&self) -> impl Iterator<Item = LoadUpdate> {
        let highest = self.records.iter().max().map_or(0, |highest| *highest as usize + 1);
        let mut sequences = vec![0; highest];
        self.records.iter().enumerate().map(move |(number, record)| {
            let sequence = &mut sequences[*record as usize];
            *sequence += 1;
            LoadUpdate { number, record: *record, sequence: *sequence }
        })
    }

    /// The update to publish. `timed`: its body says when it was published.
    pub(super) fn outgoing(
        &self,
        LoadUpdate { number, record, sequence }: LoadUpdate,
        timed: bool,
    ) -> Outgoing {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut body = format!("{{\"sequence\":{sequence},");
        if timed {
            write!(body, "\"sent_us\":{},", now.as_micros()).expect("a string takes all");
        }
        body += "\"filling\":\"";
        let filling = self.body_bytes.saturating_sub(body.len() + 2);
        body.extend(std::iter::repeat_n('x', filling));
        body += "\"}";
        let short = |text: &str| ShortText::new(text).expect("it is short");
        Outgoing {
            record_key: RecordKey::new(record_key(record)).expect("it is short"),
            id: short(&format!("update-{number}")),
            update_type: Some(short("record.updated")),
            content_type: Some(short("application/json")),
            content_encoding: None,
            published_at: now.as_secs(),
            headers: Vec::new(),
            body: Bytes::from(body),
        }
    }
}

/// The key of a record.
pub(super) fn record_key(record: u32) -> String {
    format!("record-{record:07}")
}

/// Records by Zipf's law: the sums of their probabilities, from the hottest record on.
#[derive(Debug)]
struct Ranks(Vec<f64>);

impl Ranks {
    fn new(records: u32) -> Self {
        let mut sum = 0.0;
        let sums = (1..=records).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self(sums.collect())
    }

    /// The record at this share of the whole, 0 to below 1.
    fn at(&self, share: f64) -> u32 {
        let wanted = share * self.0.last().copied().unwrap_or_default();
        let place = self.0.partition_point(|sum| *sum <= wanted);
        u32::try_from(place.min(self.0.len().saturating_sub(1))).expect("it is a record")
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::ScenarioName;
    use super::*;

    #[test]
    fn equal_seeds_make_equal_loads_whose_sequences_have_no_gap() {
        let scenario = Scenario::new(ScenarioName::Drain5, 0.1);
        let load = Load::new(&scenario, 7);
        assert_eq!(load.len(), 10_000);
        assert_eq!(load.records, Load::new(&scenario, 7).records);
        assert_ne!(load.records, Load::new(&scenario, 8).records);
        let mut last = vec![0; 1_000];
        for LoadUpdate { record, sequence, .. } in load.planned() {
            assert_eq!(sequence, last[record as usize] + 1);
            last[record as usize] = sequence;
        }
        assert_eq!(load.records(), last.iter().filter(|sequence| **sequence > 0).count());
    }

    #[test]
    fn the_hottest_record_of_zipf_has_its_share_and_distinct_ones_have_one_each() {
        let zipf = Load::new(&Scenario::new(ScenarioName::Zipf, 0.2), 3);
        let hottest = zipf.records.iter().filter(|record| **record == 0).count();
        assert!((2_500..2_850).contains(&hottest), "{hottest} of 20,000, meant are 20,000/7.485");
        assert!(zipf.records() > 900, "the rare ones come too");
        let keys = Load::new(&Scenario::new(ScenarioName::Keys, 0.01), 3);
        assert_eq!((keys.len(), keys.records()), (10_000, 10_000));
    }

    #[test]
    fn a_body_has_the_size_that_was_asked_for_and_a_sequence() {
        let load = Load::new(&Scenario::new(ScenarioName::Trickle, 1.0), 1);
        assert_eq!(load.warm_up, 1_000);
        for timed in [false, true] {
            let outgoing = load.outgoing(load.planned().nth(1_500).unwrap(), timed);
            assert_eq!(outgoing.body.len(), 1024);
            let body: serde_json::Value = serde_json::from_slice(&outgoing.body).unwrap();
            assert!(body["sequence"].as_u64().unwrap() > 1);
            assert_eq!(body["sent_us"].is_u64(), timed);
        }
    }

    #[test]
    fn the_stuck_record_comes_first_and_its_neighbours_are_counted_by_their_time() {
        let scenario = Scenario::new(ScenarioName::Stuck, 1.0);
        let load = Load::new(&scenario, 1);
        assert_eq!(load.records[load.warm_up], STUCK);
        assert!(!load.records[..load.warm_up].contains(&STUCK));
        let all = load.neighbours_published(Duration::from_secs(17), 800.0);
        let half = load.neighbours_published(Duration::from_millis(8_500), 800.0);
        assert!((1_500..1_900).contains(&all), "{all}");
        assert!(half.abs_diff(all / 2) < 100, "{half} of {all}");
        assert_eq!(load.neighbours_published(Duration::ZERO, 800.0), 0);
    }
}
