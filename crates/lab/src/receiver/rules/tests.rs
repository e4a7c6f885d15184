use super::*;

fn row() -> Row {
    Row { version: 3, record_version: Some(10), tenure: 5, ..Row::default() }
}

fn ends(change: &Change, key: KeySeen) -> Option<WriteOutcome> {
    check(&row(), key, change, Safeguards::ALL, false)
}

#[test]
fn an_older_tenure_is_refused_before_anything_else_is_looked_at() {
    let of_tenure = |tenure| Change { tenure, ..Change::default() };
    assert_eq!(ends(&of_tenure(Some(4)), KeySeen::Applied { version: 2 }), Some(WriteOutcome::OlderTenure));
    assert_eq!(ends(&of_tenure(Some(5)), KeySeen::Never), None);
    assert_eq!(ends(&of_tenure(Some(6)), KeySeen::Never), None);
    assert_eq!(ends(&of_tenure(None), KeySeen::Never), None, "an owner without a number is not older");
    let safeguards = Safeguards::ALL.without(Safeguard::Fencing);
    assert_eq!(check(&row(), KeySeen::Never, &of_tenure(Some(4)), safeguards, false), None);
}

#[test]
fn what_was_applied_is_answered_as_then_whatever_its_conditions_say_now() {
    let stale = Change { if_match: Some("\"1\"".into()), record_version: Some(9), ..Change::default() };
    assert_eq!(
        ends(&stale, KeySeen::Applied { version: 2 }),
        Some(WriteOutcome::Replayed { version: 2 }),
        "its condition held when it was applied"
    );
    assert_eq!(ends(&stale, KeySeen::WithOtherBody), Some(WriteOutcome::KeyReused));
}

#[test]
fn a_record_version_at_or_below_the_last_is_superseded() {
    let of = |record_version| Change {
        record_version,
        if_match: Some("\"1\"".into()), // it does not matter any more whether that holds
        ..Change::default()
    };
    let superseded = Some(WriteOutcome::Superseded { version: 3 });
    assert_eq!(ends(&of(Some(9)), KeySeen::Never), superseded);
    assert_eq!(ends(&of(Some(10)), KeySeen::Never), superseded);
    assert_eq!(ends(&of(Some(11)), KeySeen::Never), Some(WriteOutcome::PreconditionFailed { version: 3 }));
    let plain = Change { record_version: Some(i64::MIN), ..Change::default() };
    assert_eq!(check(&Row::default(), KeySeen::Never, &plain, Safeguards::ALL, false), None);
}

#[test]
fn conditions_guard_the_version() {
    let check_at = |version, if_match: Option<&str>, if_none_match: Option<&str>| {
        let change = Change {
            if_match: if_match.map(str::to_owned),
            if_none_match: if_none_match.map(str::to_owned),
            ..Change::default()
        };
        let row = Row { version, ..Row::default() };
        check(&row, KeySeen::Never, &change, Safeguards::ALL, true)
    };
    let failed = |version| Some(WriteOutcome::PreconditionFailed { version });
    assert_eq!(check_at(0, None, None), Some(WriteOutcome::PreconditionRequired { version: 0 }));
    assert_eq!(check_at(0, Some("*"), None), failed(0));
    assert_eq!(check_at(0, Some("\"0\""), None), failed(0));
    assert_eq!(check_at(0, None, Some("*")), None);
    assert_eq!(check_at(1, None, Some("*")), failed(1));
    assert_eq!(check_at(1, None, Some("\"1\"")), failed(1));
    assert_eq!(check_at(1, None, Some("\"2\"")), None);
    assert_eq!(check_at(1, Some("\"1\""), None), None);
    assert_eq!(check_at(2, Some("\"1\""), None), failed(2));
    assert_eq!(check_at(2, Some("\"7\", \"2\""), None), None);
    assert_eq!(check_at(3, Some("W/\"3\""), None), failed(3));
    assert_eq!(check_at(3, Some("*"), None), None);
}

#[test]
fn without_versions_conditions_are_not_looked_at() {
    let change = Change { if_match: Some("\"1\"".into()), record_version: Some(1), ..Change::default() };
    let safeguards = Safeguards::ALL.without(Safeguard::Versions);
    assert_eq!(check(&row(), KeySeen::Never, &change, safeguards, true), None);
}

#[test]
fn a_change_raises_what_only_grows() {
    let mut row = row();
    let change = |record_version, tenure, body: &'static str| Change {
        record_version,
        tenure,
        content_type: Some("text/plain".into()),
        body: Bytes::from_static(body.as_bytes()),
        ..Change::default()
    };
    row.apply(&change(Some(12), Some(9), "x"));
    assert_eq!((row.version, row.record_version, row.tenure), (4, Some(12), 9));
    row.apply(&change(Some(7), None, "y"));
    assert_eq!((row.version, row.record_version, row.tenure), (5, Some(12), 9));
    assert_eq!((row.body.as_slice(), row.content_type.as_deref()), (&b"y"[..], Some("text/plain")));
    let long = Change { body: vec![b'x'; VALUE_BYTES_MAX + 1].into(), ..Change::default() };
    row.apply(&long);
    assert_eq!(row.body.len(), VALUE_BYTES_MAX);
}

#[test]
fn safeguards_are_named_as_on_the_command_line() {
    for (name, safeguard) in [
        ("idempotency", Safeguard::Idempotency),
        ("versions", Safeguard::Versions),
        ("row-locks", Safeguard::RowLocks),
        ("fencing", Safeguard::Fencing),
    ] {
        assert_eq!(name.parse(), Ok(safeguard));
        assert_ne!(Safeguards::ALL.without(safeguard), Safeguards::ALL);
    }
    assert!("locks".parse::<Safeguard>().is_err());
}
