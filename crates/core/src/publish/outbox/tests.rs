use super::*;
use bytes::Bytes;

use crate::publish::outgoing::ShortText;

const WAIT: Duration = Duration::from_secs(1);

fn outbox(limits: OutboxLimits) -> Outbox {
    Outbox::new(limits, Schedule::new(vec![WAIT], 0.0))
}

fn limits() -> OutboxLimits {
    OutboxLimits {
        in_flight_max: 2,
        held_max: 10,
        held_bytes_max: 1000,
        give_up_after: None,
        abandoned_max: 1,
    }
}

fn tick(seconds: u64) -> Tick {
    Tick::from_micros(seconds * 1_000_000)
}

/// Runs a script against the outbox and says what it published and what receipts it gave.
///
/// Words: `a1` push update 1 of record a (`a1` again: the same update once more) · `~a1,a2` withdraw them · `+a` its unconfirmed update is confirmed · `-a` nacked · `?a` returned
/// · `!` the connection is lost · `@3` it is second 3 · `.` stop · `end` end · `forgive`.
/// Output: `>a1` published, `=a1` confirmed, `xa1:NotConfirmedReason` not confirmed, `~a1` withdrawn in flight.
fn check_with(limits: OutboxLimits, script: &str, expected: &str) {
    let mut outbox = outbox(limits);
    let mut now = tick(0);
    let mut names: Vec<String> = Vec::new();
    let mut flying: HashMap<String, PublishId> = HashMap::new();
    let mut seen: Vec<String> = Vec::new();
    for word in script.split_whitespace() {
        let key = |word: &str| RecordKey::new(word[1..2].to_owned()).unwrap();
        let in_flight = |flying: &HashMap<String, PublishId>| flying[&word[1..2]];
        match word.as_bytes()[0] {
            b'+' => outbox.confirmed(&key(word), in_flight(&flying)),
            b'-' => outbox.refused(&key(word), in_flight(&flying), Refusal::Nacked, now),
            b'?' => outbox.refused(&key(word), in_flight(&flying), Refusal::Unroutable, now),
            b'!' => outbox.disconnected(),
            b'.' => outbox.stop(),
            b'~' => {
                let withdrawn: Vec<(RecordKey, SubmissionId)> = word[1..]
                    .split(',')
                    .map(|name| {
                        let place = names.iter().rposition(|known| known == name).unwrap();
                        (RecordKey::new(name[..1].to_owned()).unwrap(), SubmissionId(place as u64))
                    })
                    .collect();
                for submission_id in outbox.withdraw(&withdrawn) {
                    seen.push(format!("~{}", names[usize::try_from(submission_id.0).unwrap()]));
                }
            }
            b'@' => now = tick(word[1..].parse().unwrap()),
            _ if word == "end" => outbox.end(),
            _ if word == "forgive" => outbox.forgive(),
            _ => {
                let outgoing = Outgoing {
                    record_key: RecordKey::new(word[..1].to_owned()).unwrap(),
                    id: ShortText::new(word).unwrap(),
                    update_type: None,
                    content_type: None,
                    content_encoding: None,
                    published_at: 0,
                    headers: Vec::new(),
                    body: Bytes::from_static(b"123456789"),
                };
                outbox.push(SubmissionId(names.len() as u64), Arc::new(outgoing));
                names.push(word.to_owned());
            }
        }
        outbox.wake(now);
        while let Some(in_flight) = outbox.publish_next() {
            flying.insert(in_flight.outgoing.record_key.as_str().to_owned(), in_flight.id);
            seen.push(format!(">{}", in_flight.outgoing.id.as_str()));
        }
        while let Some(receipt) = outbox.next_receipt() {
            let name = &names[usize::try_from(receipt.submission_id.0).unwrap()];
            seen.push(match receipt.result {
                PublishResult::Confirmed => format!("={name}"),
                PublishResult::NotConfirmed(NotConfirmedReason::Refused(refusal)) => {
                    format!("x{name}:{refusal:?}")
                }
                PublishResult::NotConfirmed(reason) => format!("x{name}:{reason:?}"),
            });
        }
    }
    assert_eq!(seen.join(" "), expected, "{script}");
}

