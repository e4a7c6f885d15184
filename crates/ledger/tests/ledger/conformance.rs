//! What every ledger does for dispatchers.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::UpdateId;
use lanekeeper_ledger::{
    BoundTopology, Entry, EntryKind, Fingerprint, IdStatus, Ledger, LedgerBinding, LedgerError, MARKS_MAX,
    Operations, ParkKind, ParkedCount, ParkedCounts, ParkedState, Query, Recorded, ResolvedAs, Selection,
    StoredParkReason, TopologyPlace,
};
use uuid::Uuid;

use crate::world::{
    World, ada, applied, applied_with, by, entry, head, key, lookup, on_both, park, park_behind, parked,
    query, rejected, resolved, stored, write,
};

on_both!(
    an_update_is_known_by_id_record_and_body,
    an_id_counts_within_its_record_alone,
    one_record_cannot_park_more_than_its_share,
    released_records_are_read_page_by_page,
    what_a_layout_of_before_has_parked_belongs_to_no_partition_any_more,
    what_is_parked_is_counted_by_partition,
    a_version_can_be_forgotten,
    an_id_that_was_made_for_a_delivery_is_never_known,
    a_record_keeps_its_highest_version_and_its_last_etag,
    a_resolution_without_a_request_leaves_the_record_as_it_is,
    parked_updates_stay_in_order_and_are_written_once,
    with_the_last_parked_update_the_record_is_no_longer_parked,
    a_released_head_that_fails_parks_its_record_again,
    parked_updates_are_bounded_over_all_records,
    a_higher_tenure_fences_the_older_ones_of_its_partition,
    entries_that_come_together_share_a_commit,
    questions_that_come_together_are_answered_each_with_its_own,
    old_ids_are_forgotten_in_chunks,
    a_clock_that_is_ahead_does_not_make_all_ids_forgotten,
    everything_is_there_after_opening_again,
    ids_of_a_clock_that_was_ahead_do_not_stop_pruning,
    a_ledger_of_a_later_version_is_refused,
    it_names_its_exchange_and_the_marks_of_the_last_starts,
    any_text_can_be_kept,
    a_parked_update_comes_back_as_it_was,
);

async fn an_update_is_known_by_id_record_and_body(world: World) {
    let ledger = world.open().await;
    let check = async |record, id, body, before| {
        let lookup_result = lookup(&ledger, record, id, body).await;
        assert_eq!((lookup_result.id_status, lookup_result.parked), (before, false), "{record} {id} {body}");
    };
    check("a", "u1", "one", IdStatus::Unknown).await;
    write(&ledger, applied("a", "u1", "one")).await;
    write(&ledger, applied("a", "u1", "one")).await; // nobody knows whether a commit took place whose connection was lost
    check("a", "u1", "one", IdStatus::Resolved).await;
    check("a", "u1", "two", IdStatus::Reused).await;
    check("b", "u1", "one", IdStatus::Unknown).await;
    check("a", "u2", "one", IdStatus::Unknown).await;
}

/// Publishers that number the updates of each record use the same ids for all records.
async fn an_id_counts_within_its_record_alone(world: World) {
    let ledger = world.open().await;
    let check = async |record, body, expected| {
        let status = lookup(&ledger, record, "1", body).await.id_status;
        assert_eq!(status, expected, "{record} {body}");
    };
    write(&ledger, applied("a", "1", "one")).await;
    check("b", "one", IdStatus::Unknown).await;
    let together = tokio::join!(
        ledger.record(applied("b", "1", "one")),
        ledger.record(applied("c", "1", "two")),
        ledger.record(applied("a", "1", "one")),
        ledger.record(resolved("d", "1", "one", ResolvedAs::Superseded, None)),
    );
    for recorded in [together.0, together.1, together.2, together.3] {
        assert_eq!(recorded.unwrap(), Recorded::Done);
    }
    for (record, body) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "one")] {
        check(record, body, IdStatus::Resolved).await;
        check(record, "other", IdStatus::Reused).await;
    }
    check("e", "one", IdStatus::Unknown).await;
    // What was resolved is not parked again; what is discarded counts as resolved.
    write(&ledger, park("b", "1", "one")).await;
    assert_eq!(parked(&ledger, "b").await, "");
    write(&ledger, park("e", "1", "one")).await;
    ledger.discard(&key("e"), None, &ada()).await.unwrap();
    check("e", "one", IdStatus::Resolved).await;
    assert_eq!(ledger.stats().await.unwrap().resolved_updates, 5);
}

