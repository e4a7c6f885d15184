use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::pacing::Rate;
use crate::publish::outbox::Refusal;

fn limits() -> IntakeLimits {
    let rate = Rate { requests: NonZeroU32::new(2).unwrap(), per: Duration::from_secs(1) };
    IntakeLimits {
        pending_max: 6,
        pending_bytes_max: 1_000,
        pending_per_record_max: 3,
        remember: Duration::from_secs(10),
        remembered_max: 4,
        clients: vec![
            ClientLimits { pending_max: 4, rate_max: None },
            ClientLimits { pending_max: 6, rate_max: Some(rate) },
        ],
    }
}

fn tick(seconds: u64) -> Tick {
    Tick::from_micros(seconds * 1_000_000)
}

/// `a1`: update 1 of record a; `a1!`: with another body; `a1*500`: of 500 bytes.
fn line(text: &str) -> Offer {
    let (text, bytes) =
        text.split_once('*').map_or((text, 10), |(text, bytes)| (text, bytes.parse().unwrap()));
    let name = text.trim_end_matches('!');
    let mut hash = [0; 16];
    hash[..name.len()].copy_from_slice(name.as_bytes());
    Offer {
        name: UpdateName(hash),
        body_hash: BodyHash([u8::from(text.ends_with('!')); 16]),
        record_key: RecordKey::new(name[..1].to_owned()).unwrap(),
        bytes,
    }
}

/// Runs a script and says what was submitted, withdrawn and answered.
///
/// Words: `0:a1,b1` client 0 sends both, with 5 s · `+0` submission 0 is confirmed · `-0` it did not arrive · `?0` it may
/// have · `~0` it is in flight · `^0` whoever sent request 0 hangs up · `@3` it is second 3.
/// Output: `>0` submitted as 0 · `<0` to be withdrawn · `0=+k-?` request 0 is answered: accepted, known, not accepted,
/// unknown · `x…` not admitted.
#[track_caller]
fn check(script: &str, expected: &str) {
    let mut intake = Intake::new(limits());
    let (mut now, mut seen) = (tick(0), Vec::<String>::new());
    for word in script.split_whitespace() {
        let number = || word[1..].parse().unwrap();
        let receipt = |result| PublishReceipt { submission_id: SubmissionId(number()), result };
        let not = |reason| receipt(PublishResult::NotConfirmed(reason));
        let mut withdrawn = Withdrawn::new();
        match word.as_bytes()[0] {
            b'+' => intake.receipt(receipt(PublishResult::Confirmed), now),
            b'-' => intake.receipt(not(NotConfirmedReason::NotPublished), now),
            b'?' => intake.receipt(not(NotConfirmedReason::Stopped), now),
            b'~' => intake.in_flight(SubmissionId(number())),
            b'^' => withdrawn = intake.hung_up(RequestId(number())),
            b'@' => {
                now = tick(number());
                withdrawn = intake.wake(now);
            }
            _ => {
                let (client, lines) = word.split_once(':').unwrap();
                let lines: Vec<Offer> = lines.split(',').map(line).collect();
                let deadline = now.after(Duration::from_secs(5));
                match intake.admit(client.parse().unwrap(), &lines, now, deadline) {
                    Ok(admitted) => seen.extend(admitted.submit.iter().map(|(_, id)| format!(">{}", id.0))),
                    Err(refused) => seen.push(format!("x{refused:?}").replace(' ', "")),
                }
            }
        }
        seen.extend(withdrawn.iter().map(|(_, id)| format!("<{}", id.0)));
        while let Some((request_id, answers)) = intake.next_answer() {
            let letters = answers.iter().map(|answer| match answer {
                LineAnswer::Accepted => '+',
                LineAnswer::Known => 'k',
                LineAnswer::NotAccepted => '-',
                LineAnswer::Unknown => '?',
            });
            seen.push(format!("{}={}", request_id.0, letters.collect::<String>()));
        }
    }
    assert_eq!(seen.join(" "), expected, "{script}");
}

