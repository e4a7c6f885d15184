use bytes::Bytes;

use super::*;
use crate::receiver::body::BodyMembers;
use crate::receiver::latest::LATEST_MAX;

const KEY: &str = "k";
const ANSWERED: End = End::Written(WriteOutcome::Applied { version: 1 });

/// Applies an update with this id, and this sequence if it is a number.
fn apply(judge: &mut Judge, text: &str) {
    let members = BodyMembers { sequence: text.parse().ok(), add: None, sent_us: None };
    let change = Change {
        record_key: KEY.to_owned(),
        update_id: Some(text.to_owned()),
        members,
        body: Bytes::copy_from_slice(text.as_bytes()),
        ..Change::default()
    };
    let mut row = Row { version: judge.report(KEY).map_or(0, |report| report.version), ..Row::default() };
    row.apply(&change);
    judge.applied(&change, &row, || panic!("it has seen the value before"));
}

/// One word per step, all of one record: `3` a whole request with sequence 3, `a` one with an id and no sequence, `3!` one
/// that fails without being applied, `3!!` one that is applied and fails, `3?` one whose sender goes away before it is
/// applied, `3??` after; `(3` a request that begins and applies, `)` one that ends.
/// Answers the counts that are not zero.
fn check(script: &str, expected: &str) {
    let mut judge = Judge::default();
    for word in script.split(' ') {
        let text = word.trim_matches(['(', '!', '?']);
        if word == ")" {
            judge.end(KEY, ANSWERED, Duration::ZERO);
            continue;
        }
        judge.begin(KEY, Some(KEY), None, Duration::ZERO);
        let (applies, end) = match word.trim_start_matches('(').strip_prefix(text).unwrap() {
            "" => (true, ANSWERED),
            "!" => (false, End::Failed),
            "!!" => (true, End::Failed),
            "?" => (false, End::Disconnected),
            "??" => (true, End::Disconnected),
            other => panic!("{other}"),
        };
        if applies {
            apply(&mut judge, text);
        }
        if !word.starts_with('(') {
            judge.end(KEY, end, Duration::ZERO);
        }
    }
    let (_, counts, _) = judge.counts().next().unwrap();
    let named = [
        ("updates", counts.updates),
        ("duplicates", counts.duplicates),
        ("older duplicates", counts.older_duplicates),
        ("interleaved", counts.interleaved),
        ("reorders", counts.reorders),
        ("gaps", counts.gaps),
        ("overlaps", counts.overlaps),
        ("outdated", counts.outdated),
        ("failed", counts.failed),
        ("disconnected", counts.disconnected),
    ];
    let counts: Vec<_> =
        named.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    assert_eq!(counts.join(", "), expected, "{script}");
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
    check("1 2 1", "updates 2, duplicates 1, older duplicates 1, outdated 1");
    check("1 2 3 2 3", "updates 3, duplicates 2, older duplicates 1");
    check("1 3 2 2", "updates 3, duplicates 1, older duplicates 1, reorders 1, outdated 1");
}

#[test]
fn a_repetition_goes_on_in_order_up_to_the_newest() {
    check("1 2 3 1 2 3 4", "updates 4, duplicates 3, older duplicates 2");
    check("1 2 3 1 1 2 3", "updates 3, duplicates 4, older duplicates 3");
    check("1 2 3 1 4", "updates 4, duplicates 1, older duplicates 1, interleaved 1");
    check("1 2 3 1 3", "updates 3, duplicates 2, older duplicates 1, interleaved 1");
    check("1 2 3 1 4 2 5", "updates 5, duplicates 2, older duplicates 2, interleaved 2");
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
fn the_first_violation_is_reported() {
    let mut judge = Judge::default();
    for text in ["1", "3", "2", "2"] {
        judge.begin(KEY, None, None, Duration::ZERO);
        apply(&mut judge, text);
        judge.end(KEY, ANSWERED, Duration::ZERO);
    }
    let report = judge.report(KEY).unwrap();
    assert_eq!(report.first_violation.as_deref(), Some("sequence 2 was applied after 3"));
    assert_eq!((report.highest_sequence, report.value_sequence, report.version), (3, 2, 4));
    assert_eq!(report.value, "2");
    judge.begin("other", Some(KEY), None, Duration::ZERO);
    assert_eq!(judge.report("other").unwrap().counts.key_mismatches, 1);
}

#[test]
fn memory_per_record_is_bounded() {
    let mut judge = Judge::default();
    judge.begin(KEY, None, None, Duration::ZERO);
    for n in 0..2 * LATEST_MAX {
        apply(&mut judge, &format!("{n}{}", "x".repeat(VALUE_BYTES_SHOWN)));
    }
    let seen = &judge.by_key[KEY];
    assert_eq!(seen.value.len(), VALUE_BYTES_SHOWN);
    assert_eq!(seen.counts.updates, 2 * LATEST_MAX as u64);
}

#[test]
fn what_an_earlier_receiver_left_counts_as_having_come_in_order() {
    let check = |sequence, expected: (u64, u64, u64)| {
        let mut judge = Judge::default();
        judge.begin(KEY, None, None, Duration::ZERO);
        let members = BodyMembers { sequence: Some(sequence), add: None, sent_us: None };
        let change = Change { record_key: KEY.to_owned(), members, ..Change::default() };
        judge.applied(&change, &Row { version: 8, ..Row::default() }, || 7);
        let counts = judge.report(KEY).unwrap().counts;
        assert_eq!((counts.updates, counts.duplicates, counts.gaps), expected, "{sequence}");
    };
    check(8, (1, 0, 0));
    check(7, (0, 1, 0));
    check(10, (1, 0, 2));
}

#[test]
fn a_reset_keeps_what_is_in_progress() {
    let mut judge = Judge::default();
    judge.begin(KEY, None, None, Duration::ZERO);
    apply(&mut judge, "1");
    judge.begin("done", None, None, Duration::ZERO);
    judge.end("done", ANSWERED, Duration::ZERO);
    judge.reset();
    assert_eq!(
        judge.counts().map(|(key, counts, open)| (key, counts.updates, open)).collect::<Vec<_>>(),
        [(KEY, 0, 1)]
    );
    apply(&mut judge, "1");
    judge.end(KEY, ANSWERED, Duration::ZERO);
    assert_eq!(judge.report(KEY).unwrap().counts.updates, 1);
}