async fn one_record_cannot_park_more_than_its_share(world: World) {
    let ledger = world.open_with(|settings| settings.parked_record_max = 2).await.unwrap();
    let recorded = async |entry| ledger.record(entry).await.unwrap();
    assert_eq!(recorded(park("a", "1", "")).await, Recorded::Done);
    let together = tokio::join!(recorded(park_behind("a", "2", "")), recorded(park_behind("a", "3", "")));
    assert_eq!(together, (Recorded::Done, Recorded::RecordFull));
    assert_eq!(recorded(park_behind("a", "2", "")).await, Recorded::Done, "it is parked already");
    assert_eq!(recorded(park_behind("a", "3", "")).await, Recorded::RecordFull);
    assert_eq!(recorded(park("b", "1", "")).await, Recorded::Done, "there is room for others");
    assert_eq!(parked(&ledger, "a").await, "1 2");
    write(&ledger, applied_with("a", "1", "", None, None, head(&ledger, "a").await)).await;
    assert_eq!(recorded(park_behind("a", "3", "")).await, Recorded::Done);
}

async fn released_records_are_read_page_by_page(world: World) {
    let ledger = world.open().await;
    for record in ["d", "a", "c", "b", "e"] {
        write(&ledger, park(record, record, "")).await;
    }
    ledger.release(&Selection::All, &ada()).await.unwrap();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.released(after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        read.extend(page.iter().map(|record| record.record_key.as_str().to_owned()));
    }
    let mut sorted = read.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["a", "b", "c", "d", "e"], "each once: {read:?}");
}

async fn what_a_layout_of_before_has_parked_belongs_to_no_partition_any_more(world: World) {
    let ledger = world.open().await;
    for (record, layout) in [("a", 1), ("b", 2), ("c", 3)] {
        let entry = park(record, record, "");
        write(&ledger, Entry { layout: LayoutNumber(layout), ..entry }).await;
    }
    assert_eq!(ledger.forget_layouts(LayoutNumber(1)).await.unwrap(), 2);
    assert_eq!(ledger.forget_layouts(LayoutNumber(1)).await.unwrap(), 0);
    let records = ledger.parked_records(None, 10).await.unwrap();
    let layouts: Vec<u32> = records.iter().map(|record| record.layout.0).collect();
    assert_eq!(layouts, [1, 0, 0]);
}

async fn what_is_parked_is_counted_by_partition(world: World) {
    let ledger = world.open().await;
    assert_eq!(ledger.parked_counts().await.unwrap(), ParkedCounts::default());
    for (record, partition) in [("a", 1), ("b", 1), ("c", 2)] {
        let entry = park(record, record, "");
        write(&ledger, Entry { partition: PartitionNumber(partition), ..entry }).await;
    }
    write(&ledger, Entry { partition: PartitionNumber(1), ..park_behind("a", "a2", "") }).await;
    ledger.release(&Selection::Keys(vec![key("b")]), &ada()).await.unwrap();
    let layout = park("a", "a", "").layout;
    let count = |partition, parked, releasing| ParkedCount {
        layout,
        partition: PartitionNumber(partition),
        parked,
        releasing,
    };
    let expected = ParkedCounts { partitions: vec![count(1, 1, 1), count(2, 1, 0)], updates: 4 };
    assert_eq!(ledger.parked_counts().await.unwrap(), expected);
}