#[test]
fn a_request_is_answered_when_the_broker_has_confirmed_all_of_it() {
    check("0:a1", ">0");
    check("0:a1 +0", ">0 0=+");
    check("0:a1,b1 +1 +0", ">0 >1 0=++");
    check("0:a1 +0 +0 ~0 -0", ">0 0=+");
}

#[test]
fn a_repeat_joins_what_waits_and_knows_what_was_confirmed() {
    check("0:a1 0:a1 +0", ">0 0=+ 1=+");
    check("0:a1,a1 +0", ">0 0=++");
    check("0:a1 +0 0:a1", ">0 0=+ 1=k");
    check("0:a1 +0 0:a1,a2 +1", ">0 0=+ >1 1=k+");
    check("0:a1 +0 @10 0:a1", ">0 0=+ >1"); // forgotten after 10 s
    check("0:a1,b1,c1,d1 +0 +1 +2 +3 0:e1 +4 0:a1 0:b1", ">0 >1 >2 >3 0=++++ >4 1=+ >5 3=k"); // the oldest of 4
    check("0:a1 0:b1 +0 +1", ">0 >1 0=+ 1=+"); // an id is unique within its record
}

#[test]
fn an_id_with_another_body_is_refused() {
    check("0:a1 0:a1!", ">0 xIdReused{line:0}");
    check("0:a1 +0 0:b1,a1!", ">0 0=+ xIdReused{line:1}");
    check("0:a1,a1!", "xIdReused{line:1}");
    check("0:a1 @5 ~0 0:a1!", ">0 <0 0=? xIdReused{line:0}");
    check("0:a1 @5 -0 0:a1!", ">0 <0 0=- >1");
}

#[test]
fn what_is_not_confirmed_in_time_is_withdrawn() {
    check("0:a1 @4", ">0");
    check("0:a1 @5", ">0 <0");
    check("0:a1 @5 -0", ">0 <0 0=-");
    check("0:a1 @5 ?0", ">0 <0 0=?");
    check("0:a1 @5 ~0", ">0 <0 0=?");
    check("0:a1 @5 +0", ">0 <0 0=+"); // the confirm was on its way
    check("0:a1 @5 ~0 +0 0:a1", ">0 <0 0=? 1=k");
    check("0:a1 @5 ~0 ?0 0:a1 +1", ">0 <0 0=? >1 1=+");
    check("0:a1,a2 @5 ~0 -1", ">0 >1 <0 <1 0=?-"); // all of a batch at once
}

#[test]
fn a_repeat_after_the_withdrawal_is_published_behind_it() {
    check("0:a1 @5 0:a1 ~0 +0 +1", ">0 <0 >1 0=? 1=+");
    check("0:a1 @5 ~0 0:a1 0:a1 +1", ">0 <0 0=? >1 1=+ 2=+");
    check("0:a1 @5 ~0 0:a1 +0 0:a1 +1", ">0 <0 0=? >1 2=k 1=+");
}

#[test]
fn an_update_waits_as_long_as_anybody_does() {
    check("0:a1 @3 0:a1 @5 @8 ~0", ">0 0=? <0 1=?");
    check("0:a1 @3 0:a1 @9 -0", ">0 <0 0=- 1=-");
    check("0:a1 0:a1 ^0 +0", ">0 1=+");
    check("0:a1 0:a1 ^0 ^1 -0", ">0 <0");
}

#[test]
fn whoever_hangs_up_withdraws_what_nobody_else_waits_for() {
    check("0:a1 ^0 ~0 @9", ">0 <0");
    check("0:a1,b1 +0 ^0 -1 0:a1", ">0 >1 <1 1=k");
    check("0:a1 @5 ^0 ~0", ">0 <0");
    check("0:a1 @5 ~0 ^0 +0", ">0 <0 0=?");
}

