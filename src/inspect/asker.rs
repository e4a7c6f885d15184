//! Asks the broker and the processes, and puts what they say together. One connection, which is kept for the next question.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use super::admin_ports::{AskedByPorts, ask_by_ports};
use super::cluster::{ClusterFacts, cluster_report};
use super::question::{InspectionQuery, KeyHash};
use super::record::{RecordFacts, record_report};
use super::report::{
    Answer, ClusterReport, LaneReport, LayoutReport, PartitionRow, ProcessReport, RecordAnswer,
    RecordLedgerReport, RecordReport, TargetAnswer,
};
use crate::config::Config;
use crate::pausing::by;
use crate::wall_time::unix_millis;
use lanekeeper_broker::{
    Address, Depth, Inquired, LayoutDocument, Names, Operator, SeenProcess, SourceError,
};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, LedgerError, Operations, RecordState, StoredParkReason};

/// How long an answer takes at most. Processes answer within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_800);
/// The processes have this time at least, however long the broker has taken before.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// How long the admin ports may take, if the broker takes no questions.
const PORTS_TIMEOUT: Duration = Duration::from_millis(700);
/// As many processes are named that did not answer by their ports.
const FAULTS_NAMED_MAX: usize = 3;
/// How long the ledger may take.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(1);

/// A partition of a layout.
type Place = (LayoutNumber, PartitionNumber);

/// Asks on behalf of a person.
#[derive(Debug)]
pub struct Asker {
    /// The config that is in force: the password of the broker can change.
    config: watch::Receiver<Config>,
    names: Names,
    instance: String,
    /// `None`: it is made for the next question.
    operator: Mutex<Option<Operator>>,
}

/// A partition with the records that wait there.
#[derive(Debug)]
pub struct FoundPartition {
    /// The partition.
    pub row: PartitionRow,
    /// Its records, those first whose oldest update came first.
    pub lanes: Vec<LaneReport>,
    /// `instance.name` of the processes that did not answer.
    pub silent: Vec<String>,
    /// Why nobody, or not everybody, could be asked.
    pub fault: Option<String>,
}

impl FoundPartition {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let Self { row, lanes, silent, fault } = self;
        serde_json::json!({ "partition": row, "lanes": lanes, "silent": silent, "fault": fault })
    }

    /// Why it is not known what waits there, although no record is listed; `None`: it is known.
    #[must_use]
    pub fn unknown(&self) -> Option<String> {
        let row = &self.row;
        if !self.lanes.is_empty() || row.owner.is_some() || row.drained {
            return None;
        }
        if let Some(owner) = &row.owner_silent {
            return Some(format!("{owner}, which owns it, did not answer"));
        }
        if let Some(fault) = &self.fault {
            return Some(fault.clone());
        }
        if !self.silent.is_empty() {
            return Some(format!("{} did not answer", self.silent.join(", ")));
        }
        (row.consumers > 0 && row.state.is_none())
            .then(|| "the process that consumes it did not answer".to_owned())
    }
}

/// What the broker says.
struct Looked {
    document: Option<LayoutDocument>,
    layouts: Vec<(LayoutReport, Layout)>,
    rows: BTreeMap<Place, PartitionRow>,
}

impl Asker {
    /// Connects with the first question.
    #[must_use]
    pub fn new(config: &watch::Receiver<Config>) -> Self {
        let (names, instance) = {
            let config = config.borrow();
            (Names::new(&config.updates.exchange), config.instance.clone())
        };
        Self { config: config.clone(), names, instance, operator: Mutex::default() }
    }

    /// For a command, whose config stays as it is.
    #[must_use]
    pub fn for_command(config: &Config) -> Self {
        Self::new(&watch::channel(config.clone()).1)
    }

