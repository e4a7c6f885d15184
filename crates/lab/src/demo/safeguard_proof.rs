//! The proof of one safeguard: what the API saw, and its records in the end, without the safeguard and with it.

use super::api::ApiSafeguard;
use super::console::Console;
use super::race::Outcome;
use super::table::{self, Row, Table};

/// Both halves, to be compared.
pub(super) struct SafeguardProof<'a> {
    pub(super) safeguard: ApiSafeguard,
    pub(super) without: &'a Outcome,
    pub(super) with: &'a Outcome,
}

impl SafeguardProof<'_> {
    fn rows(&self) -> Vec<Row> {
        let row = |label, is_fault, figure: fn(&Outcome) -> u64| Row {
            label,
            without: figure(self.without),
            with: figure(self.with),
            is_fault,
        };
        let mut rows = vec![row("requests to the API", false, |outcome| outcome.seen.counts.requests)];
        match self.safeguard {
            ApiSafeguard::Idempotency => {
                rows.push(row("repeats recognized by their key", false, |outcome| {
                    outcome.seen.counts.replayed
                }));
                rows.push(row("updates applied twice", true, |outcome| outcome.seen.counts.duplicates));
            }
            ApiSafeguard::Versions => {
                rows.push(row("changes read again after 412", false, |outcome| outcome.read_again));
                rows.push(row("superseded by a later version", false, |outcome| {
                    outcome.seen.counts.superseded
                }));
            }
            ApiSafeguard::RowLocks => {}
        }
        rows.push(row("records with a wrong final value", true, |outcome| outcome.wrong.len() as u64));
        rows.push(row("points lost", true, Outcome::missing));
        rows.push(row("points too many", true, Outcome::surplus));
        rows
    }

    /// Prints the table.
    pub(super) fn print(&self, console: &Console) {
        Table { without: "without", with: "with", rows: &self.rows() }.print(console);
        let seconds = |outcome: &Outcome| format!("{:.1} s", outcome.time.as_secs_f64());
        console.say(&table::line("time", &seconds(self.without), &seconds(self.with)));
    }

    /// Why the proof does not hold; nothing if it does.
    pub(super) fn faults(&self) -> Vec<String> {
        let of_row = |row: &Row| {
            (row.is_fault && row.with > 0).then(|| format!("with the remedy: {} {}", row.with, row.label))
        };
        let mut faults: Vec<String> = self.rows().iter().filter_map(of_row).collect();
        if self.without.wrong.is_empty() {
            faults.push("the race did not show without the remedy; try another --seed".to_owned());
        }
        faults
    }
}
