//! Puts the answers of all processes together, and decides if a person must act. Pure.

use std::collections::BTreeMap;

use super::doors::{all_doors, door_reasons};
use super::report::{
    ClusterReport, LayoutReport, PartitionRow, ProcessReport, TargetReport, TargetRow, TargetState, Verdict,
};
use crate::printable::printable;

/// What the report is made of.
pub struct ClusterFacts {
    pub exchange: String,
    pub at_ms: i64,
    /// A process has run once, and has made the layout.
    pub has_layout: bool,
    /// The processes that answered.
    pub processes: Vec<ProcessReport>,
    /// `instance.name` of those that did not.
    pub silent: Vec<String>,
    pub fault: Option<String>,
    pub layouts: Vec<LayoutReport>,
    /// The partitions as the broker has them.
    pub rows: Vec<PartitionRow>,
}

/// The report.
pub fn cluster_report(facts: ClusterFacts) -> ClusterReport {
    let ClusterFacts { exchange, at_ms, has_layout, mut processes, mut silent, fault, layouts, mut rows } =
        facts;
    processes.sort_by(|one, other| (&one.instance, &one.process).cmp(&(&other.instance, &other.process)));
    silent.sort();
    for process in &processes {
        for state in &process.partitions {
            let place = (state.layout, state.partition);
            if let Some(row) = rows.iter_mut().find(|row| (row.layout, row.partition) == place) {
                row.take_state(&process.instance, Some(state.clone()));
            }
        }
    }
    let targets = targets_of(&processes);
    let ledgers = || processes.iter().filter_map(|process| process.ledger.as_ref());
    let ledger = ledgers().find(|ledger| ledger.parked.is_some()).or_else(|| ledgers().next()).cloned();
    if let Some(parked) = ledger.as_ref().and_then(|ledger| ledger.parked.as_ref()) {
        for row in &mut rows {
            let of = parked.partitions.iter().find(|of| (of.0, of.1) == (row.layout, row.partition));
            row.parked = Some(of.map_or(0, |of| of.2));
        }
    }
    // They are the whole's, and no process's.
    let doors = all_doors(processes.iter_mut().flat_map(|process| std::mem::take(&mut process.doors)));
    let mut report = ClusterReport {
        exchange,
        at_ms,
        verdict: Verdict { must_act: false, reasons: Vec::new() },
        processes,
        silent,
        fault,
        layouts,
        partitions: rows,
        targets,
        ledger,
        doors,
    };
    report.verdict = verdict(&report, has_layout);
    report
}

fn targets_of(processes: &[ProcessReport]) -> Vec<TargetRow> {
    let mut rows: Vec<TargetRow> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for process in processes {
        for target in &process.targets {
            let place = *places.entry(&target.name).or_insert_with(|| {
                rows.push(TargetRow {
                    name: target.name.clone(),
                    state: TargetState::Open,
                    by_process: Vec::new(),
                });
                rows.len() - 1
            });
            let row = &mut rows[place];
            row.state = worse(row.state, target.state);
            row.by_process.push((process.instance.clone(), target.clone()));
        }
    }
    rows
}

fn worse(one: TargetState, other: TargetState) -> TargetState {
    match (one, other) {
        (TargetState::Paused, _) | (_, TargetState::Paused) => TargetState::Paused,
        (TargetState::Shut, _) | (_, TargetState::Shut) => TargetState::Shut,
        (TargetState::Open, TargetState::Open) => TargetState::Open,
    }
}

impl TargetRow {
    /// What the process knows that has it worst, and of those, the one that has had it so for longest.
    #[must_use]
    pub fn worst(&self) -> Option<&TargetReport> {
        let in_state = self.by_process.iter().map(|(_, target)| target);
        in_state.filter(|target| target.state == self.state).min_by_key(|target| target.since_ms)
    }

    /// Attempts in the last minute at all processes, and those of them that were applied.
    #[must_use]
    pub fn per_minute(&self) -> (u64, u64) {
        let sum = |of: fn(&TargetReport) -> u64| self.by_process.iter().map(|(_, target)| of(target)).sum();
        (sum(|target| target.attempts_per_minute), sum(|target| target.applied_per_minute))
    }
}

