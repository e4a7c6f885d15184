//! What the command prints: progress and notices on standard error, the counts on standard output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::console::{Console, REFRESH};
use super::input::Reading;
use lanekeeper_broker::publisher::{
    ConnectionEvent, NotConfirmedReason, PublishError, PublishReceipt, PublishResult, PublisherEvent,
    PublisherExit, Refusal, SubmissionId,
};
use lanekeeper_core::error::error_chain;

/// Numbers of not confirmed lines that are kept for the list at the end.
const NOT_CONFIRMED_KEPT_MAX: usize = 10_000;

/// Ranges of lines in that list.
const RANGES_LISTED_MAX: usize = 20;

/// Counts what happens, and prints it.
pub(super) struct Report {
    exchange: String,
    console: Console,
    reading: Option<Arc<Reading>>,
    published: u64,
    confirmed: u64,
    not_confirmed: u64,
    not_confirmed_lines: Vec<u64>,
    reasons: BTreeMap<NotConfirmedReason, u64>,
    connection_event: Option<ConnectionEvent>,
    refreshed: Instant,
}

impl Report {
    /// Shows progress from here on, if standard error is a terminal. `bytes` is the length of the input, if known.
    pub(super) fn new(exchange: String, bytes: Option<u64>) -> Self {
        Self {
            exchange,
            console: Console::new(bytes),
            reading: None,
            published: 0,
            confirmed: 0,
            not_confirmed: 0,
            not_confirmed_lines: Vec::new(),
            reasons: BTreeMap::new(),
            connection_event: None,
            refreshed: Instant::now(),
        }
    }

    /// The console, for notices of others.
    pub(super) fn console(&self) -> Console {
        self.console.clone()
    }

    /// Reads the progress of the input from `reading`.
    pub(super) fn follow(&mut self, reading: Arc<Reading>) {
        self.reading = Some(reading);
    }

    /// Counts an event, and prints what a person should know.
    pub(super) fn event(&mut self, event: &PublisherEvent) {
        match event {
            PublisherEvent::Published { again } => self.published += u64::from(!again),
            PublisherEvent::PublishReceipt(receipt) => self.receipt(*receipt),
            // This command withdraws nothing.
            PublisherEvent::WithdrawnInFlight(_) | PublisherEvent::Refused { is_new: false, .. } => {}
            PublisherEvent::Refused { refusal, is_new: true } => {
                let refusal = match refusal {
                    Refusal::Nacked => {
                        "the broker refuses updates (negative confirm: a queue is full or not available)"
                            .to_owned()
                    }
                    Refusal::Unroutable => format!(
                        "exchange {} routes updates to no queue: run `lanekeeper run` once, which declares the queues",
                        self.exchange
                    ),
                };
                self.console.say(&format!("{refusal}; publishing again"));
            }
            PublisherEvent::Connection(connection_event) => {
                self.console.say(&match connection_event {
                    ConnectionEvent::Up => "connected again".to_owned(),
                    ConnectionEvent::Blocked { reason } => {
                        format!(
                            "the broker blocks publishing: memory or disk alarm ({reason}); waiting until it ends"
                        )
                    }
                    ConnectionEvent::Unblocked => "the broker's alarm has ended, publishing goes on".to_owned(),
                    ConnectionEvent::Down { cause } => format!("connection lost ({cause}); reconnecting"),
                });
                self.connection_event = Some(connection_event.clone());
                self.refresh();
            }
        }
        if self.refreshed.elapsed() >= REFRESH {
            self.refresh();
        }
    }

    fn receipt(&mut self, PublishReceipt { submission_id: SubmissionId(line), result }: PublishReceipt) {
        match result {
            PublishResult::Confirmed => self.confirmed += 1,
            PublishResult::NotConfirmed(reason) => {
                self.not_confirmed += 1;
                *self.reasons.entry(reason).or_default() += 1;
                if self.not_confirmed_lines.len() < NOT_CONFIRMED_KEPT_MAX {
                    self.not_confirmed_lines.push(line);
                }
            }
        }
    }

