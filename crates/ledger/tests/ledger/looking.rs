//! What every ledger tells people: searches, what became of an id, what a record is, who changed what.

use std::sync::Arc;

use lanekeeper_ledger::{
    AnyLedger, CHANGES_MAX, Change, ChangeFilter, ChangeKind, ChangeSubject, Discarded, EntryKind, IdEnd,
    LOOKED_AT_MAX, Ledger, LedgerPlace, Operations, OperatorReason, ParkKind, ParkedFilter, ParkedState,
    Released, ResolvedAs, Selection, StoredParkReason, WHY_CHARS_MAX,
};

use crate::world::{
    World, ada, applied, applied_with, entry, head, key, on_both, park, park_behind, rejected, resolved,
    stored, write,
};

on_both!(
    parked_records_are_found_by_key_reason_state_time_and_type_newest_first,
    a_search_by_type_looks_at_a_bounded_number_of_records_and_goes_on,
    found_records_are_released_in_batches_as_one_change_each,
    each_change_is_kept_with_who_when_why_and_how_much,
    the_newest_changes_are_kept,
    it_says_what_became_of_an_update_id,
    it_says_what_is_known_of_a_record,
);

/// Parks an update of this type for this reason, at this time.
async fn park_at(world: &World, ledger: &AnyLedger, record: &str, kind: ParkKind, update_type: &str) {
    let mut update = stored(record, &format!("u-{record}"), "");
    update.update_type = Some(update_type.to_owned());
    let reason = StoredParkReason { kind, ..rejected("") };
    write(ledger, entry(record, EntryKind::Park { update, reason, only_behind: false })).await;
    // One second after the other, so that the order is that of parking.
    world.execute("UPDATE ledger_parked_record SET since_ms = since_ms - 1000").await;
}

/// The keys of all that a search finds, read in pages of this size.
async fn find(ledger: &AnyLedger, filter: &ParkedFilter, page: u32) -> String {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let found = ledger.find_parked(filter, after.as_ref(), page).await.unwrap();
        assert!(found.records.len() <= page as usize);
        keys.extend(found.records.iter().map(|record| record.record_key.as_str().to_owned()));
        match found.next {
            Some(next) => after = Some(next),
            None => return keys.join(" "),
        }
    }
}

async fn parked_records_are_found_by_key_reason_state_time_and_type_newest_first(world: World) {
    let ledger = world.open().await;
    for (record, kind, update_type) in [
        ("customer-17", ParkKind::Rejected, "customer.updated"),
        ("order-17", ParkKind::Exhausted, "order.created"),
        ("order%_\\", ParkKind::Rejected, "order.created"),
        ("客户", ParkKind::Conflict, "customer.deleted"),
    ] {
        park_at(&world, &ledger, record, kind, update_type).await;
    }
    let all = ParkedFilter::default;
    let contains = |text: &str| ParkedFilter { key_contains: Some(text.to_owned()), ..all() };
    let of_orders: fn(Option<&str>) -> bool = |name| name.is_some_and(|name| name.starts_with("order."));
    let check = async |filter: ParkedFilter, expected: &str| {
        for page in [1, 2, 50] {
            assert_eq!(find(&ledger, &filter, page).await, expected, "{filter:?}, pages of {page}");
        }
    };
    check(all(), "客户 order%_\\ order-17 customer-17").await;
    check(contains("17"), "order-17 customer-17").await;
    check(contains("order"), "order%_\\ order-17").await;
    check(contains("%_\\"), "order%_\\").await;
    check(contains("户"), "客户").await;
    check(contains(""), "客户 order%_\\ order-17 customer-17").await;
    check(contains("nobody"), "").await;
    check(ParkedFilter { reason: Some(ParkKind::Rejected), ..all() }, "order%_\\ customer-17").await;
    check(ParkedFilter { takes: Some(Arc::new(of_orders)), ..all() }, "order%_\\ order-17").await;
    check(ParkedFilter { takes: Some(Arc::new(of_orders)), ..contains("17") }, "order-17").await;

    ledger.release(&Selection::Keys(vec![key("order-17")]), &ada()).await.unwrap();
    check(ParkedFilter { state: Some(ParkedState::Releasing), ..all() }, "order-17").await;
    let second = ledger.parked_record(&key("order%_\\")).await.unwrap().unwrap();
    assert_eq!(second.head_type.as_deref(), Some("order.created"));
    let from = ParkedFilter { from_ms: Some(second.since_ms), ..all() };
    check(from, "客户 order%_\\").await;
    let before = ParkedFilter { before_ms: Some(second.since_ms), ..all() };
    check(before, "order-17 customer-17").await;
}

