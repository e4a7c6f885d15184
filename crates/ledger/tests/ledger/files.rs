//! What can happen to a file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use lanekeeper_ledger::LedgerPlace;
use lanekeeper_ledger::{IdStatus, Ledger, LedgerError};

use crate::worker::Worker;
use crate::world::{World, applied, lookup, query, write};

fn path(world: &World) -> &Path {
    match &world.place {
        LedgerPlace::Sqlite(path) => path,
        LedgerPlace::Postgres(_) => panic!("a file"),
    }
}

#[tokio::test]
async fn processes_share_a_file() {
    let world = World::file();
    let ledger = world.open().await;
    let mut one = Worker::start(path(&world), "one", 300);
    let mut three = Worker::start(path(&world), "three", 300);
    for number in 0..300 {
        write(&ledger, applied("here", &format!("here-{number}"), "body")).await;
    }
    let (ones, threes) = (one.committed().count(), three.committed().count());
    one.wait();
    three.wait();
    assert_eq!((ones, threes), (300, 300));
    for name in ["here", "one", "three"] {
        for number in [0, 150, 299] {
            let lookup_result = lookup(&ledger, name, &format!("{name}-{number}"), "body").await;
            assert_eq!(lookup_result.id_status, IdStatus::Resolved, "{name} {number}");
        }
    }
    assert_eq!(ledger.stats().await.unwrap().resolved_updates, 900);
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_in_the_file() {
    let world = World::file();
    let mut committed = Vec::new();
    for round in 0..5 {
        let mut worker = Worker::start(path(&world), &"x".repeat(round + 1), 100_000);
        committed.extend(worker.committed().take(20 * (round + 1)));
        worker.kill();
        committed.extend(worker.committed());
    }
    let ledger = world.open().await;
    assert!(committed.len() >= 300, "{} were printed", committed.len());
    for id in &committed {
        let (record, _) = id.split_once('-').unwrap();
        assert_eq!(lookup(&ledger, record, id, "body").await.id_status, IdStatus::Resolved, "{id}");
    }
}

#[tokio::test]
async fn a_new_file_and_those_beside_it_are_for_their_owner_alone_and_others_keep_their_permissions() {
    let world = World::file();
    let ledger = world.open().await;
    write(&ledger, applied("a", "u1", "body")).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let beside = |path: &Path, suffix: &str| {
        let mut name = path.to_owned().into_os_string();
        name.push(suffix);
        std::path::PathBuf::from(name)
    };
    for suffix in ["", "-wal", "-shm"] {
        let path = beside(path(&world), suffix);
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let everything = std::fs::read_dir(path(&world).parent().unwrap()).unwrap();
    for entry in everything {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    drop(ledger);
    let older = World::file();
    std::fs::write(path(&older), "").unwrap();
    std::fs::set_permissions(path(&older), std::fs::Permissions::from_mode(0o640)).unwrap();
    drop(older.open().await);
    assert_eq!(mode(path(&older)), 0o640);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_distinguished_from_others() {
    let world = World::file();
    let no_directory = path(&world).join("missing/ledger.db");
    let opened = world.open_with(|settings| settings.place = LedgerPlace::Sqlite(no_directory)).await;
    assert!(matches!(opened, Err(LedgerError::CannotOpen(_))), "{opened:?}");

    std::fs::write(path(&world), "this is a letter, not a database. ".repeat(100)).unwrap();
    let opened = world.open_with(|_| {}).await;
    assert!(matches!(opened, Err(LedgerError::CannotOpen(_))), "{opened:?}");
}

#[tokio::test]
async fn a_file_that_another_holds_is_an_error_and_then_works_again() {
    let world = World::file();
    let ledger = world.open().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path(&world));
    let mut other = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = ledger.record(applied("a", "u1", "")).await.expect_err("the file is held");
    assert!(matches!(error, LedgerError::Locked(_)), "{error:?}");
    assert_eq!(lookup(&ledger, "a", "u1", "").await.id_status, IdStatus::Unknown, "readers do not wait");
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    write(&ledger, applied("a", "u1", "")).await;
}

/// The disk is a small file system in a namespace of the worker's own.
#[test]
fn a_full_disk_fails_a_commit_and_loses_nothing() {
    let disk = tempfile::tempdir().unwrap();
    crate::worker::run_on_a_small_disk(disk.path());
}

#[tokio::test]
async fn a_file_has_no_row_locks() {
    let world = World::file();
    let ledger = world.open().await;
    let locked = ledger.lock(query("a", "u1", "")).await;
    assert!(matches!(locked, Err(LedgerError::NoRowLocks)), "{locked:?}");
}
