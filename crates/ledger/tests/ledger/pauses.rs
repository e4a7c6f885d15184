//! What every ledger does with paused records and targets.

use lanekeeper_ledger::{
    AnyLedger, ChangeFilter, ChangeSubject, Discarded, EntryKind, Ledger, Operations, PAUSED_TARGETS_MAX,
    ParkKind, ParkedFilter, ParkedState, Paused, Recorded, Released, Resumed, Selection, StoredParkReason,
};

use crate::world::{
    World, ada, applied_with, entry, head, key, lookup, on_both, park, park_behind, parked, rejected, write,
};

on_both!(
    updates_of_a_paused_record_are_parked_in_order_until_it_is_resumed,
    a_pause_outlives_what_was_parked_and_the_process,
    a_pause_ends_a_release_with_its_next_head,
    a_record_that_failed_waits_for_a_release_after_its_pause,
    a_release_passes_paused_records_over,
    a_resumed_record_is_not_parked_by_what_came_late,
    targets_are_paused_and_resumed_by_name,
    pauses_are_kept_with_who_and_why,
    programs_that_know_no_pause_can_read_the_ledger,
);

async fn pause(ledger: &AnyLedger, record: &str) {
    assert_eq!(ledger.pause_record(&key(record), &ada()).await.unwrap(), Paused::Done);
}

async fn resume(ledger: &AnyLedger, record: &str) -> Resumed {
    ledger.resume_record(&key(record), &ada()).await.unwrap()
}

fn resumed(updates: u64) -> Resumed {
    Resumed::Done { updates, still_parked: None }
}

/// As a driver reports that a released head is not sent, since the record is paused.
async fn repark_for_pause(ledger: &AnyLedger, record: &str) -> Recorded {
    let seq = head(ledger, record).await.unwrap();
    let kind = EntryKind::Repark { seq, reason: StoredParkReason::behind() };
    ledger.record(entry(record, kind)).await.unwrap()
}

async fn updates_of_a_paused_record_are_parked_in_order_until_it_is_resumed(world: World) {
    let ledger = world.open().await;
    let flags = async |record| {
        let found = lookup(&ledger, record, "u9", "").await;
        (found.parked, found.paused)
    };
    assert_eq!(ledger.record(park_behind("a", "u1", "")).await.unwrap(), Recorded::NotParked);
    pause(&ledger, "a").await;
    assert_eq!(flags("a").await, (false, true));
    assert_eq!(flags("b").await, (false, false));
    for id in ["u1", "u2", "u3", "u2"] {
        write(&ledger, park_behind("a", id, "")).await;
    }
    assert_eq!(parked(&ledger, "a").await, "u1 u2 u3");
    let record = ledger.parked_record(&key("a")).await.unwrap().unwrap();
    assert!(record.paused && record.state == ParkedState::Parked);
    assert_eq!(record.reason.kind, ParkKind::Paused);
    assert_eq!(record.reason.detail, "paused by ada: sent by mistake");
    let filter = ParkedFilter { reason: Some(ParkKind::Paused), ..ParkedFilter::default() };
    assert_eq!(ledger.find_parked(&filter, None, 10).await.unwrap().records, [record]);
    let updates = ledger.parked_updates(&key("a"), None, 10).await.unwrap();
    assert!(updates.iter().all(|parked| parked.reason.kind == ParkKind::Behind), "{updates:?}");

    assert_eq!(resume(&ledger, "a").await, resumed(3));
    assert_eq!(flags("a").await, (true, false), "newer ones queue behind those that go out");
    assert_eq!(ledger.released(None, 10).await.unwrap().len(), 1);
    assert_eq!(resume(&ledger, "a").await, Resumed::NotPaused);
}

async fn a_pause_outlives_what_was_parked_and_the_process(world: World) {
    let ledger = world.open().await;
    pause(&ledger, "a").await;
    write(&ledger, park_behind("a", "u1", "")).await;
    ledger.discard(&key("a"), None, &ada()).await.unwrap();
    drop(ledger);
    let ledger = world.open().await;
    assert!(lookup(&ledger, "a", "u2", "").await.paused);
    write(&ledger, park_behind("a", "u2", "")).await;
    assert_eq!(parked(&ledger, "a").await, "u2");
    let state = ledger.record_state(&key("a")).await.unwrap();
    assert_eq!(state.paused.unwrap().operator_reason, ada());
    assert_eq!(resume(&ledger, "a").await, resumed(1));
}

/// Its head may be in flight when it is paused: nothing of it may be discarded before that has ended.
async fn a_pause_ends_a_release_with_its_next_head(world: World) {
    let ledger = world.open().await;
    for id in ["u1", "u2", "u3"] {
        write(&ledger, park("a", id, "")).await;
    }
    ledger.release(&Selection::All, &ada()).await.unwrap();
    pause(&ledger, "a").await;
    let discard = async || ledger.discard(&key("a"), Some(1), &ada()).await.unwrap();
    assert_eq!(discard().await, Discarded::Releasing);
    // The head was in flight.
    write(&ledger, applied_with("a", "u1", "", None, None, head(&ledger, "a").await)).await;
    assert_eq!(repark_for_pause(&ledger, "a").await, Recorded::Done);
    let record = ledger.parked_record(&key("a")).await.unwrap().unwrap();
    assert_eq!((record.state, record.reason.kind), (ParkedState::Parked, ParkKind::Paused));
    assert_eq!(discard().await, Discarded::Done { updates: 1, left: 1 });
    assert_eq!(resume(&ledger, "a").await, resumed(1));
}

