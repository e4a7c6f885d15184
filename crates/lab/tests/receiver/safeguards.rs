//! The receiver's safeguards, one suite for all stores: plain requests, judged by answers, values and the report.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lanekeeper_lab::receiver::{
    Counts, OpenStoreError, Receiver, ReceiverSettings, Safeguard, Safeguards, StoreAddress,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::{TEST_TIMEOUT, postgres};

/// Long enough that requests which are sent together meet.
const THINK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Sqlite, Kind::Postgres];

/// A store that is empty, and goes with this value.
struct Place {
    address: StoreAddress,
    _dir: TempDir,
}

impl Place {
    async fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = match kind {
            Kind::Memory => StoreAddress::Memory,
            Kind::Sqlite => StoreAddress::Sqlite(dir.path().join("records.db")),
            Kind::Postgres => StoreAddress::Postgres(postgres::database().await),
        };
        Self { address, _dir: dir }
    }
}

/// A receiver at work. It goes on until this value is dropped.
struct Running {
    receiver: Receiver,
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    /// Its store, if no other receiver uses it.
    _place: Option<Place>,
}

impl Running {
    /// On a store of its own.
    async fn new(kind: Kind, settings: ReceiverSettings) -> Self {
        let place = Place::new(kind).await;
        let running = Self::start(&place, settings).await;
        Self { _place: Some(place), ..running }
    }

    async fn start(place: &Place, settings: ReceiverSettings) -> Self {
        let receiver = Receiver::open(settings, &place.address).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = receiver.clone();
        tokio::spawn(async move { serving.run(listener, async { drop(stopped.await) }).await });
        Self { receiver, address, _stop: stop, _place: None }
    }

    /// One request over a connection of its own. `headers` is one per line.
    async fn send(&self, method: &str, headers: &str, body: &str) -> Answer {
        send(self.address, method, headers, body).await
    }

    async fn put(&self, headers: &str, body: &str) -> Answer {
        self.send("PUT", headers, body).await
    }

    /// Sends all of them at once; how many were answered with each status.
    async fn put_together(&self, requests: Vec<(String, String)>) -> Vec<Answer> {
        let address = self.address;
        let sending: JoinSet<Answer> = requests
            .into_iter()
            .map(|(headers, body)| async move { send(address, "PUT", &headers, &body).await })
            .collect();
        sending.join_all().await
    }

    fn counts(&self) -> Counts {
        self.receiver.report(0).counts
    }

    async fn total(&self) -> i64 {
        let value: Value = serde_json::from_str(&self.send("GET", "", "").await.body).unwrap();
        value["total"].as_i64().unwrap()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    etag: Option<String>,
    problem_type: Option<String>,
    body: String,
}

impl Answer {
    #[track_caller]
    fn is(&self, status: u16, etag: &str) {
        assert_eq!((self.status, self.etag.as_deref()), (status, Some(etag)), "{self:?}");
    }