async fn a_version_can_be_forgotten(world: World) {
    let ledger = world.open().await;
    assert_eq!(ledger.forget_version(&key("a"), &ada()).await.unwrap(), None);
    write(&ledger, applied_with("a", "u1", "", Some(i64::MAX), Some("\"x\""), None)).await;
    assert_eq!(ledger.forget_version(&key("a"), &ada()).await.unwrap(), Some(i64::MAX));
    assert_eq!(ledger.forget_version(&key("a"), &ada()).await.unwrap(), None);
    let lookup_result = lookup(&ledger, "a", "u2", "").await;
    assert_eq!((lookup_result.version, lookup_result.etag.as_deref()), (None, Some("\"x\"")));
    write(&ledger, applied_with("a", "u2", "", Some(7), None, None)).await;
    assert_eq!(lookup(&ledger, "a", "u3", "").await.version, Some(7));
}

async fn an_id_that_was_made_for_a_delivery_is_never_known(world: World) {
    let ledger = world.open().await;
    let (id, fingerprint) = (UpdateId::made("m1"), Fingerprint::of(b"one"));
    let what = EntryKind::Applied {
        id: id.clone(),
        fingerprint,
        version: Some(4),
        status: 200,
        etag: None,
        parked: None,
    };
    write(&ledger, entry("a", what)).await;
    let lookup_result = ledger.lookup(Query { record_key: key("a"), id, fingerprint }).await.unwrap();
    assert_eq!((lookup_result.id_status, lookup_result.version), (IdStatus::Unknown, Some(4)));
    assert_eq!(ledger.stats().await.unwrap().resolved_updates, 0);
}

async fn a_record_keeps_its_highest_version_and_its_last_etag(world: World) {
    let ledger = world.open().await;
    let mut number = 0;
    let mut check = async |version, etag, expected: (Option<i64>, Option<&str>)| {
        number += 1;
        write(&ledger, applied_with("a", &format!("u{number}"), "", version, etag, None)).await;
        let lookup_result = lookup(&ledger, "a", "other", "").await;
        assert_eq!((lookup_result.version, lookup_result.etag.as_deref()), expected, "{version:?} {etag:?}");
    };
    check(None, None, (None, None)).await;
    check(Some(3), Some("\"x\""), (Some(3), Some("\"x\""))).await;
    check(Some(2), Some("\"y\""), (Some(3), Some("\"y\""))).await;
    check(None, Some("\"z\""), (Some(3), Some("\"z\""))).await;
    check(Some(9), None, (Some(9), None)).await;
    check(Some(-1), None, (Some(9), None)).await;
    let other = lookup(&ledger, "b", "other", "").await;
    assert_eq!((other.version, other.etag), (None, None));
}

async fn a_resolution_without_a_request_leaves_the_record_as_it_is(world: World) {
    let ledger = world.open().await;
    write(&ledger, applied_with("a", "u1", "one", Some(5), Some("\"e\""), None)).await;
    write(&ledger, resolved("a", "u2", "two", ResolvedAs::Superseded, None)).await;
    let lookup_result = lookup(&ledger, "a", "u2", "two").await;
    assert_eq!(lookup_result.id_status, IdStatus::Resolved);
    assert_eq!((lookup_result.version, lookup_result.etag.as_deref()), (Some(5), Some("\"e\"")));
}

