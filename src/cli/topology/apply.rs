//! `topology apply`: changes the layout and shows the progress.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::blocking::format_blocking;
use super::format::{format_danger, format_time};
use crate::admin::metrics::Metrics;
use crate::cli::exit::Exit;
use crate::cli::log;
use crate::cli::process::say_error;
use crate::config::{Config, LogConfig};
use crate::doctor::change::{Weight, dangers_of_change};
use crate::printable::printable_lines;
use lanekeeper_broker::{Address, LayoutDocument, Names, Operator, Reconciled, SourceError, Stuck};
use lanekeeper_core::change::{Desired, Draining, Layouts, Step};
use lanekeeper_core::layout::LayoutNumber;

/// How often the progress of a drain is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so long without progress the records that block the drain are named.
const STALL: Duration = Duration::from_secs(4);
/// How long owners are listened to; each publishes its status every two seconds.
const LISTENING: Duration = Duration::from_millis(2_500);
/// How many looks find no consumer before that is said.
const UNOWNED_SHOWN_AT: u32 = 5;

/// How the layout is to be changed.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Return as soon as publishes go to the new layout.
    pub no_wait: bool,
    /// How long the old layout may drain.
    pub timeout: Option<Duration>,
    /// Also if the management API is not seen.
    pub without_management: bool,
}

/// Changes the layout to what the config says, and waits until the old one is deleted.
pub async fn run(config: &Config, manner: Manner) -> Result<Exit, SourceError> {
    // Errors that are no step, such as a queue of the new layout that somebody deletes during the change, are logged.
    let log_config = LogConfig { filter: "lanekeeper=error".to_owned(), ..config.log.clone() };
    let (log, _) = log::start(&log_config, Metrics::new().log());
    let exit = apply(config, manner).await;
    log.flush();
    exit
}

async fn apply(config: &Config, manner: Manner) -> Result<Exit, SourceError> {
    let Manner { no_wait, timeout, without_management } = manner;
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let operator = Operator::connect(&address, names.clone(), &config.instance).await?;
    if needs_switch(&operator, config).await? && !may_switch(config, without_management).await? {
        operator.close().await;
        return Ok(Exit::Other);
    }
    let applied = Applying {
        operator: &operator,
        names,
        config,
        begun: Instant::now(),
        switched: None,
        pause: None,
        last_shown: String::new(),
    };
    let exit = applied.run(no_wait, timeout).await;
    operator.close().await;
    exit
}

/// Whether publishes are to go to another layout. Only such a change can be blocked.
async fn needs_switch(operator: &Operator, config: &Config) -> Result<bool, SourceError> {
    let Some(LayoutDocument { layouts, .. }) = operator.document().await? else {
        return Err(SourceError::NoLayout { exchange: config.updates.exchange.clone() });
    };
    Ok(layouts.changing.is_some() || layouts.in_force.shape() != config.layout_shape())
}

/// Whether nothing blocks the change. Prints everything that could go wrong.
async fn may_switch(config: &Config, without_management: bool) -> Result<bool, SourceError> {
    let dangers = dangers_of_change(config, config.layout_shape()).await?;
    for danger in &dangers {
        say_error(format_args!("{}", format_danger(danger)));
    }
    let is_allowed = dangers.iter().all(|danger| match danger.weight {
        Weight::Forbids => false,
        Weight::Unseen => without_management,
        Weight::Risks | Weight::Warns => true,
    });
    if !is_allowed {
        say_error(format_args!("error: nothing is changed; see `lanekeeper doctor` for what to do"));
    } else if !dangers.is_empty() {
        say_error(format_args!("the change goes on; see `lanekeeper doctor` for what to do"));
    }
    Ok(is_allowed)
}

struct Applying<'a> {
    operator: &'a Operator,
    names: Names,
    config: &'a Config,
    begun: Instant,
    /// When publishes began to go to the new layout.
    switched: Option<Instant>,
    /// From the switch until the old layout was drained.
    pause: Option<Duration>,
    /// The last step that was printed.
    last_shown: String,
}

