//! What a ledger costs: printed, not judged, since it depends on the disk. `cargo test --test ledger measure -- --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use lanekeeper_ledger::{AnyLedger, Ledger};

use crate::world::{World, applied_with, by, on_both, query};

/// Each stands for the lane of one record.
const CALLERS: usize = 256;
const ENTRIES_EACH: usize = 20;

on_both!(many_lanes_and_one);

async fn many_lanes_and_one(world: World) {
    let ledger = Arc::new(world.open().await);
    for (callers, entries_each) in [(CALLERS, ENTRIES_EACH), (1, 200)] {
        let before = ledger.stats().await.unwrap();
        let began = Instant::now();
        let writing: Vec<_> = (0..callers)
            .map(|caller| {
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move {
                    for number in 0..entries_each {
                        let record = format!("record-{caller}");
                        let id = format!("0193a3e6-0000-7000-{callers:04}-{caller:06}{number:06}");
                        ledger.lookup(query(&record, &id, "body")).await.unwrap();
                        let version = i64::try_from(number).unwrap();
                        let entry =
                            applied_with(&record, &id, "body", Some(version), Some("\"abcdef\""), None);
                        ledger.record(by(1, entry)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in writing {
            task.await.unwrap();
        }
        let seconds = began.elapsed().as_secs_f64();
        let stats = ledger.stats().await.unwrap();
        let (entries, commits) = (stats.entries - before.entries, stats.commits - before.commits);
        println!(
            "{}: {:.0} bytes an id; {callers} lanes: {:.0} updates/s, {:.0} commits/s, {:.1} updates per commit",
            match &*ledger {
                AnyLedger::Sqlite(_) => "SQLite",
                AnyLedger::Postgres(_) => "PostgreSQL",
            },
            stats.bytes as f64 / stats.resolved_updates as f64,
            entries as f64 / seconds,
            commits as f64 / seconds,
            entries as f64 / commits as f64,
        );
    }
}