async fn parked_updates_stay_in_order_and_are_written_once(world: World) {
    let ledger = world.open().await;
    assert_eq!(ledger.record(park_behind("a", "u1", "one")).await.unwrap(), Recorded::NotParked);
    assert_eq!(parked(&ledger, "a").await, "");

    write(&ledger, park("a", "u1", "one")).await;
    write(&ledger, park_behind("a", "u2", "two")).await;
    write(&ledger, park_behind("a", "u3", "three")).await;
    write(&ledger, park_behind("a", "u2", "two")).await; // delivered again
    write(&ledger, park("a", "u1", "one")).await;
    assert_eq!(parked(&ledger, "a").await, "u1 u2 u3");
    write(&ledger, park_behind("a", "u2", "another body")).await;
    assert_eq!(parked(&ledger, "a").await, "u1 u2 u3 u2");

    assert!(lookup(&ledger, "a", "u9", "").await.parked);
    assert!(!lookup(&ledger, "b", "u9", "").await.parked);
    let second = ledger.parked_updates(&key("a"), head(&ledger, "a").await, 1).await.unwrap();
    assert_eq!(second[0].update, stored("a", "u2", "two"));
    assert_eq!(second[0].reason, StoredParkReason::behind());

    // An update that was resolved in between is not parked by an entry that is written a second time.
    write(&ledger, applied_with("a", "u1", "one", None, None, head(&ledger, "a").await)).await;
    write(&ledger, park("a", "u1", "one")).await;
    assert_eq!(parked(&ledger, "a").await, "u2 u3 u2");
}

async fn with_the_last_parked_update_the_record_is_no_longer_parked(world: World) {
    let ledger = world.open().await;
    for number in 1..=3 {
        write(&ledger, park("a", &format!("u{number}"), "")).await;
    }
    assert_eq!(ledger.release(&Selection::All, &ada()).await.unwrap().records, 1);
    let released = ledger.released(None, 10).await.unwrap();
    assert_eq!(released.len(), 1);
    assert_eq!(released[0].record_key, key("a"));

    write(&ledger, applied_with("a", "u1", "", None, None, head(&ledger, "a").await)).await;
    assert_eq!(parked(&ledger, "a").await, "u2 u3");
    write(&ledger, park_behind("a", "u4", "")).await; // newer ones queue behind those that go out
    let seq = head(&ledger, "a").await;
    write(&ledger, resolved("a", "u2", "", ResolvedAs::DeadLettered, seq)).await;
    write(&ledger, applied_with("a", "u3", "", None, None, head(&ledger, "a").await)).await;
    assert!(lookup(&ledger, "a", "u9", "").await.parked);
    write(&ledger, applied_with("a", "u4", "", None, None, head(&ledger, "a").await)).await;

    assert!(!lookup(&ledger, "a", "u9", "").await.parked);
    assert_eq!(ledger.released(None, 10).await.unwrap(), []);
    assert_eq!(ledger.parked_record(&key("a")).await.unwrap(), None);
    assert_eq!(ledger.record(park_behind("a", "u5", "")).await.unwrap(), Recorded::NotParked);
}

async fn a_released_head_that_fails_parks_its_record_again(world: World) {
    let ledger = world.open().await;
    write(&ledger, park("a", "u1", "")).await;
    write(&ledger, park_behind("a", "u2", "")).await;
    ledger.release(&Selection::Keys(vec![key("a")]), &ada()).await.unwrap();
    let reason = StoredParkReason {
        kind: ParkKind::Conflict,
        status: Some(409),
        detail: "in use".into(),
        attempts: 7,
    };
    let seq = head(&ledger, "a").await.unwrap();
    write(&ledger, entry("a", EntryKind::Repark { seq, reason: reason.clone() })).await;

    let record = ledger.parked_record(&key("a")).await.unwrap().unwrap();
    assert_eq!((record.state, record.updates, record.reason), (ParkedState::Parked, 2, reason));
    assert_eq!(parked(&ledger, "a").await, "u1 u2");
    assert_eq!(ledger.released(None, 10).await.unwrap(), []);
}

async fn parked_updates_are_bounded_over_all_records(world: World) {
    let ledger = world.open_with(|settings| settings.parked_max = 3).await.unwrap();
    write(&ledger, park("a", "u1", "")).await;
    write(&ledger, park("b", "u2", "")).await;
    write(&ledger, park_behind("a", "u3", "")).await;
    assert_eq!(ledger.record(park_behind("a", "u4", "")).await.unwrap(), Recorded::Full);
    assert_eq!(ledger.record(park("c", "u5", "")).await.unwrap(), Recorded::Full);
    assert!(!lookup(&ledger, "c", "u5", "").await.parked, "nothing of it is written");
    write(&ledger, park("a", "u1", "")).await; // is there already
    write(&ledger, applied_with("b", "u2", "", None, None, head(&ledger, "b").await)).await;
    write(&ledger, park_behind("a", "u4", "")).await;
    assert_eq!(parked(&ledger, "a").await, "u1 u3 u4");
}

