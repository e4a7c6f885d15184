//! What people see: lines on standard output, and a progress bar on standard error while they wait.

use std::io::{Write as _, stdout};
use std::time::Duration;

use console::Style;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the progress bar moves by itself.
const REFRESH: Duration = Duration::from_millis(100);

/// A terminal, or a pipe, which gets the same lines without colour and without the bar.
#[derive(Debug)]
pub(super) struct Console {
    bar: ProgressBar,
}

/// How a text stands out on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Heading,
    Good,
    Bad,
    Faint,
}

impl Console {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let template = "  {bar:30} {pos}/{len} {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
        Self { bar }
    }

    /// Prints a line. If nobody reads it any more (`lanekeeper-lab demo | head`), the demo still has to clean up.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(stdout(), "{line}");
        });
    }

    /// Prints an empty line, and a heading.
    pub(super) fn heading(&self, line: &str) {
        self.say("");
        self.say(&paint(Paint::Heading, line));
    }

    /// Prints what happened, with the time since the act began.
    pub(super) fn step(&self, since: Duration, text: &str) {
        let time = paint(Paint::Faint, &format!("{:>6.1} s", since.as_secs_f64()));
        self.say(&format!("{time}  {text}"));
    }

    /// Prints more about the step before.
    pub(super) fn detail(&self, text: &str) {
        self.say(&format!("{:10}{text}", ""));
    }

    /// Shows the bar until [`Self::end_progress`].
    pub(super) fn begin_progress(&self, length: u64, message: &'static str) {
        self.bar.reset();
        self.bar.set_length(length);
        self.bar.set_message(message);
        if !self.bar.is_hidden() {
            self.bar.enable_steady_tick(REFRESH);
        }
    }

    pub(super) fn progress(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub(super) fn end_progress(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }
}

/// The text with its colour, if standard output is a terminal. Pad it before: colours have a length too.
pub(super) fn paint(paint: Paint, text: &str) -> String {
    let style = match paint {
        Paint::Plain => Style::new(),
        Paint::Heading => Style::new().bold(),
        Paint::Good => Style::new().green(),
        Paint::Bad => Style::new().red(),
        Paint::Faint => Style::new().dim(),
    };
    style.apply_to(text).to_string()
}

/// `12345` → `12,345`.
pub(super) fn number(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `1 update`, `2,000 updates`.
pub(super) fn count(of: u64, noun: &str) -> String {
    let plural = if of == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", number(of))
}

#[cfg(test)]
mod tests {
    use super::{count, number};

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let check = |plain: u64, grouped: &str| assert_eq!(number(plain), grouped);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
        assert_eq!((count(1, "update"), count(1_000, "update")), ("1 update".into(), "1,000 updates".into()));
    }
}