/// A person must act if something does not get better by itself, or if nobody can tell. Worst first.
fn verdict(report: &ClusterReport, has_layout: bool) -> Verdict {
    let mut reasons = Vec::new();
    let mut note = |reason: String| reasons.push(reason);
    if let Some(fault) = &report.fault {
        note(format!("Not all is known: {fault}."));
    }
    let nobody = report.processes.is_empty() && report.silent.is_empty();
    if nobody && report.fault.is_none() {
        note(if has_layout {
            "No process dispatches: start `lanekeeper run`.".to_owned()
        } else {
            format!("Exchange {} has no layout: no process has run. Start `lanekeeper run`.", report.exchange)
        });
    }
    let live = || report.partitions.iter().filter(|row| !row.drained);
    let named = |rows: Vec<&PartitionRow>| names_of(rows.iter().map(|row| (row.layout, row.partition)));
    let missing: Vec<_> = live().filter(|row| row.ready.is_none()).collect();
    if !missing.is_empty() {
        note(format!(
            "The queue of {} does not exist: somebody has deleted it. `lanekeeper doctor` says what to do.",
            named(missing)
        ));
    }
    let unconsumed: Vec<_> =
        live().filter(|row| row.ready.is_some() && row.consumers == 0 && !row.pending).collect();
    if !unconsumed.is_empty() && !nobody {
        note(format!("Nobody consumes {}: see which process is not ready, and why.", named(unconsumed)));
    }
    if !report.silent.is_empty() {
        note(format!(
            "No answer from {}: stopped, short of CPU time, or just ended.",
            report.silent.join(", ")
        ));
    }
    for process in &report.processes {
        if let Some(why) = &process.unready {
            note(format!("{} is not ready: {why}.", process.instance));
        }
    }
    for target in &report.targets {
        let failure = target.worst().and_then(|worst| worst.last_failure.as_deref());
        match target.state {
            TargetState::Open => {}
            TargetState::Shut => note(format!(
                "Target {} is shut, since it failed for all records{}: look at the target. Its updates go on when it works again.",
                target.name,
                failure.map(|failure| format!(" ({failure})")).unwrap_or_default()
            )),
            TargetState::Paused => note(format!(
                "Target {} is paused{}: its updates wait until `lanekeeper target resume {}`.",
                target.name,
                target
                    .worst()
                    .and_then(|worst| worst.paused.as_deref())
                    .map(|by| format!(" ({})", printable(by)))
                    .unwrap_or_default(),
                target.name
            )),
        }
    }
    reasons.extend(door_reasons(&report.doors, report.fault.is_none()));
    let mut note = |reason: String| reasons.push(reason);
    let stuck = live().filter_map(|row| Some((row, row.state.as_ref()?.oldest_wait.as_ref()?)));
    for (row, wait) in stuck.filter(|(_, wait)| wait.needs_person) {
        note(format!(
            "The oldest update of {} waits for a person: {}",
            names_of([(row.layout, row.partition)]),
            wait.sentence
        ));
    }
    match report.ledger.as_ref().map(|ledger| ledger.parked.as_ref().map(|parked| parked.records)) {
        None | Some(Some(0)) => {}
        Some(None) => note(
            "What is parked could not be counted in the last minute: look if the ledger answers.".to_owned(),
        ),
        Some(Some(1)) => note("1 record is parked: `lanekeeper parked list` shows why.".to_owned()),
        Some(Some(records)) => {
            note(format!("{records} records are parked: `lanekeeper parked list` shows why."));
        }
    }
    Verdict { must_act: !reasons.is_empty(), reasons }
}

/// `l1.p003`, or the first three and how many there are.
fn names_of(places: impl IntoIterator<Item = (u32, u16)>) -> String {
    const NAMED_MAX: usize = 3;
    let names: Vec<String> =
        places.into_iter().map(|(layout, partition)| format!("l{layout}.p{partition:03}")).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more partitions") }
}

#[cfg(test)]
mod tests;
