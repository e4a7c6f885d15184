//! The table of a proof: the figures without and with Lanekeeper, or without and with a safeguard.

use super::console::{Console, Paint, number, paint};

/// Width of the columns.
const LABEL_WIDTH: usize = 42;
const FIGURE_WIDTH: usize = 10;
const LAST_WIDTH: usize = 18;

/// One line of the table.
pub(super) struct Row {
    pub(super) label: &'static str,
    pub(super) without: u64,
    pub(super) with: u64,
    /// True if the figure counts faults: then it must be zero with Lanekeeper, or with the safeguard.
    pub(super) is_fault: bool,
}

/// The table: two columns of figures, with their headings.
pub(super) struct Table<'a> {
    pub(super) without: &'static str,
    pub(super) with: &'static str,
    pub(super) rows: &'a [Row],
}

impl Table<'_> {
    /// Prints it, faults in colour.
    pub(super) fn print(&self, console: &Console) {
        console.say(&line("", self.without, self.with));
        for Row { label, without, with, is_fault } in self.rows {
            let figure = |value: u64, width: usize| {
                let colour = match (is_fault, value) {
                    (false, _) => Paint::Plain,
                    (true, 0) => Paint::Good,
                    (true, _) => Paint::Bad,
                };
                paint(colour, &format!("{:>width$}", number(value)))
            };
            let (without, with) = (figure(*without, FIGURE_WIDTH), figure(*with, LAST_WIDTH));
            console.say(&format!("  {label:LABEL_WIDTH$}{without}{with}"));
        }
    }
}

/// A line of the table with any texts.
pub(super) fn line(label: &str, without: &str, with: &str) -> String {
    format!("  {label:LABEL_WIDTH$}{without:>FIGURE_WIDTH$}{with:>LAST_WIDTH$}")
}
