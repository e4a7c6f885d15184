//! The proof: what the API saw, without and with Lanekeeper.

use super::api::Findings;
use super::console::Console;
use super::table::{self, Row, Table};

/// Both acts, to be compared.
pub(super) struct Proof<'a> {
    /// Updates sent in each act.
    pub(super) total: u64,
    pub(super) without: &'a Findings,
    pub(super) with: &'a Findings,
}

impl Proof<'_> {
    fn rows(&self) -> [Row; 7] {
        let row = |label, is_fault, figure: fn(&Findings) -> u64| Row {
            label,
            without: figure(self.without),
            with: figure(self.with),
            is_fault,
        };
        [
            Row { label: "updates sent", without: self.total, with: self.total, is_fault: false },
            row("requests to the API", false, |found| found.requests),
            row("records with a wrong final value", true, |found| found.wrong.len() as u64),
            row("updates applied out of order", true, |found| found.reorders),
            row("overlapping requests of one record", true, |found| found.overlaps),
            row("updates lost", true, |found| found.lost),
            row("updates applied twice", true, |found| found.duplicates),
        ]
    }

    /// Prints the table.
    pub(super) fn print(&self, console: &Console) {
        let table = Table { without: "without", with: "with Lanekeeper", rows: &self.rows() };
        table.print(console);
        let seconds = |found: &Findings| format!("{:.1} s", found.time.as_secs_f64());
        console.say(&table::line("time", &seconds(self.without), &seconds(self.with)));
    }

    /// Why the proof does not hold; nothing if it does.
    pub(super) fn faults(&self) -> Vec<String> {
        let of_row = |row: &Row| {
            (row.is_fault && row.with > 0).then(|| format!("with Lanekeeper: {} {}", row.with, row.label))
        };
        let mut faults: Vec<String> = self.rows().iter().filter_map(of_row).collect();
        if self.without.wrong.is_empty() {
            let advice = "the race did not show without Lanekeeper; try more --records or another --seed";
            faults.push(advice.to_owned());
        }
        faults
    }
}
