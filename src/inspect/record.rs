//! Finds out what a record waits for: what a process holds of it comes first, then what the ledger has, then what the broker
//! has not handed over. Pure.

use std::collections::BTreeMap;

use super::report::{LaneReport, PartitionRow, RecordAnswer, RecordLedgerReport, RecordReport, WaitReport};
use lanekeeper_broker::SeenProcess;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::why::{WaitCause, Words};
use lanekeeper_ledger::ParkedState;

/// What the report is made of.
pub struct RecordFacts<'a, R> {
    pub record_key: String,
    pub at_ms: i64,
    /// The partitions that can hold it, as the broker has them, oldest layout first.
    pub rows: R,
    /// The same, as (layout, partition); empty if they cannot be computed: then `rows` has all.
    pub places: Vec<(u32, u16)>,
    pub answers: Vec<RecordAnswer>,
    /// The processes that are alive, by their notes.
    pub seen: &'a BTreeMap<String, SeenProcess>,
    /// Those of them that have not answered.
    pub silent: &'a [String],
    pub fault: Option<String>,
    /// The fault is that the broker cannot carry the question, and all processes that are known have answered otherwise.
    pub by_ports: bool,
    pub ledger: Option<RecordLedgerReport>,
    pub ledger_fault: Option<String>,
}

/// The report.
pub fn record_report<R>(facts: RecordFacts<'_, R>) -> RecordReport
where
    R: IntoIterator<Item = ((LayoutNumber, PartitionNumber), PartitionRow)>,
{
    let mut rows: Vec<PartitionRow> = facts.rows.into_iter().map(|(_, row)| row).collect();
    let (mut lanes, mut holders, mut unanswered) = (Vec::new(), Vec::new(), Vec::new());
    for answer in facts.answers {
        for state in answer.partitions {
            let place = (state.layout, state.partition);
            if let Some(row) = rows.iter_mut().find(|row| (row.layout, row.partition) == place) {
                row.take_state(&answer.instance, Some(state));
            }
        }
        if answer.unanswered > 0 {
            unanswered.push(answer.instance.clone());
        }
        lanes.extend(answer.lanes.into_iter().map(|lane| (answer.instance.clone(), lane)));
        holders.extend(answer.holders);
    }
    // Updates that wait in an older layout are older. Of one partition, a process that has lost it knows less.
    lanes.sort_by_key(|(_, lane)| (lane.layout, is_over(lane), lane.received_at_ms));
    let silent_owner = facts.silent.iter().filter_map(|process| facts.seen.get(process)).find(|seen| {
        seen.owned.keys().any(|(layout, partition)| {
            facts.places.is_empty() || facts.places.contains(&(layout.0, partition.0))
        })
    });
    let no_ledger = facts.ledger_fault.as_ref().map(|fault| format!("the ledger was not read: {fault}"));
    let busy = (!unanswered.is_empty())
        .then(|| format!("partitions of {} did not answer in time", unanswered.join(", ")));
    let has_owners = rows.iter().filter(|row| !row.drained).all(|row| row.owner.is_some());
    let fault = facts.fault.clone().filter(|_| !(facts.by_ports && has_owners));
    let unasked = fault.or(no_ledger).or(busy);
    let wait = match lanes.first() {
        Some((_, lane)) if !is_over(lane) => lane.wait.clone(),
        over => of_ledger(facts.ledger.as_ref())
            .or_else(|| silent_owner.map(|owner| of_cause(owner_silent(owner), None)))
            .or_else(|| over.map(|(_, lane)| lane.wait.clone()))
            .unwrap_or_else(|| of_cause(not_held(&rows, unasked), None)),
    };
    let owner = rows.last().and_then(|row| row.owner.clone());
    let silent = facts.silent.iter().filter_map(|process| facts.seen.get(process));
    RecordReport {
        record_key: facts.record_key,
        at_ms: facts.at_ms,
        wait,
        places: facts.places,
        owner,
        lanes: lanes.into_iter().map(|(_, lane)| lane).collect(),
        holders,
        partitions: rows,
        ledger: facts.ledger,
        ledger_fault: facts.ledger_fault,
        silent: silent.map(|seen| seen.instance.clone()).collect(),
        fault: facts.fault,
    }
}

/// The process does not own what it holds any more.
fn is_over(lane: &LaneReport) -> bool {
    matches!(lane.wait.cause, WaitCause::Overtaken)
}

fn owner_silent(owner: &SeenProcess) -> WaitCause {
    WaitCause::OwnerSilent { owner: owner.instance.clone() }
}

fn of_ledger(ledger: Option<&RecordLedgerReport>) -> Option<WaitReport> {
    let ledger = ledger?;
    if let Some(pause) = &ledger.paused {
        return Some(of_cause(WaitCause::RecordPaused { pause: pause.clone() }, ledger.paused_since_ms));
    }
    let state = ledger.parked_state.as_deref()?;
    let cause = if state == ParkedState::Releasing.name() {
        WaitCause::Released
    } else {
        WaitCause::Parked { reason: ledger.reason.clone().unwrap_or_default() }
    };
    Some(of_cause(cause, ledger.since_ms))
}

/// No process has answered that it holds something of it. `unasked`: what could not be asked, and why.
fn not_held(rows: &[PartitionRow], unasked: Option<String>) -> WaitCause {
    let ready = |row: &PartitionRow| u64::from(row.ready.unwrap_or_default());
    let live = || rows.iter().filter(|row| !row.drained);
    let all_ready = live().map(ready).sum();
    if live().any(|row| row.ready.is_none()) {
        return WaitCause::QueueMissing;
    }
    if let Some(reason) = unasked {
        return WaitCause::Unknown { ready: all_ready, reason };
    }
    if live().any(|row| row.consumers > 0 && row.state.is_none()) {
        let reason = "the process that consumes its partition did not answer".to_owned();
        return WaitCause::Unknown { ready: all_ready, reason };
    }
    // What waits in an older layout comes first.
    let Some(first) = live().find(|row| ready(row) > 0) else { return WaitCause::Nothing };
    match &first.state {
        None if first.pending => WaitCause::LayoutPending { ready: ready(first) },
        Some(state) => WaitCause::NotHandedOver { ready: all_ready, held: state.held, window: state.window },
        None => WaitCause::NoConsumer { ready: ready(first) },
    }
}

/// A cause that no process has answered.
fn of_cause(cause: WaitCause, since_ms: Option<i64>) -> WaitReport {
    WaitReport {
        sentence: cause.sentence(Words::default()),
        ends: cause.ends().to_owned(),
        since_ms,
        ends_at_ms: None,
        needs_person: cause.needs_person(),
        cause,
    }
}

#[cfg(test)]
mod tests;