async fn a_search_by_type_looks_at_a_bounded_number_of_records_and_goes_on(world: World) {
    let ledger = world.open().await;
    park_at(&world, &ledger, "wanted", ParkKind::Rejected, "order.created").await;
    park_at(&world, &ledger, "other", ParkKind::Rejected, "customer.updated").await;
    let copies = match &world.place {
        LedgerPlace::Sqlite(_) => [
            "INSERT INTO ledger_parked_record
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             SELECT CAST('r' || i AS BLOB), state, since_ms + i, layout, partition, reason, status, detail, attempts
             FROM ledger_parked_record, n WHERE record_key = CAST('other' AS BLOB)",
            "INSERT INTO ledger_parked_update (record_key, update_id, id_published, fingerprint, reason, detail,
                 attempts, layout, partition, parked_ms, envelope, body)
             SELECT r.record_key, update_id, id_published, fingerprint, u.reason, u.detail,
                 u.attempts, u.layout, u.partition, parked_ms, envelope, body
             FROM ledger_parked_update u, ledger_parked_record r
             WHERE u.record_key = CAST('other' AS BLOB) AND r.record_key > CAST('q' AS BLOB) AND r.record_key < CAST('s' AS BLOB)",
        ],
        LedgerPlace::Postgres(_) => [
            "INSERT INTO ledger_parked_record
             SELECT convert_to('r' || i, 'UTF8'), state, since_ms + i, layout, partition, reason, status, detail, attempts
             FROM ledger_parked_record, generate_series(1, 5000) AS n(i) WHERE record_key = 'other'",
            "INSERT INTO ledger_parked_update (record_key, update_id, id_published, fingerprint, reason, detail,
                 attempts, layout, partition, parked_ms, envelope, body)
             SELECT r.record_key, update_id, id_published, fingerprint, u.reason, u.detail,
                 u.attempts, u.layout, u.partition, parked_ms, envelope, body
             FROM ledger_parked_update u, ledger_parked_record r
             WHERE u.record_key = 'other' AND r.record_key > 'q' AND r.record_key < 's'",
        ],
    };
    for statement in copies {
        world.execute(statement).await;
    }
    let of_orders: fn(Option<&str>) -> bool = |name| name == Some("order.created");
    let filter = ParkedFilter { takes: Some(Arc::new(of_orders)), ..ParkedFilter::default() };
    let first = ledger.find_parked(&filter, None, 10).await.unwrap();
    assert_eq!(first.records, []);
    let (next, looked_at) = (first.next.expect("there are more"), LOOKED_AT_MAX);
    let left = ledger.find_parked(&ParkedFilter::default(), Some(&next), 10).await.unwrap();
    assert_eq!(left.records.len(), 2, "one call looks at {looked_at}");
    let second = ledger.find_parked(&filter, Some(&next), 10).await.unwrap();
    assert_eq!((second.records[0].record_key.as_str(), second.next), ("wanted", None));
}

async fn found_records_are_released_in_batches_as_one_change_each(world: World) {
    let ledger = world.open().await;
    for record in ["a", "b", "c"] {
        park_at(&world, &ledger, record, ParkKind::Exhausted, "customer.updated").await;
    }
    write(&ledger, park_behind("b", "u-4", "")).await;
    let release = async |records: &[&str]| {
        let record_keys = records.iter().map(|record| key(record)).collect();
        let selection = Selection::Found { record_keys, filter: "reason exhausted".to_owned() };
        ledger.release(&selection, &ada()).await.unwrap()
    };
    assert_eq!(release(&["c", "b"]).await, Released { records: 2, updates: 3, paused: 0 });
    assert_eq!(release(&["c"]).await, Released::default(), "it is on its way already");
    assert_eq!(release(&["nobody", "a"]).await, Released { records: 1, updates: 1, paused: 0 });
    assert_eq!(
        said(&changes(&ledger, None).await),
        ["release reason exhausted: 1 1", "release reason exhausted: 2 3"]
    );
}

