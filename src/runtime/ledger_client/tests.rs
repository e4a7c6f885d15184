use super::*;
use lanekeeper_core::message::DeliveryTag;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::UpdateId;
use lanekeeper_ledger::AnyLedger;

fn size_of_output<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

/// Both futures are allocated, moved and freed for every update.
#[test]
fn what_is_asked_and_written_for_an_update_is_small() {
    type Written = (LedgerClient<AnyLedger>, Option<TenureNumber>, Arc<Update>, Holder, Resolution);
    let asked = size_of_output(
        |(ledger_client, update, holder): (&'static LedgerClient<AnyLedger>, &'static Update, Holder)| {
            ledger_client.lookup(update, holder)
        },
    );
    let written = size_of_output(|(ledger_client, tenure, update, holder, resolution): Written| {
        ledger_client.write(tenure, update, holder, resolution, Default::default())
    });
    assert!(asked.max(written) <= 2048, "{asked} and {written} bytes");
}

fn check(
    id_status: IdStatus,
    parked: bool,
    versions: (Option<i64>, Option<i64>),
    holder: Holder,
    expected: Option<Known>,
) {
    let (last, own) = versions;
    let lookup_result = LookupResult { id_status, parked, paused: false, version: last, etag: None };
    let update = Update {
        record_key: RecordKey::new("k").unwrap(),
        id: UpdateId::published("u"),
        target: TargetId(0),
        update_type: None,
        version: own,
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: bytes::Bytes::new(),
    };
    assert_eq!(known(&lookup_result, &update, holder), expected, "{lookup_result:?} {own:?} {holder:?}");
}

#[test]
fn what_the_ledger_knows_decides_whether_an_update_is_sent() {
    let (broker, ledger) = (Holder::Broker(DeliveryTag(1)), Holder::Ledger(ParkedSeq(1)));
    let none = (None, None);
    check(IdStatus::Unknown, false, none, broker, None);
    check(IdStatus::Resolved, true, none, broker, Some(Known::Resolved));
    check(IdStatus::Reused, false, none, broker, Some(Known::IdReused));
    check(IdStatus::Unknown, true, none, broker, Some(Known::RecordParked));
    check(IdStatus::Unknown, true, none, ledger, None);
    check(IdStatus::Unknown, false, (Some(7), Some(7)), broker, Some(Known::Superseded));
    check(IdStatus::Unknown, false, (Some(7), Some(8)), broker, None);
    check(IdStatus::Unknown, false, (Some(7), None), broker, None);
    check(IdStatus::Unknown, false, (None, Some(1)), broker, None);
    check(IdStatus::Unknown, true, (Some(7), Some(7)), ledger, Some(Known::Superseded));
}

#[test]
fn a_version_far_above_the_one_before_is_a_jump_and_counters_and_times_are_none() {
    let check = |stored: Option<i64>, version, expected| {
        assert_eq!(is_jump(stored, version), expected, "{stored:?} {version}");
    };
    check(Some(7), 8, false);
    check(Some(7), 1_000_000, false);
    check(Some(7), 2_000_000, true);
    check(Some(1_767_225_600_000), 1_798_761_600_000, false);
    check(Some(1_767_225_600), 1_767_225_600_000, true);
    check(Some(i64::MAX), i64::MAX, false);
    check(Some(i64::MIN), i64::MAX, true);
    check(None, 1_767_225_600_000_000_000, false);
    check(None, i64::MAX, true);
    check(Some(0), i64::MIN, false);
}
