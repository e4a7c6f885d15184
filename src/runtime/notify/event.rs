//! Events that people can be told of, and the JSON that they are told with: CloudEvents 1.0 in JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use crate::config::EventKind;
use crate::wall_time::format_time;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::update::RecordKey;

/// A partition of a layout.
pub(super) type Place = (LayoutNumber, PartitionNumber);

/// Something that people can be told of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NotifyEvent {
    RecordParked(ParkedRecord),
    TargetShut(ShutTarget),
    /// The name that it was shut under.
    TargetOpened(String),
    /// With the number of ready messages.
    PartitionWithoutOwner(Place, u32),
    PartitionOwned(Place),
}

/// A record that was parked just now.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedRecord {
    /// The name of its target.
    pub target: String,
    /// Of the partition that it was in.
    pub layout: LayoutNumber,
    /// The same.
    pub partition: PartitionNumber,
    /// Of the update that failed.
    pub update_id: String,
    /// Personal data, perhaps.
    pub record_key: RecordKey,
    /// In one word.
    pub reason: &'static str,
    /// Status or kind of failure of the last attempt, without the words of the target; empty: nothing was sent.
    pub cause: String,
    /// Attempts made.
    pub attempts: u32,
}

/// A target that fails for every record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShutTarget {
    pub(super) target: String,
    /// How the latest attempt failed here, as in `/readyz`; empty if it is shut elsewhere alone.
    pub(super) why: String,
    /// The processes that have shut it.
    pub(super) shut_at: Vec<String>,
}

impl NotifyEvent {
    pub(super) fn kind(&self) -> EventKind {
        match self {
            Self::RecordParked(_) => EventKind::RecordParked,
            Self::TargetShut(_) => EventKind::TargetShut,
            Self::TargetOpened(_) => EventKind::TargetOpened,
            Self::PartitionWithoutOwner(..) => EventKind::PartitionWithoutOwner,
            Self::PartitionOwned(_) => EventKind::PartitionOwned,
        }
    }

    /// The target that it is about; empty: it is about none.
    pub(super) fn target(&self) -> &str {
        match self {
            Self::RecordParked(record) => &record.target,
            Self::TargetShut(shut) => &shut.target,
            Self::TargetOpened(target) => target,
            Self::PartitionWithoutOwner(..) | Self::PartitionOwned(_) => "",
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Self::PartitionWithoutOwner(place, _) | Self::PartitionOwned(place) => Some(*place),
            _ => None,
        }
    }
}

/// What one notification is about: events of one kind and of one target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) kind: EventKind,
    /// Empty: of none.
    pub(super) target: String,
    /// How many events there were.
    pub(super) count: u64,
    /// When the first of them was noticed.
    pub(super) since: SystemTime,
    /// Of parked records: how many for each reason.
    pub(super) reasons: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub(super) events: Vec<NotifyEvent>,
}

/// Who tells.
#[derive(Clone, Debug)]
pub(super) struct EventSource {
    /// `instance.name`.
    pub(super) instance: String,
    /// `updates.exchange`.
    pub(super) exchange: String,
}

/// A notification, as every receiver gets it that may know record keys, or that may not.
pub(super) fn body(batch: &Batch, source: &EventSource, id: &str, record_keys: bool) -> Vec<u8> {
    let mut data = json!({
        "text": text(batch),
        "instance": source.instance,
        "exchange": source.exchange,
        "count": batch.count,
        "since": format_time(batch.since),
    });
    let places = || batch.events.iter().filter_map(NotifyEvent::place);
    match batch.kind {
        EventKind::RecordParked => {
            data["target"] = Json::from(batch.target.as_str());
            data["reasons"] = json!(batch.reasons);
            data["records"] = batch.events.iter().filter_map(|event| record(event, record_keys)).collect();
        }
        EventKind::TargetShut => {
            data["target"] = Json::from(batch.target.as_str());
            if let Some(NotifyEvent::TargetShut(shut)) = batch.events.last() {
                data["why"] = Json::from(shut.why.as_str());
                data["shut_at"] = json!(shut.shut_at);
            }
        }
        EventKind::TargetOpened => data["target"] = Json::from(batch.target.as_str()),
        EventKind::PartitionWithoutOwner | EventKind::PartitionOwned => {
            data["partitions"] = places().map(place).collect();
        }
    }
    let mut event = envelope(source, id, batch.kind.name(), SystemTime::now());
    if !batch.target.is_empty() {
        event["subject"] = Json::from(batch.target.as_str());
    }
    event["data"] = data;
    event.to_string().into_bytes()
}

/// A notification that says only that it came.
pub(super) fn test_body(source: &EventSource, id: &str) -> Vec<u8> {
    let mut event = envelope(source, id, "test", SystemTime::now());
    event["data"] = json!({
        "text": format!("a test of `lanekeeper notify test`, from {}: nothing has happened", source.instance),
        "instance": source.instance,
        "exchange": source.exchange,
        "count": 0,
    });
    event.to_string().into_bytes()
}

fn envelope(source: &EventSource, id: &str, kind: &str, now: SystemTime) -> Json {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("/lanekeeper/{}", lanekeeper_core::template::encode_value(&source.exchange)),
        "type": format!("lanekeeper.{kind}"),
        "time": format_time(now),
        "datacontenttype": "application/json",
    })
}

fn record(event: &NotifyEvent, record_keys: bool) -> Option<Json> {
    let NotifyEvent::RecordParked(parked) = event else { return None };
    let mut record = json!({
        "update_id": parked.update_id,
        "partition": place((parked.layout, parked.partition)),
        "reason": parked.reason,
        "cause": parked.cause,
        "attempts": parked.attempts,
    });
    if record_keys {
        record["record_key"] = Json::from(parked.record_key.as_str());
    }
    Some(record)
}