async fn a_record_that_failed_waits_for_a_release_after_its_pause(world: World) {
    let ledger = world.open().await;
    write(&ledger, park("a", "u1", "")).await;
    pause(&ledger, "a").await;
    write(&ledger, park_behind("a", "u2", "")).await;
    let reason = rejected("no such country");
    assert_eq!(resume(&ledger, "a").await, Resumed::Done { updates: 0, still_parked: Some(reason) });
    let released = ledger.release(&Selection::All, &ada()).await.unwrap();
    assert_eq!(released, Released { records: 1, updates: 2, paused: 0 });
}

async fn a_release_passes_paused_records_over(world: World) {
    let ledger = world.open().await;
    for record in ["a", "b", "c"] {
        write(&ledger, park(record, record, "")).await;
    }
    pause(&ledger, "a").await;
    let release = async |selection| ledger.release(&selection, &ada()).await.unwrap();
    let passed_over = Released { records: 0, updates: 0, paused: 1 };
    assert_eq!(release(Selection::Keys(vec![key("a"), key("nobody")])).await, passed_over);
    assert_eq!(
        release(Selection::Reason(ParkKind::Rejected)).await,
        Released { records: 2, updates: 2, paused: 1 }
    );
    assert_eq!(release(Selection::All).await, passed_over);
    assert_eq!(ledger.parked_record(&key("a")).await.unwrap().unwrap().state, ParkedState::Parked);
}

/// A driver found the record paused, and writes that when it is resumed: the update must not be left behind.
async fn a_resumed_record_is_not_parked_by_what_came_late(world: World) {
    let ledger = world.open().await;
    pause(&ledger, "a").await;
    assert_eq!(resume(&ledger, "a").await, resumed(0));
    assert_eq!(ledger.record(park_behind("a", "u1", "")).await.unwrap(), Recorded::NotParked);
    write(&ledger, park("a", "u1", "")).await;
    ledger.release(&Selection::All, &ada()).await.unwrap();
    pause(&ledger, "a").await;
    assert_eq!(resume(&ledger, "a").await, resumed(0), "it was released all the time");
    assert_eq!(repark_for_pause(&ledger, "a").await, Recorded::NotParked);
    assert_eq!(ledger.parked_record(&key("a")).await.unwrap().unwrap().state, ParkedState::Releasing);
}

async fn targets_are_paused_and_resumed_by_name(world: World) {
    let ledger = world.open().await;
    let names = async || {
        let paused = ledger.paused_targets().await.unwrap();
        paused.into_iter().map(|target| target.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names().await, "");
    for name in ["erp", "crm"] {
        assert_eq!(ledger.pause_target(name, &ada()).await.unwrap(), Paused::Done);
    }
    assert_eq!(names().await, "crm erp");
    let Paused::Already(pause) = ledger.pause_target("crm", &ada()).await.unwrap() else {
        panic!("it is paused")
    };
    assert!(pause.operator_reason == ada() && pause.since_ms > 1_700_000_000_000, "{pause:?}");
    let other = world.open().await;
    assert_eq!(other.paused_targets().await.unwrap()[0].pause, pause);
    assert!(other.resume_target("crm", &ada()).await.unwrap());
    assert!(!other.resume_target("crm", &ada()).await.unwrap());
    assert_eq!(names().await, "erp");
    for number in 1..PAUSED_TARGETS_MAX {
        assert_eq!(ledger.pause_target(&format!("t{number}"), &ada()).await.unwrap(), Paused::Done);
    }
    assert_eq!(ledger.pause_target("one more", &ada()).await.unwrap(), Paused::Full);
}

async fn pauses_are_kept_with_who_and_why(world: World) {
    let ledger = world.open().await;
    write(&ledger, park("a", "u1", "")).await;
    pause(&ledger, "a").await;
    pause(&ledger, "b").await;
    assert!(matches!(ledger.pause_record(&key("a"), &ada()).await.unwrap(), Paused::Already(_)));
    resume(&ledger, "a").await;
    ledger.pause_target("crm", &ada()).await.unwrap();
    ledger.resume_target("crm", &ada()).await.unwrap();
    ledger.resume_target("crm", &ada()).await.unwrap();
    let paused = ledger.paused_records(None, 10).await.unwrap();
    let keys: Vec<_> = paused.iter().map(|record| (record.record_key.as_str(), record.updates)).collect();
    assert_eq!(keys, [("b", 0)]);
    let changes = ledger.changes(&ChangeFilter::default(), None, 10).await.unwrap();
    let said: Vec<String> = changes
        .iter()
        .map(|change| {
            assert_eq!(change.operator_reason, ada());
            let subject = match &change.subject {
                ChangeSubject::Record(record_key) => record_key.as_str(),
                ChangeSubject::Named(name) => name,
            };
            format!("{} {subject} {} {}", change.kind.name(), change.records, change.updates)
        })
        .collect();
    assert_eq!(
        said,
        [
            "resume_target crm 0 0",
            "pause_target crm 0 0",
            "resume_record a 1 0",
            "pause_record b 1 0",
            "pause_record a 1 1",
        ]
    );
}

/// They know these reasons alone, and end with an error at any other.
async fn programs_that_know_no_pause_can_read_the_ledger(world: World) {
    let ledger = world.open().await;
    pause(&ledger, "a").await;
    write(&ledger, park_behind("a", "u1", "")).await;
    for of_others in [
        "SELECT count(*) FROM ledger_parked_record WHERE reason NOT IN ('rejected', 'exhausted', 'conflict', 'id_reused', 'behind')",
        "SELECT count(*) FROM ledger_parked_update WHERE reason NOT IN ('rejected', 'exhausted', 'conflict', 'id_reused', 'behind')",
    ] {
        assert_eq!(world.count(of_others).await, 0);
    }
}
