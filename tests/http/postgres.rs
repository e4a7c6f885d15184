//! A private PostgreSQL, started and stopped by `scripts/postgres`.

use std::path::Path;
use std::process::{self, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

/// The URL of a new database of its own, on the server that all tests share. That server ends with this process.
pub async fn database() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let server = server();
    let name = format!("receiver_{}", MADE.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(server).await.expect("the server takes connections");
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.expect("a database can be made");
    let (address, _) = server.rsplit_once('/').expect("the URL names a database");
    format!("{address}/{name}")
}

fn server() -> &'static str {
    static SERVER: OnceLock<(String, TempDir)> = OnceLock::new();
    &SERVER.get_or_init(start).0
}

/// A static is never dropped: the server's watcher purges it once this process has ended.
fn start() -> (String, TempDir) {
    let keep = tempfile::tempdir().expect("a directory can be made");
    let dir = keep.path().join("server");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
    let owner = process::id().to_string();
    let mut start = Command::new(script);
    start.arg("start").arg("--dir").arg(&dir).args(["--owner", &owner, "--purge"]);
    let output = start.output().expect("scripts/postgres can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let url = text.lines().find_map(|line| line.strip_prefix("export LANEKEEPER_POSTGRES_URL="));
    (url.expect("it tells its URL").trim_matches('\'').to_owned(), keep)
}
