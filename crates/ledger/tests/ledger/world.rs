//! Where ledgers live during a test, and the values that tests are made of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::secret::Secret;
use lanekeeper_core::update::{RecordKey, UpdateId};
use lanekeeper_ledger::{
    AnyLedger, Entry, EntryKind, Fingerprint, Ledger, LedgerConfig, LedgerError, LedgerPlace, LookupResult,
    OperatorReason, ParkKind, ParkedSeq, Query, Recorded, ResolvedAs, StoredParkReason, StoredUpdate,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use crate::wait::until;

/// A ledger's place; it ends with this value.
pub struct World {
    pub place: LedgerPlace,
    _keep: Option<TempDir>,
}

impl World {
    pub fn file() -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        Self { place: LedgerPlace::Sqlite(keep.path().join("ledger.db")), _keep: Some(keep) }
    }

    /// A database of its own on the server that all tests share.
    pub async fn database() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("ledger_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let server = shared_server();
        let mut connection = PgConnection::connect(server).await.expect("the server runs");
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a database can be made");
        let (base, _) = server.rsplit_once('/').expect("a URL with a database");
        Self { place: LedgerPlace::Postgres(vec![Secret::new(format!("{base}/{name}"))]), _keep: None }
    }

    pub fn settings(&self) -> LedgerConfig {
        LedgerConfig {
            place: self.place.clone(),
            retention: Duration::from_secs(3600),
            parked_max: 1000,
            parked_record_max: 1000,
            connections_max: 4,
            row_lock: false,
        }
    }

    pub async fn open(&self) -> AnyLedger {
        self.open_with(|_| {}).await.expect("the ledger opens")
    }

    pub async fn open_with(&self, change: impl FnOnce(&mut LedgerConfig)) -> Result<AnyLedger, LedgerError> {
        let mut settings = self.settings();
        change(&mut settings);
        AnyLedger::open(settings).await
    }

    /// Runs a statement on the database beside the ledger.
    pub async fn execute(&self, statement: &'static str) {
        match &self.place {
            LedgerPlace::Sqlite(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            }
            LedgerPlace::Postgres(urls) => {
                let mut connection = PgConnection::connect(urls[0].reveal()).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            }
        }
    }
}

impl World {
    /// Asks the database beside the ledger for a number.
    pub async fn count(&self, statement: &'static str) -> i64 {
        match &self.place {
            LedgerPlace::Sqlite(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
            LedgerPlace::Postgres(urls) => {
                let mut connection = PgConnection::connect(urls[0].reveal()).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
        }
    }
}

/// Makes of each `async fn NAME(world: World)` a test on either database.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name($crate::world::World::file()).await; })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name($crate::world::World::database().await).await; })*
        }
    };
}
pub(crate) use on_both;

fn shared_server() -> &'static str {
    static SERVER: OnceLock<(String, TempDir)> = OnceLock::new();
    let (url, _) = SERVER.get_or_init(|| {
        let keep = tempfile::tempdir().expect("a directory can be made");
        (start(&keep.path().join("server"), &[]), keep)
    });
    url
}