async fn changes(ledger: &AnyLedger, record: Option<&str>) -> Vec<Change> {
    let filter = ChangeFilter { record_key: record.map(key) };
    ledger.changes(&filter, None, 100).await.unwrap()
}

/// Kind, subject, records and updates of each.
fn said(changes: &[Change]) -> Vec<String> {
    let said = |change: &Change| {
        let subject = match &change.subject {
            ChangeSubject::Record(record_key) => record_key.as_str(),
            ChangeSubject::Named(words) => words,
        };
        format!("{} {subject}: {} {}", change.kind.name(), change.records, change.updates)
    };
    changes.iter().map(said).collect()
}

async fn each_change_is_kept_with_who_when_why_and_how_much(world: World) {
    let ledger = world.open().await;
    for record in ["a", "b", "c"] {
        write(&ledger, park(record, &format!("u-{record}"), "")).await;
    }
    write(&ledger, park_behind("a", "u-4", "")).await;
    write(&ledger, applied_with("d", "u-d", "", Some(7), None, None)).await;
    assert_eq!(changes(&ledger, None).await, []);

    let long = OperatorReason { who: "gr\0ace".into(), why: "é".repeat(WHY_CHARS_MAX + 1) };
    let discarded = ledger.discard(&key("a"), Some(1), &long).await.unwrap();
    assert_eq!(discarded, Discarded::Done { updates: 1, left: 1 });
    ledger.release(&Selection::Keys(vec![key("b"), key("a"), key("nobody")]), &ada()).await.unwrap();
    ledger.release(&Selection::Reason(ParkKind::Conflict), &ada()).await.unwrap();
    ledger.release(&Selection::Reason(ParkKind::Rejected), &ada()).await.unwrap();
    ledger.release(&Selection::All, &ada()).await.unwrap();
    ledger.forget_version(&key("d"), &ada()).await.unwrap();
    ledger.forget_version(&key("d"), &ada()).await.unwrap();
    ledger.discard(&key("a"), None, &ada()).await.unwrap();
    let all = changes(&ledger, None).await;
    assert_eq!(
        said(&all),
        [
            "forget_version d: 1 0",
            "release records parked for rejected: 1 1",
            "release b: 1 1",
            "release a: 1 1",
            "discard a: 1 1",
        ],
        "what changed nothing is not kept"
    );
    assert!(all.iter().all(|change| change.at_ms > 1_700_000_000_000));
    assert_eq!(all[0].operator_reason, ada());
    let cut = &all[4].operator_reason;
    assert_eq!((cut.who.as_str(), cut.why.chars().count()), ("gr\u{fffd}ace", WHY_CHARS_MAX));

    assert_eq!(said(&changes(&ledger, Some("a")).await), ["release a: 1 1", "discard a: 1 1"]);
    assert_eq!(changes(&ledger, Some("nobody")).await, []);
    let filter = ChangeFilter::default();
    let page = ledger.changes(&filter, Some(all[1].seq), 2).await.unwrap();
    assert_eq!(page, all[2..4]);

    // Of a later version of the program.
    world.execute("UPDATE ledger_change SET kind = 'bless' WHERE kind = 'forget_version'").await;
    assert_eq!(changes(&ledger, None).await[0].kind, ChangeKind::Other("bless".to_owned()));
}