fn check(script: &str, expected: &str) {
    check_with(limits(), script, expected);
}

#[test]
fn one_update_per_record_is_unconfirmed_and_many_records_at_once() {
    check("a1 a2 b1", ">a1 >b1");
    check("a1 a2 b1 +a", ">a1 >b1 >a2 =a1");
    check("a1 b1 c1", ">a1 >b1"); // the window is 2
    check("a1 b1 c1 +b", ">a1 >b1 >c1 =b1");
    check("a1 a2 a3 +a +a +a", ">a1 >a2 =a1 >a3 =a2 =a3");
}

#[test]
fn a_refused_update_is_published_again_before_later_ones_of_its_record() {
    check("a1 a2 -a", ">a1");
    check("a1 a2 -a @1", ">a1 >a1");
    check("a1 a2 ?a @1 +a", ">a1 >a1 >a2 =a1");
    check("a1 a2 b1 -a +b b2", ">a1 >b1 =b1 >b2"); // others go on meanwhile
}

#[test]
fn a_lost_connection_brings_everything_unconfirmed_back_oldest_first() {
    check("b1 a1 c1 !", ">b1 >a1 >b1 >a1");
    check("a1 a2 ! +a", ">a1 >a1 >a2 =a1");
    check("a1 a2 -a ! @1", ">a1 >a1"); // what waits goes on waiting
}

#[test]
fn a_stale_answer_changes_nothing() {
    let mut outbox = outbox(limits());
    let outgoing = |id: &str| {
        Arc::new(Outgoing {
            record_key: RecordKey::new("a").unwrap(),
            id: ShortText::new(id).unwrap(),
            update_type: None,
            content_type: None,
            content_encoding: None,
            published_at: 0,
            headers: Vec::new(),
            body: Bytes::new(),
        })
    };
    let record_key = RecordKey::new("a").unwrap();
    outbox.push(SubmissionId(0), outgoing("a1"));
    outbox.push(SubmissionId(1), outgoing("a2"));
    let old = outbox.publish_next().unwrap().id;
    outbox.disconnected();
    let new = outbox.publish_next().unwrap();
    assert!(new.again);
    outbox.confirmed(&record_key, old);
    outbox.refused(&record_key, old, Refusal::Nacked, tick(0));
    assert!(outbox.next_receipt().is_none());
    outbox.confirmed(&record_key, new.id);
    outbox.confirmed(&record_key, new.id);
    assert_eq!(outbox.next_receipt().unwrap().submission_id, SubmissionId(0));
    assert!(outbox.next_receipt().is_none());
    assert_eq!(outbox.load(), (0, 1));
}

#[test]
fn a_record_given_up_takes_its_later_updates_with_it() {
    let limits = OutboxLimits { give_up_after: Some(Duration::from_millis(2500)), ..limits() };
    check_with(limits.clone(), "a1 a2 -a @1 -a @2 -a", ">a1 >a1 >a1");
    // The last wait is cut short, so that giving up takes no longer than asked for.
    check_with(
        limits.clone(),
        "a1 a2 -a @1 -a @2 -a @3 -a a3 b1",
        ">a1 >a1 >a1 >a1 xa1:Nacked xa2:Behind xa3:Behind >b1",
    );
    check_with(limits.clone(), "a1 ?a @9 ?a", ">a1 >a1 xa1:Unroutable");
    // Nothing was wrong with the update while the broker was away.
    check_with(limits.clone(), "a1 -a @1 ! @9 -a @10", ">a1 >a1 >a1 >a1");
    check_with(limits.clone(), "a1 -a forgive @9 -a @10", ">a1 >a1 >a1");
    // A confirm makes the next update of the record start with a fresh account.
    check_with(limits, "a1 a2 -a @2 +a @5 -a @6", ">a1 >a1 >a2 =a1 >a2");
}