    /// How all is.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses us.
    pub async fn status(&self) -> Result<ClusterReport, SourceError> {
        let (looked, inquired) = self.ask(|_| InspectionQuery::Status).await?;
        let processes = answers(&inquired).filter_map(|answer| match answer {
            Answer::Status(report) => Some(report),
            _ => None,
        });
        let processes: Vec<ProcessReport> = processes.collect();
        Ok(cluster_report(ClusterFacts {
            exchange: self.names.public().to_owned(),
            at_ms: unix_millis(SystemTime::now()),
            has_layout: looked.document.is_some(),
            silent: silent(&inquired),
            fault: inquired.fault,
            layouts: looked.layouts.into_iter().map(|(report, _)| report).collect(),
            rows: looked.rows.into_values().collect(),
            processes,
        }))
    }

    /// What a record waits for. `ledger`: what it knows of the record; it is asked at the same time.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn record(
        &self,
        record_key: &RecordKey,
        ledger: impl Future<Output = Option<Result<RecordLedgerReport, String>>>,
    ) -> Result<RecordReport, SourceError> {
        let mut places = Vec::new();
        let asking = Box::pin(self.ask(|looked| {
            places = looked.places_of(record_key);
            InspectionQuery::Record {
                key: KeyHash::of(record_key),
                places: places.iter().map(|(layout, partition)| (layout.0, partition.0)).collect(),
            }
        }));
        let (asked, ledger) = tokio::join!(asking, Box::pin(ledger));
        let (looked, inquired) = asked?;
        let answers = answers(&inquired).filter_map(|answer| match answer {
            Answer::Record(answer) => Some(answer),
            _ => None,
        });
        let answers: Vec<RecordAnswer> = answers.collect();
        let (ledger, ledger_fault) = match ledger {
            None => (None, None),
            Some(Ok(report)) => (Some(report), None),
            Some(Err(fault)) => (None, Some(fault)),
        };
        Ok(record_report(RecordFacts {
            record_key: record_key.as_str().to_owned(),
            at_ms: unix_millis(SystemTime::now()),
            rows: looked.rows.into_iter().filter(|(place, _)| places.is_empty() || places.contains(place)),
            places: places.iter().map(|(layout, partition)| (layout.0, partition.0)).collect(),
            answers,
            seen: &inquired.seen,
            silent: &inquired.silent,
            fault: inquired.fault.clone(),
            // Who has started during the alarm is not known.
            by_ports: inquired.alarmed_and_all_known,
            ledger,
            ledger_fault,
        }))
    }

    /// The records of one partition, those first whose oldest update came first, and its row; `None`: there is no such
    /// partition.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn partition(
        &self,
        (layout, partition): (u32, u16),
        limit: usize,
    ) -> Result<Option<FoundPartition>, SourceError> {
        let question = InspectionQuery::Partition { layout, partition, limit };
        let (mut looked, inquired) = self.ask(|_| question).await?;
        let Some(mut row) = looked.rows.remove(&(LayoutNumber(layout), PartitionNumber(partition))) else {
            return Ok(None);
        };
        let mut lanes = Vec::new();
        for answer in answers(&inquired) {
            let Answer::Partition(answer) = answer else { continue };
            lanes.extend(answer.lanes);
            row.take_state(&answer.instance, answer.partition);
        }
        Ok(Some(FoundPartition { row, lanes, silent: silent(&inquired), fault: inquired.fault }))
    }

    /// What each process knows of a target, and what the target did in the last hour; `None`: no process that answered has it.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn target(&self, name: &str) -> Result<Option<Vec<TargetAnswer>>, SourceError> {
        let question = InspectionQuery::Target { name: name.to_owned() };
        let (_, inquired) = self.ask(|_| question).await?;
        let answers = answers(&inquired).filter_map(|answer| match answer {
            Answer::Target(answer) if answer.target.is_some() => Some(answer),
            _ => None,
        });
        let answers: Vec<TargetAnswer> = answers.collect();
        Ok((!answers.is_empty()).then_some(answers))
    }

    /// Looks at the broker, then asks the processes.
    async fn ask(
        &self,
        question: impl FnOnce(&Looked) -> InspectionQuery,
    ) -> Result<(Looked, Inquired), SourceError> {
        let until = Instant::now() + ANSWER_TIMEOUT;
        // Others who ask meanwhile have a connection of their own.
        let kept = self.operator.lock().await.take();
        let operator = if let Some(operator) = kept.filter(Operator::is_connected) {
            operator
        } else {
            let connection = self.config.borrow().broker.connection.clone();
            let address = Address::new(&connection)?;
            Operator::connect(&address, self.names.clone(), &self.instance).await?
        };
        let mut looked = Looked::at(&operator).await?;
        // Last: during an alarm the broker reads nothing more from a connection that has published.
        let text = serde_json::to_string(&question(&looked)).expect("a question is plain data");
        let until = until.max(Instant::now() + ANSWER_TIMEOUT_MIN);
        let mut inquired = operator.inquire(&text, until, process_of).await;
        if inquired.alarmed {
            operator.close().await;
            self.ask_by_ports(&text, &mut inquired).await;
        } else {
            let mut kept = self.operator.lock().await;
            if inquired.fault.is_none() && kept.is_none() {
                *kept = Some(operator);
            } else {
                drop(kept);
                operator.close().await;
            }
        }
        looked.take_silent(&inquired);
        Ok((looked, inquired))
    }

    /// The broker takes no publishes. Who was alive when it took the last ones is asked by the admin port.
    async fn ask_by_ports(&self, question: &str, inquired: &mut Inquired) {
        let admin = self.config.borrow().admin.clone();
        let unread = match self.last_seen().await {
            Ok((seen, is_whole)) => {
                inquired.seen = seen;
                (!is_whole).then(|| "the stream of members was not read to its end in time".to_owned())
            }
            Err(fault) => Some(error_chain(&fault)),
        };
        let AskedByPorts { answers, faults } =
            ask_by_ports(&admin, &inquired.seen, question, Instant::now() + PORTS_TIMEOUT).await;
        let mut fault = "the broker takes no publishes, since it has a memory or disk alarm; the processes were asked by their \
                         admin ports"
            .to_owned();
        for (process, why) in faults.iter().take(FAULTS_NAMED_MAX) {
            let instance = inquired.seen.get(process).map_or("?", |seen| seen.instance.as_str());
            let _ = write!(fault, "; {instance} did not answer: {why}");
        }
        if let Some(unread) = &unread {
            let _ = write!(fault, "; who is alive is not known: {unread}");
        }
        inquired.alarmed_and_all_known = unread.is_none() && faults.is_empty();
        inquired.answers = answers.into_values().collect();
        inquired.silent = faults.into_keys().collect();
        inquired.fault = Some(fault);
    }

    /// The connection that has published is read no more.
    async fn last_seen(&self) -> Result<(BTreeMap<String, SeenProcess>, bool), SourceError> {
        let address = Address::new(&self.config.borrow().broker.connection)?;
        let operator = Operator::connect(&address, self.names.clone(), &self.instance).await?;
        let seen = operator.last_seen().await;
        operator.close().await;
        seen
    }
}

