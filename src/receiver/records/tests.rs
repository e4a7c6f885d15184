use super::*;

const KEY: &str = "k";

fn write(text: &str) -> Write<'_> {
    Write { update_id: Some(text), sequence: text.parse().ok(), body: text.as_bytes(), ..Write::default() }
}

/// One word per step, all of one record: `3` a whole request with sequence 3, `a` one with an id and no sequence, `3!` one
/// that fails without being applied, `3!!` one that is applied and fails, `3?` one whose sender goes away before it is
/// applied, `3??` after; `(3` a request that begins and applies, `)` one that ends.
/// Answers the counts that are not zero.
fn check(script: &str, expected: &str) {
    let mut records = Records::default();
    for word in script.split(' ') {
        let text = word.trim_matches(['(', '!', '?']);
        if word == ")" {
            records.end(KEY, End::Answered);
            continue;
        }
        records.begin(KEY, Some(KEY), None, Duration::ZERO);
        let (applies, end) = match word.trim_start_matches('(').strip_prefix(text).unwrap() {
            "" => (true, End::Answered),
            "!" => (false, End::Failed),
            "!!" => (true, End::Failed),
            "?" => (false, End::Disconnected),
            "??" => (true, End::Disconnected),
            other => panic!("{other}"),
        };
        if applies {
            records.apply(KEY, &write(text));
        }
        if !word.starts_with('(') {
            records.end(KEY, end);
        }
    }
    let (_, counts, _) = records.counts().next().unwrap();
    let named = [
        ("updates", counts.updates),
        ("duplicates", counts.duplicates),
        ("reorders", counts.reorders),
        ("gaps", counts.gaps),
        ("overlaps", counts.overlaps),
        ("outdated", counts.outdated),
        ("failed", counts.failed),
        ("disconnected", counts.disconnected),
    ];
    let told: Vec<_> =
        named.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    assert_eq!(told.join(", "), expected, "{script}");
}

#[test]
fn order_is_judged_by_sequence() {
    check("1 2 3", "updates 3");
    check("1 3 2", "updates 3, reorders 1, outdated 1");
    check("3 2 1", "updates 3, reorders 2, outdated 1");
    check("2 1 3", "updates 3, reorders 1");
    check("1 3", "updates 2, gaps 1");
    check("5", "updates 1, gaps 4");
    check("1 2 2 3", "updates 3, duplicates 1");
    check("1 2 1", "updates 2, duplicates 1, outdated 1");
    check("1 2 3 2 3", "updates 3, duplicates 2");
    check("1 3 2 2", "updates 3, duplicates 1, reorders 1, outdated 1");
}

#[test]
fn without_a_sequence_only_repetition_is_judged() {
    check("a b c", "updates 3");
    check("a b a", "updates 2, duplicates 1");
}

#[test]
fn an_update_counts_where_it_is_applied() {
    check("1! 1 2", "updates 2, failed 1");
    check("1!! 1 2", "updates 2, duplicates 1, failed 1");
    check("1? 1 2", "updates 2, disconnected 1");
    check("1?? 1 2", "updates 2, duplicates 1, disconnected 1");
    check("1! 2 1", "updates 2, reorders 1, outdated 1, failed 1");
}

#[test]
fn requests_of_a_record_that_are_in_progress_together_overlap() {
    check("(1 ) (2 )", "updates 2");
    check("(1 2 )", "updates 2, overlaps 1");
    check("(1 (2 (3 ) ) )", "updates 3, overlaps 2");
    check("(1 2! )", "updates 1, overlaps 1, failed 1");
    check("1? (2 )", "updates 1, gaps 1, disconnected 1");
}