#[test]
fn what_waits_is_bounded() {
    check("0:a1 0:a2 0:a3 0:a4", ">0 >1 >2 xTooManyOfRecord{line:0}");
    check("0:a1 0:a2 0:a3 +0 0:a4", ">0 >1 >2 0=+ >3");
    check("0:a1,a2 1:b1,a3,a4", ">0 >1 xTooManyOfRecord{line:2}");
    check("0:a1,a2,a3,a4", "xTooManyLines{line:3}");
    check("0:a1,b1,c1,d1,e1", "xTooManyLines{line:4}");
    check("0:a1,b1,c1,d1 0:e1 0:a1", ">0 >1 >2 >3 xTooManyOfClient"); // joining needs no room
    check("0:a1,b1,c1 1:d1,e1,f1 0:g1", ">0 >1 >2 >3 >4 >5 xFull");
    check("0:a1*5000 0:b1 +0 0:b1", ">0 xFull 0=+ >1");
    check("0:a1*600 0:b1*401 0:c1*400", ">0 xFull >1");
    check("0:a1 @5 ~0 0:a2 0:a3 0:a4", ">0 <0 0=? >1 >2 xTooManyOfRecord{line:0}"); // in flight counts
}

#[test]
fn a_client_sends_no_faster_than_it_may() {
    check("1:a1 1:b1 1:c1", ">0 >1 xTooFast{retry_after:500ms}");
    check("1:a1 1:b1 @1 1:c1 1:d1", ">0 >1 >2 >3");
    check("1:a1,b1,c1,d1 @1 1:e1 @2 1:e1", ">0 >1 >2 >3 xTooFast{retry_after:500ms} >4");
}

#[test]
fn a_client_that_is_changed_owes_what_it_owed_unless_its_rate_is_another_one() {
    let mut intake = Intake::new(limits());
    let updates = ["a1", "a2", "a3"].map(line);
    let slow = limits().clients[1];
    intake.admit(1, &updates, tick(0), tick(9)).unwrap();
    let mut is_too_fast = |changed: ClientLimits, update: &str| {
        intake.change_client(1, changed);
        matches!(intake.admit(1, &[line(update)], tick(0), tick(9)), Err(NotAdmitted::TooFast { .. }))
    };
    assert!(is_too_fast(slow, "b1"));
    assert!(is_too_fast(ClientLimits { pending_max: 5, ..slow }, "b1"));
    assert!(!is_too_fast(ClientLimits { rate_max: None, ..slow }, "b1"));
    assert!(!is_too_fast(slow, "b2"));
    let further = intake.add_client(slow);
    assert_eq!(further, 2);
    assert!(intake.admit(further, &[line("c1")], tick(0), tick(9)).is_ok());
    assert_eq!((intake.load_of_client(1), intake.load_of_client(further)), (5, 1));
}

#[test]
fn whoever_gets_the_number_of_another_client_owes_nothing() {
    let mut intake = Intake::new(limits());
    let slow = limits().clients[1];
    intake.admit(1, &["a1", "a2", "a3"].map(line), tick(0), tick(9)).unwrap();
    assert!(matches!(intake.admit(1, &[line("b1")], tick(0), tick(9)), Err(NotAdmitted::TooFast { .. })));
    intake.replace_client(1, slow);
    assert!(intake.admit(1, &[line("b1")], tick(0), tick(9)).is_ok());
}

#[test]
fn an_update_that_the_broker_refused_to_the_end_may_have_arrived() {
    let mut intake = Intake::new(limits());
    let _ = intake.admit(0, &[line("a1")], tick(0), tick(5)).unwrap();
    let result = PublishResult::NotConfirmed(NotConfirmedReason::Refused(Refusal::Nacked));
    intake.receipt(PublishReceipt { submission_id: SubmissionId(0), result }, tick(1));
    assert_eq!(intake.next_answer().unwrap().1, [LineAnswer::Unknown]);
    assert_eq!((intake.load(), intake.requests(), intake.next_deadline()), ((0, 0), 0, None));
}