/// What the ledger knows of a record.
///
/// # Errors
/// Why it could not be asked.
pub async fn ledger_report(ledger: &AnyLedger, record_key: &RecordKey) -> Result<RecordLedgerReport, String> {
    match timeout(LEDGER_TIMEOUT, read_ledger(ledger, record_key)).await {
        Ok(read) => read.map_err(|fault| error_chain(&fault)),
        Err(_) => Err(format!("the ledger did not answer within {} s", LEDGER_TIMEOUT.as_secs())),
    }
}

async fn read_ledger(ledger: &AnyLedger, record_key: &RecordKey) -> Result<RecordLedgerReport, LedgerError> {
    let RecordState { version, etag, last_applied, parked, paused } = ledger.record_state(record_key).await?;
    Ok(RecordLedgerReport {
        version,
        etag,
        last_id: last_applied.map(|last| last.update_id),
        paused: paused.as_ref().map(|pause| by(&pause.operator_reason)),
        paused_since_ms: paused.map(|pause| pause.since_ms),
        parked_updates: parked.as_ref().map_or(0, |parked| parked.updates),
        parked_state: parked.as_ref().map(|parked| parked.state.name().to_owned()),
        head_id: parked.as_ref().map(|parked| parked.head_id.clone()),
        reason: parked.as_ref().map(|parked| reason_words(&parked.reason)),
        since_ms: parked.as_ref().map(|parked| parked.since_ms),
    })
}