async fn a_higher_tenure_fences_the_older_ones_of_its_partition(world: World) {
    let old = Arc::new(world.open().await);
    let new = world.open().await;
    write(&old, by(5, applied("a", "u1", ""))).await;
    let (layout, partition) = (LayoutNumber(1), PartitionNumber(0));
    assert_eq!(new.claim(layout, partition, TenureNumber(8)).await.unwrap(), Recorded::Done);
    assert_eq!(old.claim(layout, partition, TenureNumber(5)).await.unwrap(), Recorded::Fenced);

    // In one commit: one is refused, the others are written.
    let late = by(5, applied("a", "u2", ""));
    let elsewhere = Entry { partition: PartitionNumber(1), ..by(5, applied("b", "u3", "")) };
    let other_layout = Entry { layout: LayoutNumber(2), ..by(5, applied("c", "u4", "")) };
    let without = applied("d", "u5", "");
    let (late, elsewhere, other_layout, without) =
        tokio::join!(old.record(late), old.record(elsewhere), old.record(other_layout), old.record(without));
    assert_eq!(late.unwrap(), Recorded::Fenced);
    for written in [elsewhere, other_layout, without] {
        assert_eq!(written.unwrap(), Recorded::Done);
    }
    assert_eq!(lookup(&new, "a", "u2", "").await.id_status, IdStatus::Unknown);
    assert_eq!(old.record(by(5, park("a", "u6", ""))).await.unwrap(), Recorded::Fenced);
    assert!(!lookup(&new, "a", "u6", "").await.parked);
    write(&new, by(8, applied("a", "u2", ""))).await;
    write(&new, by(9, applied("a", "u7", ""))).await;
    assert_eq!(new.record(by(8, applied("a", "u8", ""))).await.unwrap(), Recorded::Fenced);
}

async fn entries_that_come_together_share_a_commit(world: World) {
    let ledger = Arc::new(world.open().await);
    let writing: Vec<_> = (0..400)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            let entry = by(1, applied(&format!("r{number}"), &format!("u{number}"), "body"));
            tokio::spawn(async move { ledger.record(entry).await })
        })
        .collect();
    for task in writing {
        assert_eq!(task.await.unwrap().unwrap(), Recorded::Done);
    }
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.entries, stats.resolved_updates), (400, 400));
    assert_eq!(world.count("SELECT count(*) FROM ledger_record").await, 400);
    assert!(stats.commits <= 20, "{} commits for 400 entries", stats.commits);
    assert!(stats.bytes > 0);
}

async fn questions_that_come_together_are_answered_each_with_its_own(world: World) {
    let ledger = Arc::new(world.open().await);
    for number in 0..20 {
        let record = format!("r{number}");
        let id = format!("u{number}");
        write(&ledger, applied_with(&record, &id, "", Some(number), None, None)).await;
    }
    let asking: Vec<_> = (0..40)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            let question = query(&format!("r{number}"), &format!("u{number}"), "");
            tokio::spawn(async move { (number, ledger.lookup(question).await.unwrap()) })
        })
        .collect();
    for task in asking {
        let (number, lookup_result) = task.await.unwrap();
        let known = number < 20;
        assert_eq!(lookup_result.version, known.then_some(number));
        assert_eq!(lookup_result.id_status, if known { IdStatus::Resolved } else { IdStatus::Unknown });
    }
}