impl Applying<'_> {
    async fn run(mut self, no_wait: bool, timeout: Option<Duration>) -> Result<Exit, SourceError> {
        let wanted = self.config.layout_shape();
        let mut progress = Progress::default();
        loop {
            let (layouts, stuck) = match self.reconcile().await {
                Ok(reconciled) => reconciled,
                Err(fault @ SourceError::Locked { .. }) => {
                    self.print_lock_holder().await?;
                    return Err(fault);
                }
                Err(fault) => return Err(fault),
            };
            if let Some(switched) = self.switched
                && !layouts.drains()
            {
                self.pause.get_or_insert(switched.elapsed());
            }
            if let Some(stuck) = stuck.filter(Stuck::needs_a_person) {
                say_error(format_args!(
                    "error: {stuck}; publishes go to layout {}, which is dispatched; the old layout stays until this is resolved",
                    layouts.in_force.number.0
                ));
                return Ok(Exit::Other);
            }
            let is_current = layouts.in_force.shape() == wanted;
            let Some(draining) = layouts.draining.first().filter(|_| !(no_wait && is_current)) else {
                if is_current {
                    self.print_end(&layouts);
                    return Ok(Exit::Done);
                }
                continue;
            };
            if timeout.is_some_and(|timeout| self.begun.elapsed() >= timeout) {
                say_error(format_args!(
                    "error: layout {} has not drained within --timeout; dispatchers go on draining it",
                    draining.layout.number.0
                ));
                return Ok(Exit::Other);
            }
            self.look(draining, &mut progress).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes all steps that can be taken now.
    async fn reconcile(&mut self) -> Result<(Layouts, Option<Stuck>), SourceError> {
        let document = self.operator.document().await?;
        let desired = Desired { shape: Some(self.config.layout_shape()), remove: true, ..Desired::default() };
        if let Some(document) = document
            && document.layouts.next_step(&desired).is_none()
        {
            return Ok((document.layouts, None));
        }
        let mut switching = false;
        let mut on_step = |step: &Step, document: &LayoutDocument| {
            switching |= matches!(step, Step::Switch { .. });
            let line = format_step(step, &document.layouts, &self.names);
            // A removal is tried again until all dispatchers have closed their consumers.
            if self.last_shown != line {
                say(&line);
                self.last_shown = line;
            }
        };
        let Reconciled { document, stuck } = self.operator.reconcile(desired, &mut on_step).await?;
        if switching {
            self.switched = Some(Instant::now());
        }
        Ok((document.layouts, stuck))
    }

    /// Prints who is changing the layout, as far as the document says.
    async fn print_lock_holder(&self) -> Result<(), SourceError> {
        let Some(document) = self.operator.document().await? else { return Ok(()) };
        match document.layouts.changing {
            Some(changing) => say_error(format_args!(
                "another process is changing the layout: {} began a change to {} partitions (layout {}) at {}",
                changing.by,
                changing.to.partitions,
                changing.to.number.0,
                format_time(changing.since)
            )),
            None => say_error(format_args!(
                "another process holds the lock and has not begun a change; the last one to change something was {}, at {}",
                document.changed_by,
                format_time(document.changed_at)
            )),
        }
        Ok(())
    }

    /// Prints how far the drain is.
    async fn look(&self, draining: &Draining, progress: &mut Progress) -> Result<(), SourceError> {
        let layout = draining.layout;
        let depths = self.operator.depths(layout).await?;
        let left: Vec<_> =
            layout.partitions().filter(|partition| !draining.drained.contains(partition)).collect();
        let ready = left.iter().filter_map(|partition| depths[partition]).map(|depth| u64::from(depth.ready));
        let unowned = left.iter().all(|partition| depths[partition].is_none_or(|depth| depth.consumers == 0));
        let line = progress.line(layout.number, left.len(), ready.sum(), Instant::now());
        if let Some(line) = line.filter(|_| !left.is_empty()) {
            say(&line);
        }
        if progress.stalled_for(Instant::now()) >= STALL && !unowned {
            self.print_blocking(draining, progress).await?;
        }
        if unowned && !left.is_empty() {
            progress.unowned += 1;
            if progress.unowned == UNOWNED_SHOWN_AT {
                say("  no dispatcher consumes them: start a `lanekeeper run` to drain them");
            }
        } else {
            progress.unowned = 0;
        }
        Ok(())
    }

    /// Prints which records block the drain, by what the owners publish.
    async fn print_blocking(&self, draining: &Draining, progress: &mut Progress) -> Result<(), SourceError> {
        let blocking = format_blocking(&self.operator.statuses(draining.layout, LISTENING).await?);
        if !blocking.is_empty() && progress.blocking != blocking {
            say(&blocking);
        }
        progress.blocking = blocking;
        Ok(())
    }

    fn print_end(&self, layouts: &Layouts) {
        let layout = layouts.in_force;
        say(&format!(
            "layout {} with {} partitions and prefetch {} is current{}",
            layout.number.0,
            layout.partitions,
            layout.prefetch,
            if layouts.draining.is_empty() { "" } else { "; dispatchers drain and delete the old one" }
        ));
        if let Some(pause) = self.pause {
            say(&format!(
                "no record waited longer than {:.1} s for its older updates in the old layout",
                pause.as_secs_f64()
            ));
        }
    }
}

/// Prints a line. If nobody reads it, as in `topology apply | head`, the change still goes on to its end.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{}", printable_lines(line));
}

