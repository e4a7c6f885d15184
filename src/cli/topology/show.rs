//! `topology show`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::apply::{BLOCKING_REMEDY, blocking};
use super::scene::{Scene, Seen};
use crate::core::layout::PartitionNumber;

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
        text += &layout(seen, scene);
    }
    if let Some(why) = &scene.unseen {
        let _ = writeln!(text, "\nowners and unsettled updates are not known: {why}");
    }
    text
}

fn layout(seen: &Seen, scene: &Scene) -> String {
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
    let _ =
        writeln!(text, "  {:<10} {:>10} {:>10}  {:<8}  owner", "partition", "ready", "unsettled", "drained");
    for partition in layout.partitions() {
        let row = Row::of(seen, scene, partition);
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let drained = row.drained.map_or("", |drained| if drained { "yes" } else { "no" });
        let owner = match (&row.owner, row.is_missing) {
            (_, true) => "THE QUEUE IS NOT THERE: it was deleted, and what it held is lost",
            (Some(owner), _) => owner,
            (None, _) => "-",
        };
        let line = format!(
            "  {:<10} {:>10} {:>10}  {drained:<8}  {owner}",
            partition.to_string(),
            number(row.ready),
            number(row.unsettled),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let blocking = blocking(&seen.holdings);
    if !blocking.is_empty() {
        let _ = writeln!(text, "{blocking}{BLOCKING_REMEDY}");
    }
    text
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
        "not_seen": scene.unseen,
    });
    format!("{told:#}\n")
}

fn json_of(seen: &Seen, scene: &Scene) -> Json {
    let layout = seen.layout;
    let partitions: Vec<Json> = layout
        .partitions()
        .map(|partition| {
            let row = Row::of(seen, scene, partition);
            json!({
                "partition": partition.to_string(),
                "queue": scene.names.partition(layout.number, partition),
                "exists": !row.is_missing,
                "ready": row.ready,
                "unsettled": row.unsettled,
                "owner": row.owner,
                "drained": row.drained,
                "retried": seen.holdings.get(&partition).map(|holding| &holding.retried),
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

struct Row {
    ready: Option<u64>,
    unsettled: Option<u64>,
    owner: Option<String>,
    /// `None`: its layout does not drain.
    drained: Option<bool>,
    is_missing: bool,
}

impl Row {
    fn of(seen: &Seen, scene: &Scene, partition: PartitionNumber) -> Self {
        let used = seen.uses.get(&scene.names.partition(seen.layout.number, partition));
        Self {
            ready: seen.depths[&partition].map(|depth| depth.ready.into()),
            unsettled: used.map(|used| used.unsettled),
            owner: used.and_then(|used| used.owner.clone()),
            drained: seen.draining.as_ref().map(|draining| draining.drained.contains(&partition)),
            is_missing: seen.missing().any(|missing| missing == partition),
        }
    }
}

/// `2026-11-25T01:02:03Z`.
pub fn told_time(seconds: u64) -> String {
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(at).to_string()
}
