//! Reports to the dispatchers how this door is: they show it on their pages, and `lanekeeper status` asks them.

use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::door::{Door, DoorLoad};
use super::health::DoorHealth;
use super::statistics::DoorStatistics;
use crate::config::IngestConfig;
use crate::inspect::doors::{DOOR_MESSAGE_FORM, DoorMessage, DoorReport};
use crate::wall_time::unix_millis;
use lanekeeper_broker::{DOOR_REPORT_BYTES_MAX, DoorReporter, ReportKind};

/// What the reports are made of.
#[derive(Debug)]
pub(super) struct Reporting {
    instance: String,
    /// Chosen at each start.
    process: String,
    started_at_ms: i64,
    pending_max: usize,
    pending_bytes_max: usize,
    door: Door,
    statistics: DoorStatistics,
    health: DoorHealth,
}

impl Reporting {
    pub(super) fn new(
        instance: String,
        config: &IngestConfig,
        door: Door,
        statistics: DoorStatistics,
        health: DoorHealth,
    ) -> Self {
        Self {
            instance,
            process: Uuid::new_v4().to_string(),
            started_at_ms: unix_millis(SystemTime::now()),
            pending_max: config.pending_max.get(),
            pending_bytes_max: config.pending_bytes_max,
            door,
            statistics,
            health,
        }
    }

    /// Reports until `stop`, then that the door ends.
    pub(super) async fn run(self, reporter: DoorReporter, stop: CancellationToken) {
        let report = |kind| self.message(kind == ReportKind::Last);
        reporter.run(report, stop.cancelled_owned()).await;
    }

    fn message(&self, ended: bool) -> Vec<u8> {
        encoded(DoorMessage { form: DOOR_MESSAGE_FORM, ended, door: self.report() })
    }

    fn report(&self) -> DoorReport {
        let DoorLoad { pending, pending_bytes, by_sender, no_confirm_for } = self.door.load();
        let now_ms = unix_millis(SystemTime::now());
        let ago_ms =
            |ago: std::time::Duration| now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(0));
        let unready = self.health.unready_for();
        DoorReport {
            instance: self.instance.clone(),
            process: self.process.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.started_at_ms,
            unready_since_ms: unready.as_ref().map(|(_, ago)| ago_ms(*ago)),
            unready: unready.map(|(why, _)| why),
            pending,
            pending_max: self.pending_max,
            pending_bytes,
            pending_bytes_max: self.pending_bytes_max,
            no_confirm_since_ms: no_confirm_for.map(ago_ms),
            ..self.statistics.report(&by_sender, now_ms)
        }
        .bounded()
    }
}

/// As dispatchers take it: of what would be too long, some clients and hooks are left out.
fn encoded(mut message: DoorMessage) -> Vec<u8> {
    loop {
        let body = serde_json::to_vec(&message).expect("a report is plain data");
        let senders = message.door.senders.len();
        if body.len() <= DOOR_REPORT_BYTES_MAX || senders == 0 {
            return body;
        }
        message.door.senders.truncate(senders / 2);
        message.door.senders_left_out += senders - senders / 2;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::inspect::doors::{DoorSenderReport, SENDERS_MAX};

    #[test]
    fn no_report_is_longer_than_dispatchers_take() {
        let sender = DoorSenderReport {
            name: "n".repeat(300),
            last_failure: Some("f".repeat(300)),
            refused: (0..30).map(|n| (format!("a_long_name_of_a_code_{n}"), u64::MAX)).collect(),
            ..DoorSenderReport::default()
        };
        let door = DoorReport {
            senders: vec![sender; SENDERS_MAX],
            refused: BTreeMap::new(),
            ..DoorReport::default()
        };
        let body = encoded(DoorMessage { form: DOOR_MESSAGE_FORM, ended: false, door });
        assert!(body.len() <= DOOR_REPORT_BYTES_MAX, "{}", body.len());
        let DoorMessage { door, .. } = serde_json::from_slice(&body).expect("it is read");
        assert_eq!(door.senders.len() + door.senders_left_out, SENDERS_MAX);
        assert!(!door.senders.is_empty());
    }
}