    #[track_caller]
    fn refused(&self, status: u16, problem_type: &str) {
        let found = self.problem_type.as_deref().map(|found| found.trim_start_matches("urn:problem-type:"));
        assert_eq!((self.status, found), (status, Some(problem_type)), "{self:?}");
    }
}

async fn send(address: SocketAddr, method: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.lines().flat_map(|line| [line, "\r\n"]).collect();
    let length = body.len();
    let request = format!(
        "{method} /records/k HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(TEST_TIMEOUT, stream.read_to_string(&mut response))
        .await
        .expect("it answers")
        .unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    Answer {
        status: head[9..12].parse().unwrap(),
        etag: head.lines().find_map(|line| line.strip_prefix("etag: ")).map(str::to_owned),
        problem_type: problem["type"].as_str().map(str::to_owned),
        body: body.to_owned(),
    }
}

fn all() -> ReceiverSettings {
    ReceiverSettings { safeguards: Safeguards::ALL, ..ReceiverSettings::default() }
}

fn thinking_without(safeguard: Option<Safeguard>) -> ReceiverSettings {
    let safeguards = safeguard.map_or(Safeguards::ALL, |safeguard| Safeguards::ALL.without(safeguard));
    ReceiverSettings { safeguards, think: THINK, ..ReceiverSettings::default() }
}

#[tokio::test]
async fn a_key_is_applied_once_and_answered_as_then() {
    for kind in KINDS {
        let running = Running::new(kind, all()).await;
        running.put("idempotency-key: \"a\"", r#"{"add":5}"#).await.is(200, "\"1\"");
        running.put("idempotency-key: \"b\"", r#"{"add":1}"#).await.is(200, "\"2\"");
        let again = "idempotency-key: \"a\"\nif-match: \"7\"";
        running.put(again, r#"{"add":5}"#).await.is(200, "\"1\"");
        running.put("idempotency-key: \"a\"", r#"{"add":6}"#).await.refused(422, "idempotency-key-reused");
        running.send("GET", "", "").await.is(200, "\"2\"");
        assert_eq!(running.total().await, 6, "{kind:?}");
        let counts = running.counts();
        assert_eq!((counts.updates, counts.duplicates, counts.replayed, counts.rejected), (2, 0, 1, 1));
    }
}

#[tokio::test]
async fn without_idempotency_a_repeat_is_applied_again() {
    for kind in KINDS {
        let safeguards = Safeguards::ALL.without(Safeguard::Idempotency);
        let running = Running::new(kind, ReceiverSettings { safeguards, ..all() }).await;
        for etag in ["\"1\"", "\"2\""] {
            running.put("idempotency-key: \"a\"", r#"{"add":5}"#).await.is(200, etag);
        }
        assert_eq!((running.total().await, running.counts().duplicates), (10, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn a_key_that_was_refused_may_be_used_again() {
    for kind in KINDS {
        let running = Running::new(kind, all()).await;
        running.put("", "x").await.is(200, "\"1\"");
        let key = "idempotency-key: \"a\"\nif-match: ";
        running.put(&format!("{key}\"9\""), "y").await.is(412, "\"1\"");
        running.put(&format!("{key}\"1\""), "y").await.is(200, "\"2\"");
    }
}

#[tokio::test]
async fn of_one_key_sent_twice_at_once_one_is_applied() {
    for kind in KINDS {
        let running = Running::new(kind, thinking_without(None)).await;
        let request = || ("idempotency-key: \"a\"".to_owned(), r#"{"add":5}"#.to_owned());
        let answers = running.put_together(vec![request(), request(), request()]).await;
        assert_eq!((running.total().await, running.counts().updates), (5, 1), "{kind:?}");
        for answer in answers {
            match answer.status {
                200 => answer.is(200, "\"1\""),
                // SQLite has one writer: there, the second one waits until the first is done.
                _ if kind != Kind::Sqlite => answer.refused(409, "idempotency-key-in-progress"),
                _ => panic!("{answer:?}"),
            }
        }
        running.put("idempotency-key: \"a\"", r#"{"add":5}"#).await.is(200, "\"1\"");
    }
}

#[tokio::test]
async fn conditions_are_checked_and_new_etags_returned() {
    for kind in KINDS {
        let settings = ReceiverSettings { require_if_match: true, ..all() };
        let running = Running::new(kind, settings).await;
        assert_eq!(running.send("GET", "", "").await.status, 404);
        assert_eq!(running.put("", "x").await.status, 428);
        running.put("if-match: *", "x").await.is(412, "\"0\"");
        assert_eq!(running.send("GET", "", "").await.status, 404, "{kind:?}: nothing was written");
        running.put("if-none-match: *\ncontent-type: text/plain", "x").await.is(200, "\"1\"");
        running.put("if-none-match: *", "y").await.is(412, "\"1\"");
        running.put("if-match: \"1\"", "y").await.is(200, "\"2\"");
        running.put("if-match: \"1\"", "z").await.is(412, "\"2\"");
        let value = running.send("GET", "", "").await;
        value.is(200, "\"2\"");
        assert_eq!(value.body, "y");
        assert_eq!((running.counts().updates, running.counts().rejected), (2, 4));
    }
}

#[tokio::test]
async fn an_older_record_version_is_answered_as_configured_and_not_applied() {
    for kind in KINDS {
        let place = Place::new(kind).await;
        let running = Running::start(&place, all()).await;
        running.put("record-version: 5", "five").await.is(200, "\"1\"");
        running.put("record-version: 4", "four").await.is(200, "\"1\"");
        running.put("ce-recordversion: 5", "five again").await.is(200, "\"1\"");
        assert_eq!(running.send("GET", "", "").await.body, "five", "{kind:?}");
        running.put("record-version: 6", "six").await.is(200, "\"2\"");
        assert_eq!((running.counts().updates, running.counts().superseded), (2, 2));
        if kind != Kind::Memory {
            let settings = ReceiverSettings { superseded_status: 409, ..all() };
            let later = Running::start(&place, settings).await;
            later.put("record-version: 6", "six again").await.refused(409, "superseded");
        }
    }
}

#[tokio::test]
async fn an_older_tenure_is_refused_also_after_a_repeat_of_the_newer_owner() {
    for kind in KINDS {
        let running = Running::new(kind, all()).await;
        running.put("lanekeeper-tenure: 7\nidempotency-key: \"a\"", "x").await.is(200, "\"1\"");
        running.put("lanekeeper-tenure: 8\nidempotency-key: \"a\"", "x").await.is(200, "\"1\"");
        running.put("lanekeeper-tenure: 7\nidempotency-key: \"b\"", "y").await.refused(403, "older-tenure");
        running.put("lanekeeper-tenure: 8\nidempotency-key: \"b\"", "y").await.is(200, "\"2\"");
        running.put("", "z").await.is(200, "\"3\"");
        running.put("lanekeeper-tenure: 7", "y").await.refused(403, "older-tenure");
        let counts = running.counts();
        assert_eq!((counts.updates, counts.fenced, counts.older_tenures), (3, 2, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn without_row_locks_updates_are_lost_and_with_them_none_is() {
    const TOGETHER: i64 = 12;
    for kind in KINDS {
        for row_locks in [false, true] {
            let settings = thinking_without((!row_locks).then_some(Safeguard::RowLocks));
            let running = Running::new(kind, settings).await;
            let request = |number| (format!("idempotency-key: \"{number}\""), r#"{"add":1}"#.to_owned());
            let answers = running.put_together((0..TOGETHER).map(request).collect()).await;
            assert!(answers.iter().all(|answer| answer.status == 200), "{kind:?}: {answers:?}");
            let total = running.total().await;
            assert_eq!(total == TOGETHER, row_locks, "{kind:?}, row locks {row_locks}: total {total}");
            assert_eq!(running.counts().updates, 12);
        }
    }
}

#[tokio::test]
async fn records_keys_and_tenures_survive_the_receiver() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind).await;
        let first = Running::start(&place, all()).await;
        for sequence in 1..=3 {
            let headers = format!("idempotency-key: \"{sequence}\"\nlanekeeper-tenure: 4");
            first
                .put(&headers, &format!(r#"{{"sequence":{sequence}}}"#))
                .await
                .is(200, &format!("\"{sequence}\""));
        }
        let second = Running::start(&place, all()).await;
        second.put("idempotency-key: \"3\"", r#"{"sequence":3}"#).await.is(200, "\"3\"");
        second.put("lanekeeper-tenure: 3", "x").await.refused(403, "older-tenure");
        second.put("idempotency-key: \"4\"", r#"{"sequence":4}"#).await.is(200, "\"4\"");
        let counts = second.counts();
        assert_eq!((counts.updates, counts.gaps, counts.duplicates), (1, 0, 0), "{kind:?}");
        assert_eq!(second.send("DELETE", "", "").await.status, 200, "a record can be named k");
    }
}

#[tokio::test]
async fn forgetting_forgets_the_stored_records_too() {
    for kind in KINDS {
        let running = Running::new(kind, all()).await;
        running.put("idempotency-key: \"a\"", "x").await.is(200, "\"1\"");
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let reset = b"POST /reset HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        stream.write_all(reset).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 204"), "{response}");
        assert_eq!(running.send("GET", "", "").await.status, 404, "{kind:?}");
        running.put("idempotency-key: \"a\"", "x").await.is(200, "\"1\"");
    }
}

#[tokio::test]
async fn keys_are_kept_for_the_latest_versions_only() {
    for kind in [Kind::Memory, Kind::Sqlite] {
        let running = Running::new(kind, all()).await;
        for number in 0..640 {
            running.put(&format!("idempotency-key: \"{number}\""), r#"{"add":1}"#).await;
        }
        running.put("idempotency-key: \"639\"", r#"{"add":1}"#).await.is(200, "\"640\"");
        running.put("idempotency-key: \"0\"", r#"{"add":1}"#).await.is(200, "\"641\"");
        assert_eq!(running.counts().replayed, 1, "{kind:?}");
    }
}

#[tokio::test]
async fn what_postgres_cannot_keep_is_refused_and_no_reason_to_come_again() {
    let running = Running::new(Kind::Postgres, all()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = b"PUT /records/a%00b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
    assert_eq!((running.counts().rejected, running.counts().store_failed), (1, 0));
}

#[tokio::test]
async fn a_store_of_a_later_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("records.db");
    let address = StoreAddress::Sqlite(file.clone());
    drop(Receiver::open(all(), &address).await.unwrap());
    raise_schema_version(&file).await;
    let refused = Receiver::open(all(), &address).await.unwrap_err();
    assert!(matches!(refused, OpenStoreError::Newer { found: 99, .. }), "{refused}");
    let missing = StoreAddress::Sqlite(dir.path().join("no/such/directory.db"));
    assert!(matches!(Receiver::open(all(), &missing).await, Err(OpenStoreError::Open { .. })));
}

async fn raise_schema_version(file: &Path) {
    use sqlx::Connection as _;
    let url = format!("sqlite://{}", file.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut connection).await.unwrap();
}
