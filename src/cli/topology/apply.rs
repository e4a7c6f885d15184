//! `topology apply`: the change itself, and how it goes on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::plan::{format_danger, wanted};
use super::show::format_time;
use crate::cli::{Exit, log};
use crate::config::{Config, LogConfig};
use crate::doctor::change::{Weight, dangers_of_change};
use lanekeeper_broker::{
    Address, LayoutDocument, Names, Operator, PartitionStatus, Reconciled, SourceError, Stuck,
};
use lanekeeper_core::change::{Desired, Draining, Layouts, Step};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Changes the layout to what the config says, and waits until the old one is gone.
pub async fn run(config: &Config, no_wait: bool, timeout: Option<Duration>) -> Result<Exit, SourceError> {
    // What is logged on the way and is no step: a queue of the new layout that was deleted meanwhile.
    log::start(&LogConfig { filter: "lanekeeper=error".to_owned(), ..config.log.clone() });
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let operator = Operator::connect(&address, names.clone(), &config.instance).await?;
    if wants_a_switch(&operator, config).await? && !is_free(config).await? {
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

/// Whether publishes are to go elsewhere; only that can meet anything.
async fn wants_a_switch(operator: &Operator, config: &Config) -> Result<bool, SourceError> {
    let Some(LayoutDocument { layouts, .. }) = operator.document().await? else {
        return Err(SourceError::NoLayout { exchange: config.updates.exchange.clone() });
    };
    Ok(layouts.changing.is_some() || layouts.in_force.shape() != wanted(config))
}

/// Whether nothing is in the way. All that could go wrong is told.
async fn is_free(config: &Config) -> Result<bool, SourceError> {
    let dangers = dangers_of_change(config, wanted(config)).await?;
    for danger in &dangers {
        eprintln!("{}", format_danger(danger));
    }
    let is_free = dangers.iter().all(|danger| danger.weight != Weight::Forbids);
    if !is_free {
        eprintln!("error: nothing is changed; `lanekeeper doctor` has the remedies");
    } else if !dangers.is_empty() {
        eprintln!("`lanekeeper doctor` has the remedies; the change goes on");
    }
    Ok(is_free)
}

struct Applying<'a> {
    operator: &'a Operator,
    names: Names,
    config: &'a Config,
    begun: Instant,
    /// When publishes began to go to the new layout.
    switched: Option<Instant>,
    /// How long it was until the layout before was drained, and the new one started.
    pause: Option<Duration>,
    /// The last step that was told.
    last_shown: String,
}

impl Applying<'_> {
    async fn run(mut self, no_wait: bool, timeout: Option<Duration>) -> Result<Exit, SourceError> {
        let wanted = wanted(self.config);
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
                eprintln!(
                    "error: {stuck}. Publishes go to layout {}, which is dispatched from; the one before stays until then",
                    layouts.in_force.number.0
                );
                return Ok(Exit::Other);
            }
            let is_in_force = layouts.in_force.shape() == wanted;
            let Some(draining) = layouts.draining.first().filter(|_| !(no_wait && is_in_force)) else {
                if is_in_force {
                    self.print_end(&layouts);
                    return Ok(Exit::Done);
                }
                continue;
            };
            if timeout.is_some_and(|timeout| self.begun.elapsed() >= timeout) {
                eprintln!(
                    "error: layout {} has not drained in time; it goes on by itself",
                    draining.layout.number.0
                );
                return Ok(Exit::Other);
            }
            self.look(draining, &mut progress).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Goes on as far as can be now.
    async fn reconcile(&mut self) -> Result<(Layouts, Option<Stuck>), SourceError> {
        let document = self.operator.document().await?;
        let desired = Desired { shape: Some(wanted(self.config)), remove: true, ..Desired::default() };
        if let Some(document) = document
            && document.layouts.next_step(&desired).is_none()
        {
            return Ok((document.layouts, None));
        }
        let mut switching = false;
        let mut on_step = |step: &Step, document: &LayoutDocument| {
            switching |= matches!(step, Step::Switch { .. });
            let last_shown = format_step(step, &document.layouts, &self.names);
            // A removal is tried again until all dispatchers have let go.
            if self.last_shown != last_shown {
                say(&last_shown);
                self.last_shown = last_shown;
            }
        };
        let Reconciled { document, stuck } = self.operator.reconcile(desired, &mut on_step).await?;
        if switching {
            self.switched = Some(Instant::now());
        }
        Ok((document.layouts, stuck))
    }

    /// Who changes layouts now, as far as the document tells.
    async fn print_lock_holder(&self) -> Result<(), SourceError> {
        let Some(document) = self.operator.document().await? else { return Ok(()) };
        match document.layouts.changing {
            Some(changing) => eprintln!(
                "somebody else is changing the layout: {} began a change to {} partitions (layout {}) at {}",
                changing.by,
                changing.to.partitions,
                changing.to.number.0,
                format_time(changing.since)
            ),
            None => eprintln!(
                "somebody else has the lock and has not begun a change; the last one to change something was {}, at {}",
                document.changed_by,
                format_time(document.changed_at)
            ),
        }
        Ok(())
    }

    /// Shows how far the drain is.
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
            self.name_blocking(draining, progress).await?;
        }
        if unowned && !left.is_empty() {
            progress.unowned += 1;
            if progress.unowned == UNOWNED_SHOWN_AT {
                say("  no dispatcher consumes them: it goes on when a `lanekeeper run` is started");
            }
        } else {
            progress.unowned = 0;
        }
        Ok(())
    }

    /// Says which records hold the drain up, where their owners tell.
    async fn name_blocking(&self, draining: &Draining, progress: &mut Progress) -> Result<(), SourceError> {
        let statuses = self.operator.statuses(draining.layout, LISTENING).await?;
        let last_shown = blocking(&statuses);
        if !last_shown.is_empty() && progress.blocking != last_shown {
            say(&format!("{last_shown}{BLOCKING_ADVICE}"));
        }
        progress.blocking = last_shown;
        Ok(())
    }

    fn print_end(&self, layouts: &Layouts) {
        let layout = layouts.in_force;
        say(&format!(
            "layout {} with {} partitions and prefetch {} is in force{}",
            layout.number.0,
            layout.partitions,
            layout.prefetch,
            if layouts.draining.is_empty() { "" } else { "; dispatchers drain and remove the one before" }
        ));
        if let Some(pause) = self.pause {
            say(&format!(
                "no record waited longer than {:.1} s for older updates of the layout before",
                pause.as_secs_f64()
            ));
        }
    }
}