fn format_step(step: &Step, layouts: &Layouts, names: &Names) -> String {
    match step {
        Step::Begin(shape) => {
            format!("changing to {} partitions, prefetch {}", shape.partitions, shape.prefetch)
        }
        Step::Prepare(layout) => format!("+ declaring {} and its queues", names.layout(layout.number)),
        Step::Switch { from, to } => format!(
            "~ switching {} from {} to {}",
            names.ingress(),
            names.layout(from.number),
            names.layout(to.number)
        ),
        Step::Undo(layout) => {
            let by = layouts.changing.as_ref().map_or("another process", |changing| changing.by.as_str());
            format!("! undoing the change to layout {} that {by} began and did not finish", layout.number.0)
        }
        Step::Record => "recording which partitions are drained".to_owned(),
        Step::Remove(draining) => {
            format!("- deleting {} and its drained queues", names.layout(draining.layout.number))
        }
    }
}

/// What was printed of a drain.
#[derive(Default)]
struct Progress {
    /// Partitions that are not drained, and messages in their queues.
    last_shown: Option<(usize, u64)>,
    /// Since when these have not changed.
    since: Option<Instant>,
    /// The blocking records that were printed.
    blocking: String,
    /// When the queues were looked at last, and how many messages they had.
    before: Option<(Instant, u64)>,
    /// How many looks in a row found no consumer.
    unowned: u32,
}

impl Progress {
    fn stalled_for(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// One line; `None` if nothing has changed.
    fn line(&mut self, layout: LayoutNumber, left: usize, ready: u64, now: Instant) -> Option<String> {
        let rate = self.before.map_or(0.0, |(at, before)| {
            let seconds = now.duration_since(at).as_secs_f64();
            if seconds > 0.0 { before.saturating_sub(ready) as f64 / seconds } else { 0.0 }
        });
        self.before = Some((now, ready));
        if self.last_shown != Some((left, ready)) {
            self.since = Some(now);
        }
        if self.last_shown.replace((left, ready)) == Some((left, ready)) {
            return None;
        }
        let estimate =
            if rate > 0.0 { format!(", about {:.0} s left", ready as f64 / rate) } else { String::new() };
        Some(format!(
            ". draining layout {}: {left} partitions left, {ready} messages in their queues, {rate:.0}/s{estimate}",
            layout.0
        ))
    }
}
