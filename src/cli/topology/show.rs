//! `topology show`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::apply::{BLOCKING_REMEDY, blocking};
use super::scene::{Scene, Seen};
use lanekeeper_broker::{ANSWER_PATIENCE, Holding};
use lanekeeper_core::layout::PartitionNumber;

/// For a person.
pub fn text(scene: &Scene) -> String {
    let exchange = scene.names.public();
    let Some(document) = &scene.document else {
        return format!("no layout of the exchange {exchange} yet; the first `lanekeeper run` makes it\n");
    };
    let mut text = format!(
        "exchange {exchange}: layouts as of {}, by {}\n",
        told_time(document.changed_at),
        document.changed_by
    );
    if let Some(changing) = &document.layouts.changing {
        let _ = writeln!(
            text,
            "a change to {} partitions (layout {}, prefetch {}) was begun by {} at {}; where nobody is at it any more, \
             dispatchers or the next `lanekeeper topology apply` bring it to an end",
            changing.to.partitions,
            changing.to.number.0,
            changing.to.prefetch,
            changing.by,
            told_time(changing.since)
        );
    }
    for seen in &scene.layouts {
        text += "\n";
        text += &layout(seen);
    }
    for line in notes(scene) {
        let _ = writeln!(text, "\n{line}");
    }
    text
}

fn layout(seen: &Seen) -> String {
    let layout = seen.layout;
    let state = match &seen.draining {
        None => "in force".to_owned(),
        Some(draining) => format!(
            "draining since {}, {} of {} partitions drained",
            told_time(draining.since),
            draining.drained.len(),
            layout.partitions
        ),
    };
    let mut text = format!(
        "layout {}: {} partitions, prefetch {}, {state}\n",
        layout.number.0, layout.partitions, layout.prefetch
    );
    let columns = ["partition", "ready", "unsettled", "held for", "published", "waiting", "drained", "owner"];
    let _ = writeln!(text, "{}", line(columns.map(ToOwned::to_owned)));
    for partition in layout.partitions() {
        let _ = writeln!(text, "{}", line(Row::of(seen, partition).columns(partition)));
    }
    let blocking = blocking(&seen.holdings());
    if !blocking.is_empty() {
        let _ = writeln!(text, "{blocking}{BLOCKING_REMEDY}");
    }
    text
}

fn line([partition, ready, unsettled, held, published, waiting, drained, owner]: [String; 8]) -> String {
    let line = format!(
        "  {partition:<10} {ready:>9} {unsettled:>9}  {held:>11}  {published:>11} {waiting:>8}  {drained:<7}  {owner}"
    );
    line.trim_end().to_owned()
}

/// What the table leaves open.
fn notes(scene: &Scene) -> Vec<String> {
    let mut notes = Vec::new();
    let unanswered: usize = scene.layouts.iter().map(|seen| seen.unanswered().count()).sum();
    if unanswered > 0 {
        let partitions = if unanswered == 1 { "1 partition" } else { &format!("{unanswered} partitions") };
        let why = scene.unasked.clone().unwrap_or_else(|| {
            format!(
                "its dispatcher did not answer within {} s: it is stopped or starved, is of a version that does not \
                 answer, or is no dispatcher (`lanekeeper doctor` tells)",
                ANSWER_PATIENCE.as_secs()
            )
        });
        notes.push(format!("?: {partitions} that somebody consumes; {why}"));
    }
    let rows = scene.layouts.iter().flat_map(|seen| seen.owned().map(|partition| Row::of(seen, partition)));
    if rows.into_iter().any(|row| matches!(row.owner, Owner::Perhaps(_))) {
        notes.push(
            format!(
                "NAME?: the owner did not answer within {} s; NAME consumes the partition too, and nothing has come to it \
                 that would tell it whether it is the owner",
                ANSWER_PATIENCE.as_secs()
            ),
        );
    }
    notes
}

/// For a program.
pub fn json(scene: &Scene) -> String {
    let document = scene.document.as_ref();
    let layouts: Vec<Json> = scene.layouts.iter().map(|seen| json_of(seen, scene)).collect();
    let told = json!({
        "exchange": scene.names.public(),
        "in_force": document.map(|document| document.layouts.in_force.number),
        "changing": document.and_then(|document| document.layouts.changing.as_ref()).map(|changing| json!({
            "to": changing.to, "by": changing.by, "since": changing.since,
        })),
        "changed_by": document.map(|document| &document.changed_by),
        "changed_at": document.map(|document| document.changed_at),
        "layouts": layouts,
        "not_asked": scene.unasked,
    });
    format!("{told:#}\n")
}