/// Goes on where nobody reads it, as in `topology apply | head`: the change is to have its end.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Records that keep a layout from being drained, one line each.
pub fn blocking(statuses: &BTreeMap<PartitionNumber, PartitionStatus>) -> String {
    let mut last_shown = String::new();
    for (partition, status) in statuses {
        for (record_key, updates, attempts) in &status.retried {
            let _ = writeln!(
                last_shown,
                "  {partition}: the record {record_key:?} holds {updates} updates; the first was attempted {attempts} \
                 times and is tried again"
            );
        }
    }
    last_shown
}

/// What an operator can do about them.
pub const BLOCKING_ADVICE: &str = "  their partitions are not drained before they are resolved, and records that were in \
     them wait; others go on: put their target right, or let them be parked or dead-lettered (failure.rejected, failure.exhausted, retry.elapsed_max of the dispatchers)";

/// Nothing has changed for so long.
const STALL: Duration = Duration::from_secs(4);
/// Owners tell what they hold every two seconds.
const LISTENING: Duration = Duration::from_millis(2_500);
/// Looks without a consumer before that is said.
const UNOWNED_SHOWN_AT: u32 = 5;

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
            let by = layouts.changing.as_ref().map_or("somebody", |changing| changing.by.as_str());
            format!("! undoing the change to layout {} that {by} began and did not finish", layout.number.0)
        }
        Step::Record => "partitions are drained".to_owned(),
        Step::Remove(draining) => {
            format!("- deleting {} and its queues, which are drained", names.layout(draining.layout.number))
        }
    }
}

/// What was told of a drain.
#[derive(Default)]
struct Progress {
    last_shown: Option<(usize, u64)>,
    /// Since when nothing has changed.
    since: Option<Instant>,
    /// The records that were named.
    blocking: String,
    before: Option<(Instant, u64)>,
    unowned: u32,
}

impl Progress {
    fn stalled_for(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// One line where something has changed.
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
            if rate > 0.0 { format!(", about {:.0} s to go", ready as f64 / rate) } else { String::new() };
        Some(format!(
            ". draining layout {}: {left} partitions left, {ready} messages wait in their queues, {rate:.0}/s{estimate}",
            layout.0
        ))
    }
}