#[test]
fn the_first_violation_is_told() {
    let mut records = Records::default();
    for text in ["1", "3", "2", "2"] {
        records.begin(KEY, None, None, Duration::ZERO);
        records.apply(KEY, &write(text));
        records.end(KEY, End::Answered);
    }
    let report = records.report(KEY).unwrap();
    assert_eq!(report.first_violation.as_deref(), Some("sequence 2 was applied after 3"));
    assert_eq!((report.highest_sequence, report.value_sequence, report.version), (3, 2, 4));
    assert_eq!(report.value, "2");
    records.begin("other", Some(KEY), None, Duration::ZERO);
    assert_eq!(records.report("other").unwrap().counts.key_mismatches, 1);
}

#[test]
fn a_honoured_id_is_applied_once() {
    let mut records = Records::default();
    let mut apply = |id, body: &'static str, if_match| {
        records.begin(KEY, None, None, Duration::ZERO);
        let write = Write {
            update_id: Some(id),
            body: body.as_bytes(),
            honour_id: true,
            if_match,
            ..Write::default()
        };
        let written = records.apply(KEY, &write);
        records.end(KEY, End::Answered);
        written
    };
    assert_eq!(apply("a", "x", None), Written::Applied { version: 1 });
    assert_eq!(apply("b", "y", None), Written::Applied { version: 2 });
    assert_eq!(apply("a", "x", Some("\"1\"")), Written::Replayed { version: 2 });
    assert_eq!(apply("a", "z", None), Written::IdReused);
    let counts = records.report(KEY).unwrap().counts;
    assert_eq!((counts.updates, counts.duplicates, counts.replayed), (2, 0, 1));
    assert_eq!(records.value(KEY).unwrap().body, b"y");
}

#[test]
fn if_match_guards_the_version() {
    let mut records = Records::default();
    let mut apply = |if_match| {
        records.begin(KEY, None, None, Duration::ZERO);
        let written = records.apply(KEY, &Write { if_match, ..Write::default() });
        records.end(KEY, End::Answered);
        written
    };
    assert_eq!(apply(Some("*")), Written::PreconditionFailed { version: 0 });
    assert_eq!(apply(Some("\"0\"")), Written::PreconditionFailed { version: 0 });
    assert_eq!(apply(None), Written::Applied { version: 1 });
    assert_eq!(apply(Some("\"1\"")), Written::Applied { version: 2 });
    assert_eq!(apply(Some("\"1\"")), Written::PreconditionFailed { version: 2 });
    assert_eq!(apply(Some("\"7\", \"2\"")), Written::Applied { version: 3 });
    assert_eq!(apply(Some("W/\"3\"")), Written::PreconditionFailed { version: 3 });
    assert_eq!(apply(Some("*")), Written::Applied { version: 4 });
}

#[test]
fn memory_per_record_is_bounded() {
    let mut records = Records::default();
    let body = vec![b'x'; VALUE_BYTES_MAX + 1];
    for n in 0..2_000_u32 {
        records.begin(KEY, None, None, Duration::ZERO);
        records.apply(KEY, &Write { update_id: Some(&n.to_string()), body: &body, ..Write::default() });
        records.end(KEY, End::Answered);
    }
    let record = &records.by_key[KEY];
    assert_eq!(record.ids.bodies.len(), IDS_MAX);
    assert_eq!(record.ids.oldest_first.len(), IDS_MAX);
    assert_eq!(record.value.len(), VALUE_BYTES_MAX);
    assert!(records.report(KEY).unwrap().value.len() <= VALUE_BYTES_SHOWN);
}

#[test]
fn a_reset_keeps_what_is_in_progress() {
    let mut records = Records::default();
    records.begin(KEY, None, None, Duration::ZERO);
    records.apply(KEY, &write("1"));
    records.begin("done", None, None, Duration::ZERO);
    records.end("done", End::Answered);
    records.reset();
    assert_eq!(
        records.counts().map(|(key, counts, open)| (key, counts.updates, open)).collect::<Vec<_>>(),
        [(KEY, 0, 1)]
    );
    records.apply(KEY, &write("1"));
    records.end(KEY, End::Answered);
    assert_eq!(records.report(KEY).unwrap().counts.updates, 1);
}
