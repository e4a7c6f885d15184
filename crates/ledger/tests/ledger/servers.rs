//! What can happen to a server, and row locks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_core::secret::Secret;
use lanekeeper_ledger::{AnyLedger, IdStatus, Ledger, LedgerError, LedgerPlace, Recorded};

use crate::wait::until;
use crate::world::{Server, World, applied, by, lookup, park, query, write};

#[tokio::test]
async fn a_server_that_is_stopped_is_an_error_and_then_it_works_again() {
    let server = Server::start();
    let ledger = AnyLedger::open(server.settings()).await.unwrap();
    write(&ledger, applied("a", "u1", "")).await;
    assert_eq!(lookup(&ledger, "a", "u1", "").await.id_status, IdStatus::Resolved);
    for crash in [false, true] {
        if crash {
            server.kill();
        } else {
            server.stop();
        }
        let error = ledger.record(applied("a", "u2", "")).await.expect_err("it is stopped");
        assert!(matches!(error, LedgerError::Lost(_)), "{error:?}");
        assert!(ledger.lookup(query("a", "u1", "")).await.is_err());
        assert!(ledger.released(None, 1).await.is_err());
        server.restart();
        write(&ledger, applied("a", "u2", "")).await;
        assert_eq!(lookup(&ledger, "a", "u2", "").await.id_status, IdStatus::Resolved);
        assert_eq!(ledger.released(None, 1).await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_was_answered_before_a_crash_of_the_server_is_there() {
    let server = Server::start();
    let ledger = Arc::new(AnyLedger::open(server.settings()).await.unwrap());
    let writing: Vec<_> = (0..8)
        .map(|lane| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let mut committed = 0;
                while ledger
                    .record(applied(&format!("r{lane}"), &format!("{lane}-{committed}"), ""))
                    .await
                    .is_ok()
                {
                    committed += 1;
                }
                committed
            })
        })
        .collect();
    until("some commits", || async {
        match ledger.stats().await {
            Ok(stats) if stats.entries > 500 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    server.kill();
    server.restart();
    for (lane, task) in writing.into_iter().enumerate() {
        let committed = task.await.unwrap();
        assert!(committed > 0);
        for number in 0..committed {
            let lookup_result = lookup(&ledger, &format!("r{lane}"), &format!("{lane}-{number}"), "").await;
            assert_eq!(lookup_result.id_status, IdStatus::Resolved, "{lane}-{number} of {committed}");
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_us_is_distinguished_from_one_that_is_away() {
    let world = World::database().await;
    let LedgerPlace::Postgres(urls) = &world.place else { panic!("a server") };
    let url = &urls[0];
    let wrong = url.reveal().replacen("lanekeeper:", "lanekeeper:not-", 1);
    let opened =
        world.open_with(|settings| settings.place = LedgerPlace::Postgres(vec![Secret::new(wrong)])).await;
    assert!(matches!(opened, Err(LedgerError::CannotOpen(_))), "{opened:?}");
    let (base, _) = url.reveal().rsplit_once('/').unwrap();
    let missing = format!("{base}/no_such_database");
    let opened =
        world.open_with(|settings| settings.place = LedgerPlace::Postgres(vec![Secret::new(missing)])).await;
    assert!(matches!(opened, Err(LedgerError::CannotOpen(_))), "{opened:?}");
    let away = LedgerPlace::Postgres(vec![Secret::new("postgres://u:p@127.0.0.1:1/d")]);
    let opened = world.open_with(|settings| settings.place = away).await;
    assert!(matches!(opened, Err(LedgerError::Lost(_))), "{opened:?}");
}

#[tokio::test]
async fn many_processes_can_open_a_new_database_at_once() {
    let world = Arc::new(World::database().await);
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.open().await.identity() })
        })
        .collect();
    let mut identities = Vec::new();
    for task in opening {
        identities.push(task.await.unwrap());
    }
    identities.dedup();
    assert_eq!(identities.len(), 1);
}

#[tokio::test]
async fn a_row_is_held_until_its_outcome_is_committed() {
    let world = World::database().await;
    let (one, two) = (world.open().await, Arc::new(world.open().await));
    let (lookup_result, lock) = one.lock(query("a", "u1", "")).await.unwrap();
    assert_eq!((lookup_result.id_status, lookup_result.parked), (IdStatus::Unknown, false));
    let other = tokio::spawn({
        let two = Arc::clone(&two);
        async move { two.lock(query("a", "u1", "")).await }
    });
    // Another record is free, and so is what does not touch the record.
    drop(two.lock(query("b", "u9", "")).await.unwrap());
    assert_eq!(lookup(&two, "a", "u1", "").await.id_status, IdStatus::Unknown);
    waits(&world).await;
    assert!(!other.is_finished(), "the row is held");
    assert_eq!(lock.record(by(1, applied("a", "u1", ""))).await.unwrap(), Recorded::Done);
    let (lookup_result, lock) = other.await.unwrap().unwrap();
    assert_eq!(lookup_result.id_status, IdStatus::Resolved, "it sees what the first one wrote");
    assert!(lock.waited() > Duration::ZERO);
    assert_eq!(lock.record(by(0, applied("a", "u2", ""))).await.unwrap(), Recorded::Fenced);
    assert_eq!(lookup(&one, "a", "u2", "").await.id_status, IdStatus::Unknown);
}

/// Until a session waits for a row.
async fn waits(world: &World) {
    until("a session that waits for a row", || async {
        let statement = "SELECT count(*) FROM pg_stat_activity
             WHERE wait_event_type = 'Lock' AND datname = current_database()";
        match world.count(statement).await {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_lock_that_is_dropped_writes_nothing_and_is_free_again() {
    let world = World::database().await;
    let ledger = world.open().await;
    let (_, lock) = ledger.lock(query("a", "u1", "")).await.unwrap();
    drop(lock);
    let (lookup_result, lock) = ledger.lock(query("a", "u1", "")).await.unwrap();
    assert_eq!(lookup_result.id_status, IdStatus::Unknown);
    assert_eq!(lock.record(park("a", "u1", "")).await.unwrap(), Recorded::Done);
    assert!(lookup(&ledger, "a", "u1", "").await.parked);
    assert_eq!(world.count("SELECT count(*) FROM ledger_record").await, 1);
}

#[tokio::test]
async fn waiting_for_a_row_or_a_connection_ends() {
    let world = World::database().await;
    let (one, two) = (world.open().await, world.open().await);
    let mut held = Vec::new();
    for record in ["a", "b", "c", "d"] {
        held.push(one.lock(query(record, "u", "")).await.unwrap());
    }
    let (row, connection) = tokio::join!(two.lock(query("a", "u", "")), one.lock(query("e", "u", "")));
    assert!(matches!(row, Err(LedgerError::Locked(_))), "{row:?}");
    assert!(matches!(connection, Err(LedgerError::NoConnection)), "{connection:?}");
    drop(held);
    drop(two.lock(query("a", "u", "")).await.unwrap());
    drop(one.lock(query("e", "u", "")).await.unwrap());
}

/// What PostgreSQL plans while the tables are empty stays for a minute or more.
#[tokio::test]
async fn a_ledger_that_was_empty_is_looked_into_by_its_indexes() {
    let world = World::database().await;
    let ledger = world.open().await;
    for round in 0..20 {
        let ids: Vec<_> = (0..50).map(|number| format!("{round}-{number}")).collect();
        let findings = join_all(ids.iter().map(|id| lookup(&ledger, "a", id, ""))).await;
        assert!(findings.iter().all(|lookup_result| lookup_result.id_status == IdStatus::Unknown));
        join_all(ids.iter().map(|id| write(&ledger, applied("a", id, "")))).await;
    }
    // The server publishes its statistics when a session has been idle for a second.
    until("figures of the server", || async {
        let found = world.count(BY_INDEX).await;
        if found >= 200 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(world.count(ONE_AFTER_ANOTHER).await, 0, "rows that were read by reading the whole table");
}

const BY_INDEX: &str = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_tables
    WHERE relname = 'ledger_resolved_update'";
const ONE_AFTER_ANOTHER: &str = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
    WHERE relname = 'ledger_resolved_update'";