#[test]
fn too_many_records_given_up_end_it_all() {
    let limits = OutboxLimits { give_up_after: Some(Duration::ZERO), ..limits() };
    check_with(
        limits,
        "a1 b1 b2 c1 d1 d2 -a -b d3 +c",
        ">a1 >b1 >c1 xa1:Nacked xb1:Nacked xb2:Behind xd1:NotPublished xd2:NotPublished xd3:NotPublished =c1",
    );
}

#[test]
fn a_stop_waits_only_for_what_is_in_flight() {
    check("a1 a2 b1 . +a", ">a1 >b1 xa2:NotPublished =a1");
    check("a1 a2 -a .", ">a1 xa1:Stopped xa2:NotPublished");
    check("a1 . -a", ">a1 xa1:Nacked");
    check("a1 . !", ">a1 xa1:Stopped");
    check("a1 a2 end", ">a1 xa2:NotPublished xa1:Stopped");
    check("end a1", "xa1:NotPublished");
}

#[test]
fn what_is_withdrawn_is_not_published_again() {
    check("a1 a2 ~a2", ">a1 xa2:NotPublished");
    check("a1 b1 c1 ~c1 +a", ">a1 >b1 xc1:NotPublished =a1");
    check("a1 ~a1 !", ">a1 ~a1 xa1:Stopped");
    check("a1 a2 ~a1", ">a1 ~a1"); // its record waits for the confirm
    check("a1 a2 ~a1 +a", ">a1 ~a1 >a2 =a1");
    check("a1 a2 ~a1 !", ">a1 ~a1 >a2 xa1:Stopped");
    check("a1 a2 ~a1 ?a", ">a1 ~a1 >a2 xa1:NotPublished");
    check("a1 a2 ~a1 -a", ">a1 ~a1 >a2 xa1:Stopped"); // a part of the queues may have it
    check("a1 ?a ~a1 @9", ">a1 xa1:NotPublished");
    check("a1 -a ~a1 @9", ">a1 xa1:Stopped");
    check("a1 ! -a ~a1 @9", ">a1 >a1 xa1:Stopped");
    check("a1 +a ~a1", ">a1 =a1");
    check("a1 ~a1 ~a1 +a", ">a1 ~a1 ~a1 =a1");
}

#[test]
fn updates_that_are_withdrawn_together_make_no_room_for_each_other() {
    check("a1 a2 ?a ~a1,a2 @9", ">a1 xa1:NotPublished xa2:NotPublished");
    check("a1 a2 a3 ?a ~a2,a1 @9", ">a1 >a3 xa2:NotPublished xa1:NotPublished");
}

#[test]
fn an_update_that_was_withdrawn_and_sent_again_is_published_once_if_it_is_confirmed() {
    check("a1 ~a1 a1 a2 +a", ">a1 ~a1 >a2 =a1 =a1");
    check("a1 ~a1 a1 a2 ! +a", ">a1 ~a1 >a1 xa1:Stopped >a2 =a1");
    check("a1 ~a1 a2 a1 +a", ">a1 ~a1 >a2 =a1");
    check("a1 a1 +a", ">a1 >a1 =a1"); // nobody has withdrawn it
}

#[test]
fn what_is_held_is_bounded_in_updates_and_in_bytes() {
    let outgoing = |bytes: usize| {
        Arc::new(Outgoing {
            record_key: RecordKey::new("a").unwrap(),
            id: ShortText::new("a").unwrap(),
            update_type: None,
            content_type: None,
            content_encoding: None,
            published_at: 0,
            headers: Vec::new(),
            body: Bytes::from(vec![0; bytes]),
        })
    };
    let mut outbox = outbox(limits());
    assert_eq!(outbox.room(), 10);
    outbox.push(SubmissionId(0), outgoing(998));
    assert_eq!(outbox.room(), 9, "999 bytes with the key: one more is let in");
    outbox.push(SubmissionId(1), outgoing(0));
    assert_eq!(outbox.room(), 0);
    let in_flight = outbox.publish_next().unwrap().id;
    outbox.confirmed(&RecordKey::new("a").unwrap(), in_flight);
    assert_eq!(outbox.room(), 9);
    for submission_id in 2..11 {
        outbox.push(SubmissionId(submission_id), outgoing(0));
    }
    assert_eq!(outbox.room(), 0);
}
