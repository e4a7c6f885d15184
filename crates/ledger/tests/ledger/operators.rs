//! What every ledger does for operators.

use lanekeeper_ledger::{
    Discarded, EntryKind, IdStatus, Ledger, Operations, ParkKind, ParkedState, Selection, StoredParkReason,
};

use crate::world::{
    World, ada, applied_with, entry, head, key, lookup, on_both, park, park_behind, parked, rejected, stored,
    write,
};

on_both!(
    records_are_listed_with_how_many_why_and_since_when,
    records_are_released_by_key_by_reason_or_all,
    a_discard_drops_the_head_and_is_kept_with_who_and_why,
    a_record_that_is_going_out_is_not_discarded,
    a_call_that_changed_nothing_locks_nothing,
);

async fn records_are_listed_with_how_many_why_and_since_when(world: World) {
    let ledger = world.open().await;
    assert_eq!(ledger.parked_records(None, 10).await.unwrap(), []);
    for record in ["b", "a", "c"] {
        write(&ledger, park(record, &format!("u-{record}"), "")).await;
    }
    write(&ledger, park_behind("a", "u-4", "")).await;
    let first = ledger.parked_records(None, 2).await.unwrap();
    let listed: Vec<_> = first.iter().map(|record| (record.record_key.as_str(), record.updates)).collect();
    assert_eq!(listed, [("a", 2), ("b", 1)]);
    assert_eq!(first[0].reason, rejected("no such country"));
    assert_eq!(first[0].state, ParkedState::Parked);
    assert!(first[0].since_ms > 1_700_000_000_000);
    let rest = ledger.parked_records(Some(&first[1].record_key), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].record_key, key("c"));
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.parked_records, stats.parked_updates), (3, 4));
}

async fn records_are_released_by_key_by_reason_or_all(world: World) {
    let ledger = world.open().await;
    let exhausted =
        StoredParkReason { kind: ParkKind::Exhausted, status: None, detail: "timed out".into(), attempts: 9 };
    for record in ["a", "b", "c", "d"] {
        write(&ledger, park(record, record, "")).await;
    }
    let what = EntryKind::Park { update: stored("e", "e", ""), reason: exhausted, only_behind: false };
    write(&ledger, entry("e", what)).await;

    let release = async |selection| ledger.release(&selection, &ada()).await.unwrap().records;
    assert_eq!(release(Selection::Keys(vec![key("b"), key("a"), key("nobody")])).await, 2);
    assert_eq!(release(Selection::Keys(vec![key("b")])).await, 0, "it is on its way already");
    assert_eq!(release(Selection::Reason(ParkKind::Exhausted)).await, 1);
    let released = ledger.released(None, 10).await.unwrap();
    let mut released: Vec<_> = released.iter().map(|record| record.record_key.as_str()).collect();
    released.sort_unstable();
    assert_eq!(released, ["a", "b", "e"]);
    assert_eq!(release(Selection::All).await, 2);
    assert_eq!(ledger.released(None, 3).await.unwrap().len(), 3);
}

async fn a_discard_drops_the_head_and_is_kept_with_who_and_why(world: World) {
    let ledger = world.open().await;
    for number in 1..=4 {
        write(&ledger, park("a", &format!("u{number}"), "")).await;
    }
    let discard = async |head| ledger.discard(&key("a"), head, &ada()).await.unwrap();
    assert_eq!(discard(Some(1)).await, Discarded::Done { updates: 1, left: 3 });
    assert_eq!(parked(&ledger, "a").await, "u2 u3 u4");
    let lookup_result = lookup(&ledger, "a", "u1", "").await;
    assert_eq!(
        (lookup_result.id_status, lookup_result.parked),
        (IdStatus::Resolved, true),
        "delivered again, it is not sent"
    );
    assert_eq!(discard(Some(2)).await, Discarded::Done { updates: 2, left: 1 });
    assert_eq!(discard(None).await, Discarded::Done { updates: 1, left: 0 });
    assert_eq!(discard(None).await, Discarded::NotParked);
    assert!(!lookup(&ledger, "a", "u9", "").await.parked);
    let kept =
        world.count("SELECT count(*) FROM ledger_discarded WHERE who = 'ada' AND why = 'sent by mistake'");
    assert_eq!(kept.await, 4);
}

async fn a_record_that_is_going_out_is_not_discarded(world: World) {
    let ledger = world.open().await;
    write(&ledger, park("a", "u1", "")).await;
    write(&ledger, park_behind("a", "u2", "")).await;
    ledger.release(&Selection::All, &ada()).await.unwrap();
    assert_eq!(ledger.discard(&key("a"), Some(1), &ada()).await.unwrap(), Discarded::Releasing);
    assert_eq!(parked(&ledger, "a").await, "u1 u2");
    write(&ledger, applied_with("a", "u1", "", None, None, head(&ledger, "a").await)).await;
    let seq = head(&ledger, "a").await.unwrap();
    write(&ledger, entry("a", EntryKind::Repark { seq, reason: rejected("") })).await;
    assert_eq!(
        ledger.discard(&key("a"), None, &ada()).await.unwrap(),
        Discarded::Done { updates: 1, left: 0 }
    );
}

/// Another process writes after each of them at once.
async fn a_call_that_changed_nothing_locks_nothing(world: World) {
    let (ledger, other) = (world.open().await, world.open().await);
    write(&ledger, park("a", "u1", "")).await;
    ledger.release(&Selection::All, &ada()).await.unwrap();
    for round in 0..7 {
        match round {
            0 => drop(ledger.discard(&key("a"), None, &ada()).await.unwrap()),
            1 => drop(ledger.discard(&key("b"), None, &ada()).await.unwrap()),
            2 => drop(ledger.resume_record(&key("a"), &ada()).await.unwrap()),
            3 => drop(ledger.resume_target("crm", &ada()).await.unwrap()),
            4 => drop(ledger.forget_version(&key("a"), &ada()).await.unwrap()),
            _ => drop(ledger.pause_record(&key("c"), &ada()).await.unwrap()),
        }
        write(&other, park("a", &format!("v{round}"), "")).await;
        drop(world.open().await); // it migrates
    }
}
