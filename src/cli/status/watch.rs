//! `lanekeeper status --watch`: shows the status again and again, until `q`, Ctrl-C or SIGTERM.

use std::io::Write as _;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use console::{Key, Term};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::text::{Sort, text};
use crate::cli::exit::Exit;
use crate::cli::process::interrupted;
use crate::inspect::asker::Asker;
use crate::inspect::report::ClusterReport;
use crate::inspect::words::time;
use crate::printable::printable_lines;
use crate::wall_time::unix_millis;
use lanekeeper_core::error::error_chain;

/// Keys that wait to be read.
const KEYS_MAX: usize = 16;

/// Shows it every so often. Returns when a person wants it to end, or nobody reads any more.
pub async fn watch(asker: &Asker, every: Duration) -> Exit {
    let term = Term::stdout();
    let _settings = TerminalSettings::keep();
    let mut interrupted = pin!(interrupted());
    let mut keys = read_keys(&term);
    let mut sort = Sort::Name;
    loop {
        let next = Instant::now() + every;
        let mut asking = pin!(asker.status());
        let shown = loop {
            tokio::select! {
                shown = asking.as_mut() => break shown.map_err(|fault| error_chain(&fault)),
                Some(key) = keys.recv() => if ends(&key) { return Exit::Done },
                () = interrupted.as_mut() => return Exit::Done,
            }
        };
        loop {
            if show(&term, &shown, sort).is_err() {
                return Exit::Done; // nobody reads any more
            }
            tokio::select! {
                () = sleep_until(next) => break,
                () = interrupted.as_mut() => return Exit::Done,
                Some(key) = keys.recv() => match key {
                    key if ends(&key) => return Exit::Done,
                    Key::Char('o') => sort = Sort::Oldest,
                    Key::Char('r') => sort = Sort::Ready,
                    Key::Char('h') => sort = Sort::HeldMost,
                    Key::Char('n') => sort = Sort::Name,
                    _ => {}
                },
            }
        }
    }
}

/// On a terminal it takes the place of what was shown before, and has its size; otherwise one follows the other.
fn show(term: &Term, shown: &Result<ClusterReport, String>, sort: Sort) -> std::io::Result<()> {
    let (rows, columns) = term.size();
    let (rows, columns) = (usize::from(rows), usize::from(columns));
    let width = term.is_term().then_some(columns);
    let text = match shown {
        Ok(report) => text(report, sort, width),
        Err(fault) => {
            format!("{}: the broker cannot be asked: {fault}\n", time(unix_millis(SystemTime::now())))
        }
    };
    let mut text = printable_lines(&text);
    let mut out = std::io::stdout().lock();
    if term.is_term() {
        text = fit(&text, rows, columns);
        // Home, then each line up to its end, then the rest: nothing flickers over a slow line.
        write!(out, "\u{1b}[H{}\u{1b}[J", text.replace('\n', "\u{1b}[K\r\n"))?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

/// As many whole lines as the terminal has; a long first line takes several.
fn fit(text: &str, rows: usize, columns: usize) -> String {
    let mut left = rows.saturating_sub(1);
    let mut fitted = String::new();
    for line in text.lines() {
        let takes = line.chars().count().div_ceil(columns.max(1)).max(1);
        if takes > left {
            break;
        }
        left -= takes;
        fitted += line;
        fitted.push('\n');
    }
    fitted
}

/// The settings that the terminal has while no key is read. They are put back at the end: a signal leaves the thread that
/// reads keys in the midst of it.
struct TerminalSettings(Option<Termios>);

impl TerminalSettings {
    fn keep() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for TerminalSettings {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, settings);
        }
    }
}

/// Returns true for a key that ends the command.
fn ends(key: &Key) -> bool {
    matches!(key, Key::Char('q' | 'Q') | Key::Escape | Key::CtrlC)
}

/// Keys that a person presses. A thread of its own reads them, and ends with the process: reading cannot be interrupted.
fn read_keys(term: &Term) -> mpsc::Receiver<Key> {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    let term = term.clone();
    if term.is_term() {
        std::thread::spawn(move || {
            while let Ok(key) = term.read_key_raw() {
                // Reading once more would leave the terminal as it is while keys are read.
                let ends = ends(&key);
                if sender.blocking_send(key).is_err() || ends {
                    return;
                }
            }
        });
    } else {
        // Never a key: the sender lives as long as the process.
        std::mem::forget(sender);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_line_by_line() {
        assert_eq!(fit("a\nb\nc\n", 3, 80), "a\nb\n");
        assert_eq!(fit(&format!("{}\nb\nc\n", "x".repeat(100)), 4, 80), format!("{}\nb\n", "x".repeat(100)));
        assert_eq!(fit("a\n", 0, 0), "");
    }
}
