//! A private PostgreSQL, started and stopped by `scripts/postgres`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use lanekeeper_lab::testbed::PrivatePostgres;
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

/// A static is never dropped: the server's watcher purges it once this process has ended.
fn server() -> &'static str {
    static SERVER: OnceLock<(PrivatePostgres, TempDir)> = OnceLock::new();
    let start = || {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let started = PrivatePostgres::start(&keep.path().join("server"));
        (started.unwrap_or_else(|error| panic!("{}", lanekeeper_core::error::error_chain(&error))), keep)
    };
    SERVER.get_or_init(start).0.url()
}