    fn refresh(&mut self) {
        self.refreshed = Instant::now();
        if !self.console.shows_progress() {
            return;
        }
        let mut message = self.counts();
        match &self.connection_event {
            Some(ConnectionEvent::Blocked { .. }) => {
                message.push_str(" · the broker blocks publishing: memory or disk alarm");
            }
            Some(ConnectionEvent::Down { .. }) => message.push_str(" · connection lost, reconnecting"),
            Some(ConnectionEvent::Up | ConnectionEvent::Unblocked) | None => {}
        }
        let position = self.reading.as_ref().map(|reading| reading.bytes.load(Ordering::Relaxed));
        self.console.progress(position, message);
    }

    fn counts(&self) -> String {
        format!(
            "published {} confirmed {} bad lines {} not confirmed {}",
            self.published,
            self.confirmed,
            self.bad_lines(),
            self.not_confirmed
        )
    }

    fn bad_lines(&self) -> u64 {
        self.reading.as_ref().map_or(0, |reading| reading.bad.load(Ordering::Relaxed))
    }

    /// Prints how publishing ended. Returns true if every line of the input is confirmed.
    pub(super) fn finish(&mut self, result: &Result<PublisherExit, PublishError>) -> bool {
        self.console.end_progress();
        let complete = self.reading.as_ref().is_some_and(|reading| reading.complete.load(Ordering::Acquire));
        let lines = self.reading.as_ref().map_or(0, |reading| reading.lines.load(Ordering::Relaxed));
        match result {
            Ok(PublisherExit::Finished) => {}
            Ok(PublisherExit::Stopped) => self.console.say("stopped"),
            Ok(PublisherExit::Abandoned) => {
                self.console.say("gave up: the broker refused the updates of too many records");
            }
            Err(error) => self.console.say(&error_chain(error)),
        }
        for (reason, count) in &self.reasons {
            self.console.say(&format!("{count} {}", explain(*reason)));
        }
        if self.not_confirmed > 0 {
            let list = self.list();
            self.console.say(&list);
        }
        if !complete {
            self.console
                .say(&format!("the input was not read to its end: nothing after line {lines} was published"));
        }
        // If nobody reads it, as in `publish | head -0`, the updates are published all the same.
        let _ = writeln!(std::io::stdout(), "{}", self.counts());
        complete && self.bad_lines() == 0 && self.not_confirmed == 0
    }

    fn list(&mut self) -> String {
        self.not_confirmed_lines.sort_unstable();
        let mut text = format!("not confirmed: {}", ranges(&self.not_confirmed_lines, RANGES_LISTED_MAX));
        let not_kept = self.not_confirmed - self.not_confirmed_lines.len() as u64;
        if not_kept > 0 {
            let _ = write!(text, " and {not_kept} others");
        }
        text
    }
}

fn explain(reason: NotConfirmedReason) -> &'static str {
    match reason {
        NotConfirmedReason::Refused(Refusal::Nacked) => {
            "not confirmed: the broker refused them for --give-up-after"
        }
        NotConfirmedReason::Refused(Refusal::Unroutable) => {
            "not confirmed: no queue was bound for them for --give-up-after"
        }
        NotConfirmedReason::Behind => "not published: an earlier update of the same record is not confirmed",
        NotConfirmedReason::Stopped => "published, but not confirmed at the stop: they may have arrived",
        NotConfirmedReason::NotPublished => "read, but not published before the stop",
    }
}

/// `lines 3, 5-8, 12 and more`; `lines` is sorted.
fn ranges(lines: &[u64], ranges_max: usize) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *line => *last = *line,
            _ => ranges.push((*line, *line)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(ranges_max)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let rest: u64 = ranges.iter().skip(ranges_max).map(|(first, last)| last - first + 1).sum();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("lines {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn lines_are_listed_as_ranges() {
        let check = |lines: &[u64], expected: &str| assert_eq!(ranges(lines, 2), expected);
        check(&[3], "lines 3");
        check(&[3, 4, 5, 9], "lines 3-5, 9");
        check(&[1, 3, 5, 6], "lines 1, 3 and 2 more");
    }
}
