//! Parked records and updates, and what became of ids, as JSON.

use serde::Serialize;

use super::body::BodyJson;
use super::search::format_ms;
use crate::config::Config;
use lanekeeper_ledger::{Change, ChangeSubject, IdEnd, IdUse, ParkedRecord, ParkedUpdate, StoredParkReason};

/// Why something is parked.
#[derive(Debug, Serialize)]
pub(in super::super) struct ReasonJson {
    reason: &'static str,
    status: Option<u16>,
    detail: String,
    attempts: u32,
}

impl From<StoredParkReason> for ReasonJson {
    fn from(reason: StoredParkReason) -> Self {
        let StoredParkReason { kind, status, detail, attempts } = reason;
        Self { reason: kind.name(), status, detail, attempts }
    }
}

/// A parked record.
#[derive(Debug, Serialize)]
pub(in super::super) struct RecordJson {
    key: String,
    state: &'static str,
    paused: bool,
    updates: u64,
    head_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    since: String,
    #[serde(flatten)]
    why: ReasonJson,
    layout: u32,
    partition: String,
}

impl RecordJson {
    pub(super) fn of(record: ParkedRecord, config: &Config) -> Self {
        Self {
            key: record.record_key.as_str().to_owned(),
            state: record.state.name(),
            paused: record.paused,
            updates: record.updates,
            target: target_of(record.head_type.as_deref(), config),
            head_id: record.head_id,
            head_type: record.head_type,
            since: format_ms(record.since_ms),
            why: record.reason.into(),
            layout: record.layout.0,
            partition: record.partition.to_string(),
        }
    }
}

/// The target that takes updates of this type now.
pub(in super::super) fn target_of(update_type: Option<&str>, config: &Config) -> Option<String> {
    let target = config.routes().find(update_type)?;
    config.targets.get(target.0).map(|target| target.name.clone())
}

/// A parked update.
#[derive(Debug, Serialize)]
pub(in super::super) struct UpdateJson {
    seq: i64,
    id: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    update_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    parked_at: String,
    #[serde(flatten)]
    why: ReasonJson,
    body: BodyJson,
}

impl From<ParkedUpdate> for UpdateJson {
    fn from(parked: ParkedUpdate) -> Self {
        let update = parked.update;
        Self {
            seq: parked.seq.0,
            id: update.id.as_str().to_owned(),
            body: BodyJson::of(&update.body),
            update_type: update.update_type,
            version: update.version,
            content_type: update.content_type,
            parked_at: format_ms(parked.parked_ms),
            why: parked.reason.into(),
        }
    }
}

/// What became of an update.
#[derive(Debug, Serialize)]
pub(in super::super) struct IdUseJson {
    key: String,
    end: &'static str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<ReasonJson>,
}

impl From<IdUse> for IdUseJson {
    fn from(found: IdUse) -> Self {
        let mut shown = Self {
            key: found.record_key.as_str().to_owned(),
            end: "applied",
            at: String::new(),
            status: None,
            who: None,
            why: None,
            parked: None,
        };
        match found.end {
            IdEnd::Applied { at_ms, status } => (shown.at, shown.status) = (format_ms(at_ms), status),
            IdEnd::Resolved { resolution, at_ms } => {
                (shown.end, shown.at) = (resolution.name(), format_ms(at_ms));
            }
            IdEnd::Parked { parked_ms, reason, state } => {
                (shown.end, shown.at) = (state.name(), format_ms(parked_ms));
                shown.parked = Some(reason.into());
            }
            IdEnd::Discarded { at_ms, operator_reason, reason, .. } => {
                (shown.end, shown.at) = ("discarded", format_ms(at_ms));
                shown.who = Some(operator_reason.who);
                shown.why = Some(operator_reason.why);
                shown.parked = Some(reason.into());
            }
        }
        shown
    }
}

/// A change that a person made.
#[derive(Debug, Serialize)]
pub(in super::super) struct ChangeJson {
    seq: i64,
    at: String,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    records: u64,
    updates: u64,
    who: String,
    why: String,
}

impl From<Change> for ChangeJson {
    fn from(change: Change) -> Self {
        let (key, of) = match change.subject {
            ChangeSubject::Record(key) => (Some(key.as_str().to_owned()), None),
            ChangeSubject::Named(name) => (None, Some(name)),
        };
        Self {
            seq: change.seq.0,
            at: format_ms(change.at_ms),
            what: change.kind.name().to_owned(),
            key,
            of,
            records: change.records,
            updates: change.updates,
            who: change.operator_reason.who,
            why: change.operator_reason.why,
        }
    }
}
