//! `topology show`.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::blocking::format_blocking;
use super::format::{format_age, format_time};
use super::snapshot::{LayoutSnapshot, TopologySnapshot};
use lanekeeper_broker::{PartitionStatus, STATUS_TIMEOUT};
use lanekeeper_core::layout::PartitionNumber;

/// For a person.
pub fn text(snapshot: &TopologySnapshot) -> String {
    let exchange = snapshot.names.public();
    let Some(document) = &snapshot.document else {
        return format!("exchange {exchange} has no layout yet; the first `lanekeeper run` creates it\n");
    };
    let mut text = format!(
        "exchange {exchange}, last changed at {} by {}\n",
        format_time(document.changed_at),
        document.changed_by
    );
    if let Some(changing) = &document.layouts.changing {
        let _ = writeln!(
            text,
            "{} began a change to {} partitions (layout {}, prefetch {}) at {}; if that process has ended, a dispatcher or \
             the next `lanekeeper topology apply` finishes or undoes the change",
            changing.by,
            changing.to.partitions,
            changing.to.number.0,
            changing.to.prefetch,
            format_time(changing.since)
        );
    }
    for layout_snapshot in &snapshot.layouts {
        text += "\n";
        text += &layout_text(layout_snapshot);
    }
    for line in notes(snapshot) {
        let _ = writeln!(text, "\n{line}");
    }
    text
}

