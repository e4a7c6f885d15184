//! A report for each cause there is, for the tests of what people read. The core's tests wrote the causes.

use super::report::{RecordReport, WaitReport};

/// How each report looks with one cause, in the order of the core's examples.
pub fn reports_of_every_cause() -> Vec<RecordReport> {
    let waits: Vec<WaitReport> = serde_json::from_str(include_str!("../../crates/core/src/why/causes.json"))
        .expect("the core wrote it");
    let report = |wait: WaitReport| {
        let since_ms = wait.since_ms.expect("each example has a time");
        // Of these it is known when they end.
        let is_timed = ["retry", "limit", "target_shut", "refused", "take_over"].contains(&wait.cause.code());
        RecordReport {
            record_key: "customer-17".to_owned(),
            at_ms: since_ms + 90_000,
            places: vec![(1, 3)],
            owner: Some("lanekeeper-0".to_owned()),
            wait: WaitReport { ends_at_ms: is_timed.then_some(since_ms + 120_000), ..wait },
            lanes: Vec::new(),
            holders: Vec::new(),
            partitions: Vec::new(),
            ledger: None,
            ledger_fault: None,
            silent: Vec::new(),
            fault: None,
        }
    };
    waits.into_iter().map(report).collect()
}