/// A private server that ends with this value.
pub struct Server {
    pub url: String,
    dir: PathBuf,
    _keep: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let dir = keep.path().join("server");
        Self { url: start(&dir, &[]), dir, _keep: keep }
    }

    /// A synchronous streaming standby of this server: nothing is committed here that is not there.
    pub async fn standby(&self) -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let dir = keep.path().join("server");
        let url = start(&dir, &["--standby-of", text(&self.dir)]);
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        self.execute("SELECT pg_reload_conf()").await;
        let standby = Self { url, dir, _keep: keep };
        until("a synchronous standby", || async {
            let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            match self.count(state).await {
                1 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        standby
    }

    /// It asks nobody for a password any more.
    pub async fn trust(&self) {
        self.execute(
            "DO $$ BEGIN
                 EXECUTE format('COPY (SELECT ''host all all 127.0.0.1/32 trust'') TO %L', current_setting('hba_file'));
             END $$",
        )
        .await;
        self.execute("SELECT pg_reload_conf()").await;
        let mine = self.url.replacen("lanekeeper:", "lanekeeper:not-", 1);
        until("a server that asks for no password", || async {
            PgConnection::connect(&mine).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// It takes writes from now on, on a timeline of its own.
    pub async fn promote(&self) {
        self.execute("SELECT pg_promote()").await;
    }

    /// Runs a statement beside the ledger.
    pub async fn execute(&self, statement: &'static str) {
        self.beside().execute(statement).await;
    }

    /// Asks for a number beside the ledger.
    pub async fn count(&self, statement: &'static str) -> i64 {
        self.beside().count(statement).await
    }

    fn beside(&self) -> World {
        World { place: LedgerPlace::Postgres(vec![Secret::new(self.url.clone())]), _keep: None }
    }

    /// Of a ledger that knows these servers.
    pub fn settings_of(servers: &[&Self]) -> LedgerConfig {
        let urls = servers.iter().map(|server| Secret::new(server.url.clone())).collect();
        World { place: LedgerPlace::Postgres(urls), _keep: None }.settings()
    }

    pub fn stop(&self) {
        script(&["stop", "--dir", text(&self.dir)]);
    }

    /// SIGKILL; the data stays.
    pub fn kill(&self) {
        script(&["kill", "--dir", text(&self.dir)]);
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&self) {
        script(&["start", "--dir", text(&self.dir)]);
    }

    pub fn settings(&self) -> LedgerConfig {
        Self::settings_of(&[self])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script(&["stop", "--dir", text(&self.dir), "--purge"]);
    }
}

fn start(dir: &Path, options: &[&str]) -> String {
    let owner = std::process::id().to_string();
    let output = script(&[&["start", "--dir", text(dir), "--owner", &owner, "--purge"], options].concat());
    let url = output.split('\'').nth(1).expect("the script prints an assignment");
    url.to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is UTF-8")
}

fn script(arguments: &[&str]) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script =
        here.ancestors().map(|directory| directory.join("scripts/postgres")).find(|path| path.is_file());
    let script = script.expect("we are in the project's sources");
    let output = Command::new(script).args(arguments).output().expect("scripts/postgres can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/postgres {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("it prints text")
}

// The values.

pub fn key(key: &str) -> RecordKey {
    RecordKey::new(key).unwrap()
}

pub fn query(record: &str, id: &str, body: &str) -> Query {
    Query {
        record_key: key(record),
        id: UpdateId::published(id),
        fingerprint: Fingerprint::of(body.as_bytes()),
    }
}

/// An entry of partition 0 of layout 1, by an owner without a number.
pub fn entry(record: &str, kind: EntryKind) -> Entry {
    Entry {
        layout: LayoutNumber(1),
        partition: PartitionNumber(0),
        tenure: None,
        record_key: key(record),
        kind,
    }
}

pub fn by(tenure: u64, entry: Entry) -> Entry {
    Entry { tenure: Some(TenureNumber(tenure)), ..entry }
}

pub fn applied(record: &str, id: &str, body: &str) -> Entry {
    applied_with(record, id, body, None, None, None)
}

pub fn applied_with(
    record: &str,
    id: &str,
    body: &str,
    version: Option<i64>,
    etag: Option<&str>,
    parked: Option<ParkedSeq>,
) -> Entry {
    let fingerprint = Fingerprint::of(body.as_bytes());
    let (id, etag) = (UpdateId::published(id), etag.map(str::to_owned));
    entry(record, EntryKind::Applied { id, fingerprint, version, status: 200, etag, parked })
}

pub fn resolved(
    record: &str,
    id: &str,
    body: &str,
    resolution: ResolvedAs,
    parked: Option<ParkedSeq>,
) -> Entry {
    let fingerprint = Fingerprint::of(body.as_bytes());
    entry(record, EntryKind::Resolved { id: UpdateId::published(id), fingerprint, resolution, parked })
}

pub fn stored(record: &str, id: &str, body: &str) -> StoredUpdate {
    StoredUpdate {
        record_key: key(record),
        id: UpdateId::published(id),
        update_type: Some("customer.updated".into()),
        content_type: Some("application/json".into()),
        content_encoding: None,
        if_match: None,
        version: None,
        published_at: Some(1_700_000_000),
        headers: Vec::new(),
        body: body.to_owned().into(),
    }
}

pub fn rejected(detail: &str) -> StoredParkReason {
    StoredParkReason { kind: ParkKind::Rejected, status: Some(422), detail: detail.into(), attempts: 1 }
}

/// A person with a reason.
pub fn ada() -> OperatorReason {
    OperatorReason { who: "ada".into(), why: "sent by mistake".into() }
}

pub fn park(record: &str, id: &str, body: &str) -> Entry {
    let update = stored(record, id, body);
    entry(record, EntryKind::Park { update, reason: rejected("no such country"), only_behind: false })
}

pub fn park_behind(record: &str, id: &str, body: &str) -> Entry {
    let update = stored(record, id, body);
    entry(record, EntryKind::Park { update, reason: StoredParkReason::behind(), only_behind: true })
}

/// Records it and expects it to be written.
#[track_caller]
pub fn write(ledger: &AnyLedger, entry: Entry) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let recorded = ledger.record(entry).await;
        assert!(matches!(recorded, Ok(Recorded::Done)), "{caller}: {recorded:?}");
    }
}

pub async fn lookup(ledger: &AnyLedger, record: &str, id: &str, body: &str) -> LookupResult {
    ledger.lookup(query(record, id, body)).await.unwrap()
}

/// The ids of a record's parked updates, oldest first, with spaces.
pub async fn parked(ledger: &AnyLedger, record: &str) -> String {
    let updates = ledger.parked_updates(&key(record), None, 100).await.unwrap();
    updates.iter().map(|parked| parked.update.id.as_str()).collect::<Vec<_>>().join(" ")
}

/// The place of a record's parked head.
pub async fn head(ledger: &AnyLedger, record: &str) -> Option<ParkedSeq> {
    let updates = ledger.parked_updates(&key(record), None, 1).await.unwrap();
    updates.first().map(|parked| parked.seq)
}