fn json_of(seen: &Seen, scene: &Scene) -> Json {
    let layout = seen.layout;
    let partitions: Vec<Json> = layout
        .partitions()
        .map(|partition| {
            let row = Row::of(seen, partition);
            let told = row.told.as_ref();
            let (owner, perhaps) = match &row.owner {
                Owner::Known(name) => (Some(name), None),
                Owner::Perhaps(name) => (None, Some(name)),
                Owner::Nobody | Owner::Unknown => (None, None),
            };
            json!({
                "partition": partition.to_string(),
                "queue": scene.names.partition(layout.number, partition),
                "exists": !row.is_missing,
                "consumed": !matches!(row.owner, Owner::Nobody),
                "answered": row.told.is_some(),
                "ready": row.ready,
                "unsettled": told.map(|told| told.updates),
                "oldest_held_seconds": told.and_then(|told| told.oldest_held_seconds),
                "oldest_published_seconds": told.and_then(|told| told.oldest_published_seconds),
                "records": told.map(|told| told.records),
                "records_waiting": told.map(|told| told.waiting),
                "records_target_shut": told.map(|told| told.target_shut),
                "owner": owner,
                "owner_perhaps": perhaps,
                "tenure": told.and_then(|told| told.tenure),
                "drained": row.drained,
                "retried": told.filter(|_| row.drained.is_some()).map(|told| &told.retried),
            })
        })
        .collect();
    json!({
        "number": layout.number,
        "prefetch": layout.prefetch,
        "state": if seen.draining.is_some() { "draining" } else { "in_force" },
        "draining_since": seen.draining.as_ref().map(|draining| draining.since),
        "partitions": partitions,
    })
}

/// Who owns a partition.
enum Owner {
    /// Nobody consumes it.
    Nobody,
    /// Somebody consumes it and has told nothing.
    Unknown,
    /// It consumes it and does not know.
    Perhaps(String),
    Known(String),
}

struct Row {
    ready: Option<u64>,
    owner: Owner,
    /// What the owner holds.
    told: Option<Holding>,
    /// `None`: its layout does not drain.
    drained: Option<bool>,
    is_missing: bool,
}

impl Row {
    fn of(seen: &Seen, partition: PartitionNumber) -> Self {
        let depth = seen.depths[&partition];
        let answer = seen.answers.get(&partition).filter(|_| depth.is_some_and(|depth| depth.consumers > 0));
        let owner = match answer {
            Some(answer) if answer.is_of_the_owner() => Owner::Known(answer.instance.clone()),
            Some(answer) => Owner::Perhaps(answer.instance.clone()),
            None if depth.is_some_and(|depth| depth.consumers > 0) => Owner::Unknown,
            None => Owner::Nobody,
        };
        Self {
            ready: depth.map(|depth| depth.ready.into()),
            owner,
            told: answer.filter(|answer| answer.is_of_the_owner()).map(|answer| answer.holding.clone()),
            drained: seen.draining.as_ref().map(|draining| draining.drained.contains(&partition)),
            is_missing: seen.missing().any(|missing| missing == partition),
        }
    }

    fn columns(&self, partition: PartitionNumber) -> [String; 8] {
        let unknown = if matches!(self.owner, Owner::Nobody) { "-" } else { "?" };
        let of = |told: Option<String>| told.unwrap_or_else(|| unknown.to_owned());
        let age = |seconds: Option<u64>| {
            let told = self.told.as_ref();
            of(told.map(|_| seconds.map_or_else(|| "-".to_owned(), told_age)))
        };
        let told = self.told.as_ref();
        let owner = match &self.owner {
            _ if self.is_missing => {
                "THE QUEUE IS NOT THERE: it was deleted, and what it held is lost".to_owned()
            }
            Owner::Nobody => "-".to_owned(),
            Owner::Unknown => "?".to_owned(),
            Owner::Perhaps(name) => format!("{name}?"),
            Owner::Known(name) => match told.and_then(|told| told.tenure) {
                Some(tenure) => format!("{name} (tenure {tenure})"),
                None => name.clone(),
            },
        };
        [
            partition.to_string(),
            self.ready.map_or_else(|| "-".to_owned(), |ready| ready.to_string()),
            of(told.map(|told| told.updates.to_string())),
            age(told.and_then(|told| told.oldest_held_seconds)),
            age(told.and_then(|told| told.oldest_published_seconds)),
            of(told.map(|told| (told.waiting + told.target_shut).to_string())),
            self.drained.map_or("", |drained| if drained { "yes" } else { "no" }).to_owned(),
            owner,
        ]
    }
}

/// `1h 2m`: two units, however long it is.
fn told_age(seconds: u64) -> String {
    let told = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    told.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// `2026-11-25T01:02:03Z`.
pub fn told_time(seconds: u64) -> String {
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(at).to_string()
}