fn layout_text(layout_snapshot: &LayoutSnapshot) -> String {
    let layout = layout_snapshot.layout;
    let state = match &layout_snapshot.draining {
        None => "current".to_owned(),
        Some(draining) => format!(
            "draining since {}, {} of {} partitions drained",
            format_time(draining.since),
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
        let _ = writeln!(text, "{}", line(Row::of(layout_snapshot, partition).columns(partition)));
    }
    let blocking = format_blocking(&layout_snapshot.statuses());
    if !blocking.is_empty() {
        let _ = writeln!(text, "{blocking}");
    }
    text
}

fn line([partition, ready, unsettled, held, published, waiting, drained, owner]: [String; 8]) -> String {
    let line = format!(
        "  {partition:<10} {ready:>9} {unsettled:>9}  {held:>11}  {published:>11} {waiting:>8}  {drained:<7}  {owner}"
    );
    line.trim_end().to_owned()
}

/// Explains the question marks of the tables.
fn notes(snapshot: &TopologySnapshot) -> Vec<String> {
    let mut notes = Vec::new();
    let unanswered: usize =
        snapshot.layouts.iter().map(|layout_snapshot| layout_snapshot.unanswered().count()).sum();
    if unanswered > 0 {
        let partitions = if unanswered == 1 { "1 partition" } else { &format!("{unanswered} partitions") };
        let why = snapshot.unasked.clone().unwrap_or_else(|| {
            format!(
                "the consumer did not answer within {} s: it is stopped or short of CPU time, is of a version that does \
                 not answer, or is not a dispatcher (see `lanekeeper doctor`)",
                STATUS_TIMEOUT.as_secs()
            )
        });
        notes.push(format!("?: no answer for {partitions} with a consumer; {why}"));
    }
    let rows = snapshot.layouts.iter().flat_map(|layout_snapshot| {
        layout_snapshot.owned().map(|partition| Row::of(layout_snapshot, partition))
    });
    if rows.into_iter().any(|row| matches!(row.owner, Owner::Perhaps(_))) {
        notes.push(
            format!(
                "NAME?: the owner did not answer within {} s; NAME consumes the partition too, but does not know whether it \
                 is the owner, since it has received no delivery",
                STATUS_TIMEOUT.as_secs()
            ),
        );
    }
    notes
}

/// For a program.
pub fn json(snapshot: &TopologySnapshot) -> String {
    let document = snapshot.document.as_ref();
    let layouts: Vec<Json> =
        snapshot.layouts.iter().map(|layout_snapshot| json_of(layout_snapshot, snapshot)).collect();
    let output = json!({
        "exchange": snapshot.names.public(),
        "in_force": document.map(|document| document.layouts.in_force.number),
        "changing": document.and_then(|document| document.layouts.changing.as_ref()).map(|changing| json!({
            "to": changing.to, "by": changing.by, "since": changing.since,
        })),
        "changed_by": document.map(|document| &document.changed_by),
        "changed_at": document.map(|document| document.changed_at),
        "layouts": layouts,
        "not_asked": snapshot.unasked,
    });
    format!("{output:#}\n")
}

fn json_of(layout_snapshot: &LayoutSnapshot, snapshot: &TopologySnapshot) -> Json {
    let layout = layout_snapshot.layout;
    let partitions: Vec<Json> = layout
        .partitions()
        .map(|partition| {
            let row = Row::of(layout_snapshot, partition);
            let status = row.status.as_ref();
            let (owner, perhaps) = match &row.owner {
                Owner::Known(name) => (Some(name), None),
                Owner::Perhaps(name) => (None, Some(name)),
                Owner::Nobody | Owner::Unknown => (None, None),
            };
            json!({
                "partition": partition.to_string(),
                "queue": snapshot.names.partition(layout.number, partition),
                "exists": !row.is_missing,
                "consumed": !matches!(row.owner, Owner::Nobody),
                "answered": row.status.is_some(),
                "ready": row.ready,
                "unsettled": status.map(|status| status.updates),
                "oldest_held_seconds": status.and_then(|status| status.oldest_held_seconds),
                "oldest_published_seconds": status.and_then(|status| status.oldest_published_seconds),
                "records": status.map(|status| status.records),
                "records_waiting": status.map(|status| status.waiting),
                "records_target_shut": status.map(|status| status.target_shut),
                "records_target_paused": status.map(|status| status.target_paused),
                "owner": owner,
                "owner_perhaps": perhaps,
                "tenure": status.and_then(|status| status.tenure),
                "drained": row.drained,
                "retried": status.filter(|_| row.drained.is_some()).map(|status| &status.retried_records),
            })
        })
        .collect();
    json!({
        "number": layout.number,
        "prefetch": layout.prefetch,
        "state": if layout_snapshot.draining.is_some() { "draining" } else { "in_force" },
        "draining_since": layout_snapshot.draining.as_ref().map(|draining| draining.since),
        "partitions": partitions,
    })
}

/// Which replica owns a partition.
enum Owner {
    /// Nobody consumes it.
    Nobody,
    /// Somebody consumes it and has not answered.
    Unknown,
    /// This replica consumes it and does not know whether it is the owner.
    Perhaps(String),
    /// This replica.
    Known(String),
}

/// A line of the table.
struct Row {
    /// `None`: the queue does not exist.
    ready: Option<u64>,
    owner: Owner,
    /// What the owner answered.
    status: Option<PartitionStatus>,
    /// `None`: its layout is not draining.
    drained: Option<bool>,
    is_missing: bool,
}

impl Row {
    fn of(layout_snapshot: &LayoutSnapshot, partition: PartitionNumber) -> Self {
        let depth = layout_snapshot.depths[&partition];
        let answer = layout_snapshot
            .answers
            .get(&partition)
            .filter(|_| depth.is_some_and(|depth| depth.consumers > 0));
        let owner = match answer {
            Some(answer) if answer.is_of_the_owner() => Owner::Known(answer.instance.clone()),
            Some(answer) => Owner::Perhaps(answer.instance.clone()),
            None if depth.is_some_and(|depth| depth.consumers > 0) => Owner::Unknown,
            None => Owner::Nobody,
        };
        Self {
            ready: depth.map(|depth| depth.ready.into()),
            owner,
            status: answer.filter(|answer| answer.is_of_the_owner()).map(|answer| answer.status.clone()),
            drained: layout_snapshot.draining.as_ref().map(|draining| draining.drained.contains(&partition)),
            is_missing: layout_snapshot.missing().any(|missing| missing == partition),
        }
    }

    fn columns(&self, partition: PartitionNumber) -> [String; 8] {
        let unknown = if matches!(self.owner, Owner::Nobody) { "-" } else { "?" };
        let status = self.status.as_ref();
        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| unknown.to_owned());
        let age = |seconds: Option<u64>| {
            or_unknown(status.map(|_| seconds.map_or_else(|| "-".to_owned(), format_age)))
        };
        let owner = match &self.owner {
            _ if self.is_missing => {
                "THE QUEUE DOES NOT EXIST: it was deleted, and the updates in it are lost".to_owned()
            }
            Owner::Nobody => "-".to_owned(),
            Owner::Unknown => "?".to_owned(),
            Owner::Perhaps(name) => format!("{name}?"),
            Owner::Known(name) => match status.and_then(|status| status.tenure) {
                Some(tenure) => format!("{name} (tenure {tenure})"),
                None => name.clone(),
            },
        };
        [
            partition.to_string(),
            self.ready.map_or_else(|| "-".to_owned(), |ready| ready.to_string()),
            or_unknown(status.map(|status| status.updates.to_string())),
            age(status.and_then(|status| status.oldest_held_seconds)),
            age(status.and_then(|status| status.oldest_published_seconds)),
            or_unknown(
                status.map(|status| (status.waiting + status.target_shut + status.target_paused).to_string()),
            ),
            self.drained.map_or("", |drained| if drained { "yes" } else { "no" }).to_owned(),
            owner,
        ]
    }
}