async fn old_ids_are_forgotten_in_chunks(world: World) {
    let ledger = Arc::new(world.open().await);
    let writing: Vec<_> = (0..1500)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.record(applied("a", &format!("u{number}"), "")).await })
        })
        .collect();
    for task in writing {
        task.await.unwrap().unwrap();
    }
    assert_eq!(ledger.prune().await.unwrap(), 0, "none is old enough");
    world.execute("UPDATE ledger_resolved_update SET at_ms = at_ms - 4000000").await;
    write(&ledger, applied("a", "young", "")).await;
    assert_eq!(ledger.prune().await.unwrap(), 1000);
    assert_eq!(ledger.prune().await.unwrap(), 500);
    assert_eq!(ledger.prune().await.unwrap(), 0);
    assert_eq!(lookup(&ledger, "a", "u7", "").await.id_status, IdStatus::Unknown);
    assert_eq!(lookup(&ledger, "a", "young", "").await.id_status, IdStatus::Resolved);
}

/// Of a clock that was ahead when ids were written: they stand before all others, and there are more than one look sees.
async fn ids_of_a_clock_that_was_ahead_do_not_stop_pruning(world: World) {
    let ledger = Arc::new(world.open().await);
    for round in 0..3 {
        let ids: Vec<_> = (0..1000).map(|number| format!("{round}-{number}")).collect();
        futures_util::future::join_all(ids.iter().map(|id| write(&ledger, applied("a", id, "")))).await;
    }
    world
        .execute(
            "UPDATE ledger_resolved_update SET at_ms = at_ms + 1000000000000
                 WHERE seq <= (SELECT min(seq) FROM ledger_resolved_update) + 2499;
             UPDATE ledger_resolved_update SET at_ms = at_ms - 4000000 WHERE at_ms < 1000000000000 * 2.5",
        )
        .await;
    assert_eq!(ledger.prune().await.unwrap(), 500, "those that are old");
    assert_eq!(ledger.prune().await.unwrap(), 0);
    assert_eq!(ledger.stats().await.unwrap().resolved_updates, 2500);
}

/// As after a jump of the clock: every id is older than the retention at once.
async fn a_clock_that_is_ahead_does_not_make_all_ids_forgotten(world: World) {
    let ledger = world.open().await;
    for number in 0..100 {
        write(&ledger, applied("a", &format!("u{number}"), "")).await;
    }
    world
        .execute(
            "UPDATE ledger_resolved_update SET at_ms = at_ms - 400000000000
                 + 3600000 * (seq - (SELECT min(seq) FROM ledger_resolved_update))",
        )
        .await;
    let mut pruned = 0;
    for _ in 0..20 {
        pruned += ledger.prune().await.unwrap();
    }
    assert!(pruned <= 1, "of some hours of ids, not one hour has passed: {pruned}");
}

async fn everything_is_there_after_opening_again(world: World) {
    let first = world.open().await;
    write(&first, by(3, applied_with("a", "u1", "", Some(1), Some("\"e\""), None))).await;
    write(&first, park("b", "u2", "")).await;
    let identity = first.identity();
    drop(first);
    let second = world.open().await;
    assert_eq!(second.identity(), identity);
    let lookup_result = lookup(&second, "a", "u1", "").await;
    assert_eq!((lookup_result.id_status, lookup_result.etag.as_deref()), (IdStatus::Resolved, Some("\"e\"")));
    assert_eq!(parked(&second, "b").await, "u2");
    assert_eq!(second.record(by(2, applied("a", "u3", ""))).await.unwrap(), Recorded::Fenced);
}

async fn a_ledger_of_a_later_version_is_refused(world: World) {
    drop(world.open().await);
    world.execute("UPDATE ledger_schema SET version = 99").await;
    let error = world.open_with(|_| {}).await.expect_err("it is too new");
    assert!(matches!(error, LedgerError::SchemaNewer { found: 99, .. }), "{error:?}");
}