/// `rejected: status 422: no such field`. The detail begins with the status, if there was one.
fn reason_words(reason: &StoredParkReason) -> String {
    match reason.detail.as_str() {
        "" => reason.kind.name().to_owned(),
        detail => format!("{}: {detail}", reason.kind.name()),
    }
}

impl Looked {
    async fn at(operator: &Operator) -> Result<Self, SourceError> {
        let document = operator.document().await?;
        let mut looked = Self { document, layouts: Vec::new(), rows: BTreeMap::new() };
        let Some(layouts) = looked.document.as_ref().map(|document| &document.layouts) else {
            return Ok(looked);
        };
        let active: Vec<LayoutNumber> =
            layouts.active_layouts().iter().map(|active| active.layout.number).collect();
        let draining = layouts.draining.iter().map(|draining| (draining.layout, Some(draining)));
        let changing = layouts.changing.as_ref();
        for (layout, draining) in draining.chain([(layouts.in_force, None)]) {
            looked.layouts.push((
                LayoutReport {
                    layout: layout.number.0,
                    partitions: layout.partitions,
                    prefetch: layout.prefetch,
                    draining_since: draining.map(|draining| draining.since),
                    drained: draining.map_or(0, |draining| draining.drained.len()),
                    being_made_by: None,
                },
                layout,
            ));
            for (partition, depth) in operator.depths(layout).await? {
                let drained = draining.is_some_and(|draining| draining.drained.contains(&partition));
                looked.rows.insert(
                    (layout.number, partition),
                    row((layout.number, partition), depth, drained, !active.contains(&layout.number)),
                );
            }
        }
        if let Some(changing) = changing {
            looked.layouts.push((
                LayoutReport {
                    layout: changing.to.number.0,
                    partitions: changing.to.partitions,
                    prefetch: changing.to.prefetch,
                    draining_since: None,
                    drained: 0,
                    being_made_by: Some(changing.by.clone()),
                },
                changing.to,
            ));
        }
        Ok(looked)
    }

    /// Processes that own partitions by their last notes have not answered.
    fn take_silent(&mut self, inquired: &Inquired) {
        for process in inquired.silent.iter().filter_map(|process| inquired.seen.get(process)) {
            for place in process.owned.keys() {
                if let Some(row) = self.rows.get_mut(place) {
                    row.owner_silent = Some(process.instance.clone());
                }
            }
        }
    }

    /// The partitions that can hold updates of the record, oldest layout first; empty if they cannot be computed.
    fn places_of(&self, record_key: &RecordKey) -> Vec<Place> {
        let active = self.document.as_ref().map(|document| document.layouts.active_layouts());
        let places = active.unwrap_or_default().into_iter().map(|active| {
            let placement = Placement::of(active.layout, &active.witnesses);
            placement.partition_of(record_key).map(|partition| (active.layout.number, partition))
        });
        places.collect::<Option<Vec<Place>>>().unwrap_or_default()
    }
}

fn row((layout, partition): Place, depth: Option<Depth>, drained: bool, pending: bool) -> PartitionRow {
    PartitionRow {
        layout: layout.0,
        partition: partition.0,
        ready: depth.map(|depth| depth.ready),
        consumers: depth.map_or(0, |depth| depth.consumers),
        drained,
        pending,
        owner: None,
        owner_silent: None,
        state: None,
        parked: None,
    }
}

fn answers(inquired: &Inquired) -> impl Iterator<Item = Answer> + '_ {
    // A process of another version may answer what this one does not read: it counts as silent.
    inquired.answers.iter().filter_map(|answer| serde_json::from_slice(answer).ok())
}

fn process_of(answer: &[u8]) -> Option<String> {
    serde_json::from_slice::<Answer>(answer).ok().map(|answer| answer.process().to_owned())
}

fn silent(inquired: &Inquired) -> Vec<String> {
    let silent = inquired.silent.iter().filter_map(|process| inquired.seen.get(process));
    silent.map(|SeenProcess { instance, .. }| instance.clone()).collect()
}