async fn the_newest_changes_are_kept(world: World) {
    let ledger = world.open().await;
    write(&ledger, park("a", "u1", "")).await;
    ledger.discard(&key("a"), None, &ada()).await.unwrap();
    world
        .execute(
            "INSERT INTO ledger_change (at_ms, who, why, kind, records, updates)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 101500)
             SELECT i, 'ada', '', 'release', 1, 1 FROM n",
        )
        .await;
    let mut pruned = 0;
    while let more @ 1.. = ledger.prune().await.unwrap() {
        assert!(more <= 1000, "one call deletes {more}");
        pruned += more;
    }
    assert_eq!(pruned, 1501);
    let left = world.count("SELECT count(*) FROM ledger_change").await;
    assert_eq!(left, i64::from(CHANGES_MAX));
    assert_eq!(changes(&ledger, Some("a")).await, [], "it was the oldest");
    assert_eq!(changes(&ledger, None).await[0].at_ms, 101_500);
}

async fn it_says_what_became_of_an_update_id(world: World) {
    let ledger = world.open().await;
    for record in ["a", "b"] {
        write(&ledger, applied(record, "1", "")).await;
    }
    write(&ledger, resolved("c", "1", "", ResolvedAs::Superseded, None)).await;
    for record in ["d", "e", "f"] {
        write(&ledger, park(record, "1", "")).await;
    }
    write(&ledger, park("g", "2", "")).await;
    ledger.discard(&key("e"), None, &ada()).await.unwrap();
    ledger.release(&Selection::Keys(vec![key("f")]), &ada()).await.unwrap();

    let ends = async |id, record: Option<&str>, limit| {
        let found = ledger.lookup_id(id, record.map(key).as_ref(), limit).await.unwrap();
        let ends: Vec<String> = found
            .updates
            .iter()
            .map(|found| {
                let end = match &found.end {
                    IdEnd::Applied { at_ms, status: Some(200) } if *at_ms > 0 => "applied".to_owned(),
                    IdEnd::Resolved { resolution, at_ms } if *at_ms > 0 => resolution.name().to_owned(),
                    IdEnd::Parked { parked_ms, reason, state } if *parked_ms > 0 => {
                        assert_eq!(*reason, rejected("no such country"));
                        state.name().to_owned()
                    }
                    IdEnd::Discarded { at_ms, operator_reason, parked_ms, reason } => {
                        assert!(at_ms >= parked_ms && *parked_ms > 0);
                        assert_eq!((operator_reason, reason.status), (&ada(), Some(422)));
                        "discarded".to_owned()
                    }
                    other => format!("{other:?}"),
                };
                format!("{} {end}", found.record_key.as_str())
            })
            .collect();
        (ends.join(", "), found.is_all)
    };
    let all = "a applied, b applied, c superseded, d parked, e discarded, f releasing";
    assert_eq!(ends("1", None, 6).await, (all.to_owned(), true));
    assert_eq!(ends("1", None, 2).await, ("a applied, b applied".to_owned(), false));
    for (record, expected) in [("b", "b applied"), ("d", "d parked"), ("e", "e discarded"), ("g", "")] {
        assert_eq!(ends("1", Some(record), 1).await, (expected.to_owned(), true), "{record}");
    }
    assert_eq!(ends("nobody's", None, 10).await, (String::new(), true));
}

async fn it_says_what_is_known_of_a_record(world: World) {
    let ledger = world.open().await;
    let state = async |record| ledger.record_state(&key(record)).await.unwrap();
    let unknown = state("a").await;
    assert_eq!(
        (unknown.version, unknown.etag, unknown.last_applied, unknown.parked),
        (None, None, None, None)
    );
    write(&ledger, applied_with("a", "u1", "", Some(4), Some("\"e\""), None)).await;
    write(&ledger, park("a", "u2", "")).await;
    write(&ledger, park_behind("a", "u3", "")).await;
    let known = state("a").await;
    assert_eq!((known.version, known.etag.as_deref()), (Some(4), Some("\"e\"")));
    let last = known.last_applied.unwrap();
    assert!(last.update_id == "u1" && last.at_ms > 1_700_000_000_000, "{last:?}");
    let parked = known.parked.unwrap();
    assert_eq!((parked.head_id.as_str(), parked.updates, parked.state), ("u2", 2, ParkedState::Parked));
    write(&ledger, applied_with("a", "u2", "", Some(5), None, head(&ledger, "a").await)).await;
    assert_eq!(state("a").await.last_applied.unwrap().update_id, "u2");
}
