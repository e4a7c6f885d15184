//! A primary with a synchronous streaming standby: what fails over, and what goes on answering although it should not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_core::secret::Secret;
use lanekeeper_ledger::{
    AnyLedger, IdStatus, Ledger, LedgerConfig, LedgerError, LedgerPlace, Operations, Recorded,
};

use crate::wait::until;
use crate::world::{Server, applied, key, lookup, park, query, write};

/// How long it may take until a ledger works again after its server was replaced.
const FAIL_OVER_MAX: Duration = Duration::from_secs(30);

async fn open(servers: &[&Server]) -> AnyLedger {
    AnyLedger::open(Server::settings_of(servers)).await.expect("the ledger opens")
}

async fn works_again(ledger: &AnyLedger) {
    let began = Instant::now();
    until("a ledger that takes writes", || async {
        ledger.record(applied("again", "again", "")).await.map_err(|error| error.to_string())
    })
    .await;
    assert!(began.elapsed() < FAIL_OVER_MAX, "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_when_the_standby_takes_over() {
    let primary = Server::start();
    let standby = primary.standby().await;
    // In either order, the standby is not used until it is promoted.
    let ledger = Arc::new(open(&[&standby, &primary]).await);
    let writing: Vec<_> = (0..8)
        .map(|lane| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let mut committed = Vec::new();
                while ledger.lookup(query("stop", "stop", "")).await.ok().is_none_or(|found| !found.parked) {
                    let id = format!("{lane}-{}", committed.len());
                    let recorded = until("a commit", || async {
                        let recorded = ledger.record(applied(&format!("r{lane}"), &id, "")).await;
                        recorded.map_err(|error| error.to_string())
                    });
                    assert_eq!(recorded.await, Recorded::Done);
                    committed.push(id);
                }
                committed
            })
        })
        .collect();
    until("some commits", || async {
        match ledger.stats().await {
            Ok(stats) if stats.entries > 300 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    primary.kill();
    standby.promote().await;
    works_again(&ledger).await;
    let before = ledger.stats().await.unwrap().entries;
    until("commits on the new primary", || async {
        match ledger.stats().await {
            Ok(stats) if stats.entries > before + 300 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    write(&ledger, park("stop", "stopped", "")).await;
    for (lane, task) in writing.into_iter().enumerate() {
        for id in task.await.unwrap() {
            let found = lookup(&ledger, &format!("r{lane}"), &id, "").await;
            assert_eq!(found.id_status, IdStatus::Resolved, "{id}");
        }
    }
}

/// The old primary runs on, takes reads, and knows nothing of what is parked on the new one.
#[tokio::test]
async fn a_primary_that_was_replaced_and_runs_on_is_not_read_any_more() {
    let primary = Server::start();
    let standby = primary.standby().await;
    let ledger = open(&[&primary, &standby]).await;
    write(&ledger, applied("a", "u1", "")).await;
    assert!(!lookup(&ledger, "a", "u2", "").await.parked, "its sessions are on the old primary");
    assert_eq!(ledger.parked_record(&key("a")).await.unwrap(), None);

    standby.promote().await;
    // It can commit nothing any more: no standby confirms.
    until("a record that is parked on the new primary", || async {
        ledger.record(park("a", "u2", "")).await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(primary.count("SELECT count(*) FROM ledger_parked_record").await, 0, "it answers reads");
    assert!(lookup(&ledger, "a", "u3", "").await.parked, "a later update must not overtake");
    assert!(ledger.parked_record(&key("a")).await.unwrap().is_some());
    let (found, lock) = ledger.lock(query("a", "u3", "")).await.unwrap();
    assert!(found.parked);
    drop(lock);
}

/// As after a switch-over: the old primary follows the new one, or is set to take no writes, and answers reads.
#[tokio::test]
async fn a_demoted_primary_that_answers_reads_is_left_on_every_path() {
    let primary = Server::start();
    let standby = primary.standby().await;
    let ledger = open(&[&primary, &standby]).await;
    write(&ledger, park("a", "u1", "")).await;
    assert!(lookup(&ledger, "a", "u2", "").await.parked);
    assert_eq!(ledger.released(None, 10).await.unwrap(), []);
    drop(ledger.lock(query("b", "u1", "")).await.unwrap());

    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
    primary.execute("SELECT pg_reload_conf()").await;
    let read_only =
        "SELECT count(*) FROM (SELECT 1) AS one WHERE current_setting('transaction_read_only') = 'on'";
    until("a primary that takes no writes", || async {
        if primary.count(read_only).await == 1 { Ok(()) } else { Err("it does".to_owned()) }
    })
    .await;
    // Nobody else takes writes yet: no path answers from the old primary.
    let refused = |error: LedgerError| assert_eq!(error.name(), "no_server", "{error}");
    let patience = Instant::now() + Duration::from_secs(20);
    while ledger.lookup(query("a", "u2", "")).await.is_ok() {
        assert!(Instant::now() < patience, "sessions do not see the setting");
        tokio::task::yield_now().await;
    }
    refused(ledger.lookup(query("a", "u2", "")).await.unwrap_err());
    for answered in [
        ledger.released(None, 1).await.map(drop),
        ledger.parked_record(&key("a")).await.map(drop),
        ledger.parked_records(None, 1).await.map(drop),
        ledger.parked_updates(&key("a"), None, 1).await.map(drop),
        ledger.stats().await.map(drop),
        ledger.lock(query("a", "u2", "")).await.map(drop),
        ledger.record(applied("c", "u1", "")).await.map(drop),
    ] {
        answered.expect_err("the old primary answered");
    }
    standby.promote().await;
    works_again(&ledger).await;
    assert!(lookup(&ledger, "a", "u2", "").await.parked);
    assert!(ledger.lock(query("a", "u2", "")).await.unwrap().0.parked);
}

/// A standby that has what was committed but does not show it yet: nothing is read from it.
#[tokio::test]
async fn a_standby_whose_replay_is_paused_is_asked_nothing() {
    let primary = Server::start();
    let standby = primary.standby().await;
    let ledger = open(&[&standby, &primary]).await;
    standby.execute("SELECT pg_wal_replay_pause()").await;
    write(&ledger, park("a", "u1", "")).await;
    assert_eq!(standby.count("SELECT count(*) FROM pg_tables WHERE tablename = 'no_such_table'").await, 0);
    primary.kill();
    let error = ledger.lookup(query("a", "u2", "")).await.expect_err("the standby must not answer");
    assert!(
        matches!(error, LedgerError::NoServer { can_heal: true, .. } | LedgerError::Lost(_)),
        "{error:?}"
    );
    // A promotion waits until everything is replayed.
    standby.execute("SELECT pg_wal_replay_resume()").await;
    standby.promote().await;
    works_again(&ledger).await;
    assert!(lookup(&ledger, "a", "u2", "").await.parked);
}

#[tokio::test]
async fn only_standbys_are_no_ledger_but_may_become_one() {
    let primary = Server::start();
    let standby = primary.standby().await;
    drop(open(&[&primary]).await);
    let error = AnyLedger::open(standby.settings()).await.expect_err("it takes no writes");
    assert!(matches!(error, LedgerError::ReadOnly) && error.can_heal(), "{error:?}");
    standby.promote().await;
    drop(open(&[&standby]).await);
}

/// A commit must be on the standby when it returns, whatever the role's setting is, unless it is stricter.
#[tokio::test]
async fn every_session_commits_synchronously() {
    let server = Server::start();
    for (setting, expected) in
        [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
    {
        let statement: &'static str = match setting {
            "off" => "ALTER ROLE lanekeeper SET synchronous_commit = 'off'",
            "local" => "ALTER ROLE lanekeeper SET synchronous_commit = 'local'",
            "on" => "ALTER ROLE lanekeeper SET synchronous_commit = 'on'",
            _ => "ALTER ROLE lanekeeper SET synchronous_commit = 'remote_apply'",
        };
        server.execute(statement).await;
        server.execute("DROP TABLE IF EXISTS seen; CREATE TABLE seen (setting TEXT)").await;
        let ledger = open(&[&server]).await;
        // The setting of the session that writes, as the server sees it.
        server
            .execute(
                "CREATE OR REPLACE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NEW; END';
                 CREATE OR REPLACE TRIGGER see BEFORE INSERT ON ledger_resolved_update
                     FOR EACH ROW EXECUTE FUNCTION see();
                 CREATE OR REPLACE TRIGGER see BEFORE INSERT ON ledger_parked_record
                     FOR EACH ROW EXECUTE FUNCTION see()",
            )
            .await;
        write(&ledger, applied("a", &format!("by record {setting}"), "")).await;
        let (_, lock) = ledger.lock(query("b", "u1", "")).await.unwrap();
        assert_eq!(
            lock.record(applied("b", &format!("by lock {setting}"), "")).await.unwrap(),
            Recorded::Done
        );
        let statement: &'static str = if expected == "on" {
            "SELECT count(*) FROM seen WHERE setting = 'on'"
        } else {
            "SELECT count(*) FROM seen WHERE setting = 'remote_apply'"
        };
        assert_eq!(server.count(statement).await, 2, "{setting}");
    }
}

/// The first server swallows packets.
#[tokio::test]
async fn a_server_that_swallows_packets_costs_seconds_once() {
    let server = Server::start();
    let hole = crate::silent::SilentAddress::at(([127, 0, 0, 1], 0).into()).await.expect("a port is free");
    let silent = format!("postgres://lanekeeper:x@{}/postgres", hole.address);
    let urls = vec![Secret::new(silent), Secret::new(server.url.clone())];
    let settings = LedgerConfig { place: LedgerPlace::Postgres(urls), ..server.settings() };
    let began = Instant::now();
    let ledger = AnyLedger::open(settings).await.unwrap();
    write(&ledger, applied("a", "u1", "")).await;
    lookup(&ledger, "a", "u1", "").await;
    ledger.released(None, 1).await.unwrap();
    drop(ledger.lock(query("a", "u1", "")).await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(8), "four sessions, after {:?}", began.elapsed());
}

/// As `PgBouncer` with `pool_mode = transaction`: what is set in a session, and what is prepared there, is gone in the next.
#[tokio::test]
async fn a_pooler_that_changes_sessions_is_said_and_not_tried_again() {
    let server = Server::start();
    server.trust().await;
    let url = url_of(&server.url);
    let pooler = crate::pooler::pool_transactions(url).await;
    let pooled = server.url.replace(&url.to_string(), &pooler.to_string());
    let place = LedgerPlace::Postgres(vec![Secret::new(pooled)]);
    let settings = LedgerConfig { place, ..server.settings() };
    let error = match AnyLedger::open(settings).await {
        Err(error) => error,
        Ok(ledger) => {
            until("a call that sees the other session", || async {
                match ledger.released(None, 1).await {
                    Ok(_) => Err("none".to_owned()),
                    Err(_) => Ok(()),
                }
            })
            .await;
            ledger.unusable().await
        }
    };
    assert!(matches!(error, LedgerError::SessionChanged) && !error.can_heal(), "{error:?}");
}

fn url_of(url: &str) -> std::net::SocketAddr {
    let (_, after) = url.split_once('@').expect("the script makes URLs");
    after.split('/').next().and_then(|address| address.parse().ok()).expect("with an address")
}
