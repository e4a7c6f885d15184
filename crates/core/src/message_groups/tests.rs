//! What a world does not show: times and bounds.

use super::*;

const LIMITS: GroupLimits = GroupLimits {
    visibility_timeout: Duration::from_secs(60),
    at_work_max: Duration::from_secs(12),
    window: 30,
};

fn seconds(seconds: u64) -> Tick {
    Tick::from_micros(seconds * 1_000_000)
}

fn message(record: &str, sequence_number: u128) -> Message<()> {
    Message {
        record_key: RecordKey::new(record).expect("a record key"),
        receipt_handle: ReceiptHandle(format!("{record}-{sequence_number}").into()),
        sequence_number,
        content: (),
    }
}

/// Receives these, asked for at second 0 and answered at second 1.
fn holding(messages: impl IntoIterator<Item = (&'static str, u128)>) -> MessageGroups<()> {
    let mut groups = MessageGroups::new(LIMITS);
    let receive = groups.begin_receive(Tick::ZERO).expect("there is room");
    let messages = messages.into_iter().map(|(record, number)| message(record, number));
    groups.receive_ended(seconds(1), receive.id, messages).expect("nothing came again");
    groups
}

fn handles(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.receipt_handle.0).collect()
}

#[test]
fn the_next_of_a_group_goes_out_once_the_one_before_is_deleted() {
    let mut groups = holding([("a", 1), ("a", 2), ("b", 3)]);
    let (a1, b3) = (groups.next_handed().expect("a1"), groups.next_handed().expect("b3"));
    assert!(groups.next_handed().is_none(), "a2 waits");
    groups.settle(seconds(2), b3.delivery);
    assert!(groups.next_deletions(seconds(2)).is_empty(), "b3 waits for others");
    groups.settle(seconds(2), a1.delivery);
    let entries = groups.next_deletions(seconds(2));
    assert_eq!(handles(&entries), ["a-1", "b-3"], "a2 waits for it, and b3 goes along");
    assert!(groups.next_handed().is_none(), "it is not known to be deleted");
    groups.deletion_ended(seconds(3), &entries[0], EntryAnswer::Unknown).expect("nobody knows");
    assert!(groups.next_handed().is_none());
    assert!(groups.next_deletions(seconds(3)).is_empty(), "not at once again");
    let again = groups.next_deletions(seconds(4));
    assert_eq!(handles(&again), ["a-1"]);
    groups.deletion_ended(seconds(4), &again[0], EntryAnswer::Done).expect("it is gone");
    let a2 = groups.next_handed().expect("a2");
    assert_eq!((a2.delivery, groups.held()), (DeliveryTag(3), 2));
}

#[test]
fn requests_leave_as_long_as_all_that_is_held_is_invisible_until_they_have_ended() {
    let mut groups: MessageGroups<()> = MessageGroups::new(LIMITS);
    assert_eq!(groups.may_send_until(seconds(100)), seconds(148), "nothing is held");
    let receive = groups.begin_receive(seconds(100)).expect("there is room");
    assert_eq!(groups.may_send_until(seconds(120)), seconds(148), "it can have been handed over by now");
    groups.receive_ended(seconds(120), receive.id, [message("a", 1)]).expect("nothing came again");
    assert_eq!(groups.next_deadline(), Some(seconds(120)), "a third of the timeout from the sending on");
    let entries = groups.next_renewals(seconds(130));
    assert_eq!(handles(&entries), ["a-1"]);
    assert_eq!(groups.may_send_until(seconds(131)), seconds(148), "there is no answer yet");
    groups.renewal_ended(seconds(131), &entries[0], EntryAnswer::Unknown).expect("nobody knows");
    let entries = groups.next_renewals(seconds(132));
    groups.renewal_ended(seconds(133), &entries[0], EntryAnswer::Done).expect("it is granted");
    assert_eq!(groups.may_send_until(seconds(133)), seconds(180));
}

#[test]
fn no_more_is_asked_for_than_fits() {
    let mut groups: MessageGroups<()> = MessageGroups::new(GroupLimits { window: 12, ..LIMITS });
    let asked: Vec<usize> =
        std::iter::from_fn(|| groups.begin_receive(Tick::ZERO)).map(|receive| receive.messages_max).collect();
    assert_eq!(asked, [10, 2]);
}

#[test]
fn what_may_be_deleted_is_not_lost_if_its_renewal_is_refused() {
    let mut groups = holding([("a", 1)]);
    let a1 = groups.next_handed().expect("a1");
    let renewal = groups.next_renewals(seconds(21));
    groups.settle(seconds(21), a1.delivery);
    let deletion = groups.next_deletions(seconds(22));
    groups.renewal_ended(seconds(22), &renewal[0], EntryAnswer::Refused).expect("its deletion decides");
    assert_eq!(
        groups.deletion_ended(seconds(22), &deletion[0], EntryAnswer::Refused),
        Err(VisibilityLost::HandleRefused)
    );
}

#[test]
fn something_that_became_visible_in_between_is_noticed() {
    let mut groups = holding([("a", 1), ("a", 2)]);
    let renewal = groups.next_renewals(seconds(21));
    assert_eq!(
        groups.renewal_ended(seconds(22), &renewal[0], EntryAnswer::Refused),
        Err(VisibilityLost::HandleRefused)
    );
    for again in [1, 2] {
        let mut groups = holding([("a", 1), ("a", 2)]);
        let receive = groups.begin_receive(seconds(62)).expect("there is room");
        let ended = groups.receive_ended(seconds(63), receive.id, [message("a", again)]);
        assert_eq!(ended, Err(VisibilityLost::CameAgain));
    }
}

#[test]
fn a_process_that_ends_gives_back_what_no_request_is_at_work_for() {
    let begin = || {
        let mut groups = holding([("a", 1), ("a", 2), ("b", 3), ("c", 4), ("c", 5)]);
        let (a1, _b3) = (groups.next_handed().expect("a1"), groups.next_handed().expect("b3"));
        groups.settle(seconds(2), a1.delivery);
        groups
    };
    assert_eq!(handles(&begin().hand_back(true)), ["a-2", "c-4", "c-5"]);
    assert_eq!(handles(&begin().hand_back(false)), ["a-2", "b-3", "c-4", "c-5"]);
}

#[test]
fn when_a_message_came_is_known_until_it_is_settled() {
    let mut groups = holding([("a", 1)]);
    assert_eq!(groups.oldest_received_at(), Some(seconds(1)));
    let a1 = groups.next_handed().expect("a1");
    assert_eq!(groups.received_at(a1.delivery), Some(seconds(1)));
    groups.settle(seconds(2), a1.delivery);
    assert_eq!(groups.received_at(a1.delivery), None);
    let entries = groups.next_deletions(seconds(3));
    groups.deletion_ended(seconds(3), &entries[0], EntryAnswer::Done).expect("it is gone");
    assert!(groups.is_empty() && groups.next_deadline().is_none() && groups.oldest_received_at().is_none());
}
