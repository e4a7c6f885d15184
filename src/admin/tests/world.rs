//! A port with a ledger in a file.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;

use super::port::{Answer, Listen, Port, WRITE, config};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::update::{RecordKey, UpdateId};
use lanekeeper_ledger::{
    AnyLedger, Entry, EntryKind, Ledger as _, LedgerConfig, LedgerPlace, ParkKind, ParkedState, Recorded,
    StoredParkReason, StoredUpdate,
};

pub(super) struct World {
    pub(super) port: Port,
    pub(super) ledger: Arc<AnyLedger>,
    _directory: TempDir,
}

impl World {
    pub(super) async fn begin() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = AnyLedger::open(LedgerConfig {
            place: LedgerPlace::Sqlite(directory.path().join("ledger.db")),
            retention: Duration::from_secs(3600),
            row_lock: false,
            parked_max: 10_000,
            parked_record_max: 1000,
            connections_max: 1,
        });
        let ledger = Arc::new(ledger.await.unwrap());
        let config = config(Listen::OnLoopback, None, Some(WRITE));
        let port = Port::open_with(&config, |parts| parts.ledger.set(Some(Arc::clone(&ledger)))).await;
        Self { port, ledger, _directory: directory }
    }

    pub(super) async fn park(&self, key: &str, id: &str, body: &[u8]) {
        let record_key = RecordKey::new(key).unwrap();
        let update = StoredUpdate {
            record_key: record_key.clone(),
            id: UpdateId::published(id),
            update_type: Some("customer.updated".to_owned()),
            content_type: Some("application/json".to_owned()),
            content_encoding: None,
            if_match: None,
            version: Some(7),
            published_at: None,
            headers: Vec::new(),
            body: body.to_vec().into(),
        };
        let detail = "no such country <b>".to_owned();
        let reason = StoredParkReason { kind: ParkKind::Rejected, status: Some(422), detail, attempts: 3 };
        let kind = EntryKind::Park { update, reason, only_behind: false };
        let (layout, partition) = (LayoutNumber(1), PartitionNumber(2));
        let entry = Entry { layout, partition, tenure: None, record_key, kind };
        assert_eq!(self.ledger.record(entry).await.unwrap(), Recorded::Done);
    }

    pub(super) async fn state(&self, key: &str) -> Option<ParkedState> {
        let record = self.ledger.parked_record(&RecordKey::new(key).unwrap()).await.unwrap();
        record.map(|record| record.state)
    }

    pub(super) async fn json(&self, path: &str) -> Json {
        let answer = self.port.get(path, &[]).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{answer:?}"
        );
        serde_json::from_str(&answer.body).unwrap()
    }

    /// A change by the API.
    pub(super) async fn change(&self, path: &str, body: &Json) -> Answer {
        let bearer = format!("authorization: Bearer {WRITE}");
        self.port.send("POST", path, &["content-type: application/json", &bearer], &body.to_string()).await
    }
}

pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