/// As in `/readyz`.
fn place((layout, partition): Place) -> String {
    format!("l{}.{partition}", layout.0)
}

/// The notification in one sentence, for receivers that show nothing else.
fn text(batch: &Batch) -> String {
    let (target, count) = (&batch.target, batch.count);
    let counted = |one: &str, many: &str| if count == 1 { one.to_owned() } else { format!("{count} {many}") };
    let places = |shown: &dyn Fn(&NotifyEvent) -> String| {
        batch.events.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    match batch.kind {
        EventKind::RecordParked => {
            let reasons: Vec<String> =
                batch.reasons.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
            format!(
                "{} of the target {target} parked ({}): later updates of a parked record wait until a person releases or \
                 discards it",
                counted("a record", "records"),
                reasons.join(", ")
            )
        }
        EventKind::TargetShut => {
            let why = match batch.events.last() {
                Some(NotifyEvent::TargetShut(shut)) if !shut.why.is_empty() => format!(": {}", shut.why),
                _ => String::new(),
            };
            format!("the target {target} is shut, since it fails for all records{why}")
        }
        EventKind::TargetOpened => format!("the target {target} is open again: its updates are attempted"),
        EventKind::PartitionWithoutOwner => {
            let shown = |event: &NotifyEvent| match event {
                NotifyEvent::PartitionWithoutOwner(of, ready) => format!("{} ({ready} ready)", place(*of)),
                _ => String::new(),
            };
            let partitions = counted("a partition", "partitions");
            format!("messages wait in {partitions} that no process owns: {}", places(&shown))
        }
        EventKind::PartitionOwned => {
            let shown = |event: &NotifyEvent| event.place().map(place).unwrap_or_default();
            let partitions = counted("a partition has", "partitions have");
            format!("{partitions} an owner again: {}", places(&shown))
        }
    }
}

/// Shared by the receivers of a notification.
pub(super) type SharedEvent = Arc<NotifyEvent>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn source() -> EventSource {
        EventSource { instance: "host-1".to_owned(), exchange: "up dates".to_owned() }
    }

    fn parked() -> Batch {
        let record = ParkedRecord {
            target: "crm".to_owned(),
            layout: LayoutNumber(1),
            partition: PartitionNumber(3),
            update_id: "u-1".to_owned(),
            record_key: RecordKey::new("jane@example.org").unwrap(),
            reason: "rejected",
            cause: "status 422".to_owned(),
            attempts: 2,
        };
        Batch {
            kind: EventKind::RecordParked,
            target: "crm".to_owned(),
            count: 7,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            reasons: [("rejected", 7)].into(),
            events: vec![NotifyEvent::RecordParked(record)],
        }
    }

    #[test]
    fn a_notification_is_a_cloud_event() {
        let event: Json = serde_json::from_slice(&body(&parked(), &source(), "id-1", false)).unwrap();
        for (pointer, expected) in [
            ("/specversion", json!("1.0")),
            ("/id", json!("id-1")),
            ("/source", json!("/lanekeeper/up%20dates")),
            ("/type", json!("lanekeeper.record_parked")),
            ("/subject", json!("crm")),
            ("/datacontenttype", json!("application/json")),
            ("/data/instance", json!("host-1")),
            ("/data/count", json!(7)),
            ("/data/since", json!("2023-11-14T22:13:20Z")),
            ("/data/reasons", json!({"rejected": 7})),
            (
                "/data/records",
                json!([{"update_id": "u-1", "partition": "l1.p003", "reason": "rejected", "cause": "status 422", "attempts": 2}]),
            ),
            (
                "/data/text",
                json!(
                    "7 records of the target crm parked (rejected: 7): later updates of a parked record wait until a person \
                     releases or discards it"
                ),
            ),
        ] {
            assert_eq!(event.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn record_keys_are_named_only_to_who_may_read_them() {
        let announced =
            |record_keys| String::from_utf8(body(&parked(), &source(), "id-1", record_keys)).unwrap();
        assert!(!announced(false).contains("jane"), "{}", announced(false));
        assert!(announced(true).contains(r#""record_key":"jane@example.org""#), "{}", announced(true));
    }

    #[test]
    fn each_kind_has_its_sentence() {
        let place = |number| (LayoutNumber(2), PartitionNumber(number));
        let check = |events: &[NotifyEvent], expected: &str| {
            let kind = events[0].kind();
            let target = events[0].target().to_owned();
            let batch =
                Batch { kind, target, count: events.len() as u64, events: events.to_vec(), ..parked() };
            assert_eq!(text(&batch), expected);
        };
        let shut = |why: &str| {
            NotifyEvent::TargetShut(ShutTarget { target: "crm".into(), why: why.into(), shut_at: Vec::new() })
        };
        check(&[shut("")], "the target crm is shut, since it fails for all records");
        check(&[shut("status 503")], "the target crm is shut, since it fails for all records: status 503");
        check(
            &[NotifyEvent::TargetOpened("crm".into())],
            "the target crm is open again: its updates are attempted",
        );
        check(
            &[
                NotifyEvent::PartitionWithoutOwner(place(0), 3),
                NotifyEvent::PartitionWithoutOwner(place(7), 1),
            ],
            "messages wait in 2 partitions that no process owns: l2.p000 (3 ready), l2.p007 (1 ready)",
        );
        check(&[NotifyEvent::PartitionOwned(place(0))], "a partition has an owner again: l2.p000");
    }
}