async fn it_names_its_exchange_and_the_marks_of_the_last_starts(world: World) {
    let ledger = world.open().await;
    assert_eq!(ledger.binding().await.unwrap(), LedgerBinding::default());
    let place = |exchange: &str| TopologyPlace {
        cluster: None,
        vhost: "/".to_owned(),
        exchange: exchange.to_owned(),
    };
    let topology = BoundTopology { identity: Uuid::from_u128(7), place: place("updates") };
    let mark = |number: u32| Uuid::from_u128(number.into());
    for number in 0..MARKS_MAX + 10 {
        // The document is written behind: its mark stays, however many starts fail in between.
        let before = (number > 0).then_some(topology.identity);
        assert!(ledger.bind(before, &topology, mark(number), Some(mark(3))).await.unwrap());
    }
    write(&ledger, by(9, applied("a", "u1", ""))).await;
    drop(ledger);
    let ledger = world.open().await;
    let binding = ledger.binding().await.unwrap();
    assert_eq!(binding.topology, Some(topology));
    let binding = LedgerBinding { used_ago: None, ..binding };
    let expected: Vec<Uuid> = std::iter::once(3).chain(10..MARKS_MAX + 10).map(mark).collect();
    assert_eq!(binding.marks, expected);
    assert_eq!(binding.highest, Some(TenureNumber(9)));
    let cluster = Some("rabbit@a".to_owned());
    let other = BoundTopology { identity: mark(8), place: TopologyPlace { cluster, ..place("b") } };
    assert!(!ledger.bind(None, &other, mark(99), None).await.unwrap(), "another was faster");
    assert_eq!(ledger.binding().await.unwrap().topology, binding.topology);
    assert!(ledger.bind(Some(Uuid::from_u128(7)), &other, mark(99), None).await.unwrap());
    ledger.set_used(Uuid::from_u128(7), false).await.unwrap();
    let binding = ledger.binding().await.unwrap();
    assert_eq!(binding.topology, Some(other));
    assert!(binding.used_ago.is_some_and(|ago| ago < Duration::from_secs(60)), "{binding:?}");
    ledger.set_used(mark(8), false).await.unwrap();
    assert_eq!(ledger.binding().await.unwrap().used_ago, None);
}

async fn any_text_can_be_kept(world: World) {
    let ledger = world.open().await;
    for record in ["nul \0 in it", "schön 客户 🦀", "'; DROP TABLE ledger_record; --", &"k".repeat(255)]
    {
        let mut update = stored(record, "u1", "\0\u{1}");
        update.update_type = Some("a\0b".into());
        let what =
            EntryKind::Park { update: update.clone(), reason: rejected("not \0 good"), only_behind: false };
        write(&ledger, entry(record, what)).await;
        let found = ledger.parked_updates(&key(record), None, 10).await.unwrap();
        assert_eq!(found[0].update, update);
        assert_eq!(found[0].reason.detail, "not \u{fffd} good");
        write(&ledger, applied_with(record, "u1", "", Some(1), None, Some(found[0].seq))).await;
        assert_eq!(lookup(&ledger, record, "u2", "").await.version, Some(1));
    }
}

async fn a_parked_update_comes_back_as_it_was(world: World) {
    let ledger = world.open().await;
    let mut update = stored("a", "u1", "{\"price\": 1.10}");
    update.content_type = Some("application/vnd.crm+json".into());
    update.content_encoding = Some("identity".into());
    update.if_match = Some("\"v1\"".into());
    update.version = Some(i64::MAX);
    update.headers = vec![("traceparent".into(), "00-1".into()), ("ce-source".into(), "/%C3%A4".into())];
    write(
        &ledger,
        entry("a", EntryKind::Park { update: update.clone(), reason: rejected(""), only_behind: false }),
    )
    .await;
    let mut made = stored("b", "m1", "\u{1}");
    made.id = UpdateId::made("m1");
    made.published_at = None;
    write(
        &ledger,
        entry("b", EntryKind::Park { update: made.clone(), reason: rejected(""), only_behind: false }),
    )
    .await;

    let found = ledger.parked_updates(&key("a"), None, 10).await.unwrap();
    assert_eq!(found[0].update, update);
    assert_eq!(ledger.parked_updates(&key("b"), None, 10).await.unwrap()[0].update, made);
}
