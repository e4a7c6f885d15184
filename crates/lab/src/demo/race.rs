//! One half of a race: updates through Lanekeeper, changes of a second writer, and the API's records in the end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::api::Api;
use super::console::{Console, count};
use super::error::DemoError;
use super::publish;
use super::stage::Stage;
use super::stall_timeout::StallTimeout;
use super::workload::Planned;
use super::writer::{self, ScheduledWrite};
use crate::receiver::{ReceiverSettings, Report, StoreAddress};
use lanekeeper_core::update::RecordKey;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What is going to happen.
#[derive(Debug)]
pub(super) struct Race {
    /// How the API behaves.
    pub(super) settings: ReceiverSettings,
    /// Where it keeps its records.
    pub(super) store: StoreAddress,
    /// Updates through Lanekeeper.
    pub(super) updates: Vec<Planned>,
    /// Changes of the second writer.
    pub(super) writes: Vec<ScheduledWrite>,
    /// What each record must have in the end, in this member of its value.
    pub(super) expected: BTreeMap<String, (&'static str, i64)>,
}

/// What happened.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seen: Report,
    /// How often the second writer had to read again.
    pub(super) read_again: u64,
    /// Records with a wrong value.
    pub(super) wrong: Vec<Wrong>,
    pub(super) time: Duration,
}

/// A record with a wrong value.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) record_key: String,
    /// The member of its value.
    pub(super) member: &'static str,
    pub(super) expected: i64,
    pub(super) found: i64,
}

impl Outcome {
    /// What is missing in the totals of all records.
    pub(super) fn missing(&self) -> u64 {
        self.totals().map(|wrong| (wrong.expected - wrong.found).max(0).unsigned_abs()).sum()
    }

    /// What the totals of all records have too much.
    pub(super) fn surplus(&self) -> u64 {
        self.totals().map(|wrong| (wrong.found - wrong.expected).max(0).unsigned_abs()).sum()
    }

    fn totals(&self) -> impl Iterator<Item = &Wrong> {
        self.wrong.iter().filter(|wrong| wrong.member == TOTAL)
    }
}

/// The member that grows.
pub(super) const TOTAL: &str = "total";

/// Runs it, and prints what happens.
pub(super) async fn run(race: Race, stage: &mut Stage, console: &Console) -> Result<Outcome, DemoError> {
    let api = Api::start(race.settings.clone(), &race.store).await?;
    let config = stage.config_without_ledger(&api.url)?;
    stage.declare(&config).await?;
    let publisher = publish::connect(stage, race.updates.len()).await?;
    let (updates, writes) = (race.updates.len() as u64, race.writes.len() as u64);
    let id = stage.dispatcher.start()?;
    until_ready(stage).await?;
    let begun = Instant::now();
    let through =
        format!("`lanekeeper run` is ready (process {id}); {} are published", count(updates, "update"));
    let direct = if writes == 0 {
        String::new()
    } else {
        format!(", and {} made without it", count(writes, "change"))
    };
    console.step(begun.elapsed(), &(through + &direct));
    console.begin_progress(updates + writes, "changes answered");

    let confirmed = Cell::new(0);
    let publishing = publish::all(publisher, &race.updates, begun, &confirmed);
    let writing = writer::write_all(&api.url, race.writes, begun);
    let watching = until_settled(stage, &api, updates + writes, &confirmed, console);
    let ((), result, ()) = tokio::try_join!(publishing, writing, watching)?;
    console.end_progress();
    let time = begun.elapsed();
    stage.dispatcher.stop().await?;
    console.step(time, &format!("all {} are made", count(updates + writes, "change")));

    let wrong = race.expected.into_iter().filter_map(|(record_key, (member, expected))| {
        let found = api.value(&record_key)[member].as_i64().unwrap_or_default();
        (found != expected).then_some(Wrong { record_key, member, expected, found })
    });
    let outcome = Outcome { wrong: wrong.collect(), seen: api.report(), read_again: result.again, time };
    api.forget().await?;
    Ok(outcome)
}

/// Waits until the dispatcher consumes every partition: a race needs both sides at work.
async fn until_ready(stage: &mut Stage) -> Result<(), DemoError> {
    let mut stall_timeout = StallTimeout::new("the dispatcher to be ready");
    loop {
        stage.dispatcher.check()?;
        match stage.dispatcher.ready().await {
            Ok(()) => return Ok(()),
            Err(reason) => stall_timeout.see(0, || reason)?,
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Waits until every change was applied, or answered as outdated, and the dispatcher has nothing left.
async fn until_settled(
    stage: &mut Stage,
    api: &Api,
    changes: u64,
    confirmed: &Cell<u64>,
    console: &Console,
) -> Result<(), DemoError> {
    let mut stall_timeout = StallTimeout::new("all changes to be applied and settled");
    loop {
        stage.dispatcher.check()?;
        let seen = api.report();
        let done = seen.counts.updates + seen.counts.superseded;
        console.progress(done.min(changes));
        let unsettled = if done >= changes { stage.dispatcher.unsettled().await } else { None };
        if unsettled == Some(0) && seen.in_progress == 0 {
            return Ok(());
        }
        stall_timeout.see(confirmed.get() + done + seen.counts.requests, || {
            format!(
                "{} confirmed; the API saw {}; unsettled at the dispatcher: {unsettled:?}",
                confirmed.get(),
                seen.counts
            )
        })?;
        sleep(POLL_INTERVAL).await;
    }
}

/// An update that adds a number. `half` is part of its id, since the two halves are different updates.
pub(super) fn adding(half: &str, record: u64, sequence: u64, due: Duration, add: i64) -> Planned {
    let record_key = format!("customer-{record}");
    Planned {
        due,
        id: format!("{half}-{record_key}-update-{sequence}"),
        record_key: RecordKey::new(record_key).expect("it is short"),
        sequence,
        version: None,
        body: Bytes::from(json!({ "sequence": sequence, "add": add }).to_string()),
    }
}

/// An update that sets a price, with its version.
pub(super) fn price(half: &str, product: u64, version: i64, due: Duration) -> Planned {
    let record_key = format!("product-{product}");
    Planned {
        due,
        id: format!("{half}-{record_key}-version-{version}"),
        record_key: RecordKey::new(record_key).expect("it is short"),
        sequence: version.unsigned_abs(),
        version: Some(version),
        body: Bytes::from(price_body(version)),
    }
}

/// The value of a product in this version.
pub(super) fn price_body(version: i64) -> String {
    json!({ "version": version, "price": 100 + 7 * version }).to_string()
}
