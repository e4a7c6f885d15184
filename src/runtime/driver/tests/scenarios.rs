//! What must hold without a ledger, case by case.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::broker::{Content, End};
use super::target::Answer;
use super::world::{AT_WORK, DRAIN_TIMEOUT, HELD_MAX, LEASE, Setup, World};
use crate::config::BreakerConfig;
use crate::runtime::driver::DriverExit;
use lanekeeper_broker::SourceEvent;
use lanekeeper_core::breaker::BreakerLimits;
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// More than any answer, ack or claim takes here; less than any wait that a test looks at.
const LITTLE: Duration = Duration::from_millis(400);

pub(super) fn assert_about(actual: Duration, expected: Duration) {
    assert!(actual >= expected && actual < expected + LITTLE, "{actual:?} instead of {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn updates_are_attempted_in_order_per_record_and_settled() {
    let mut world = World::begin();
    world.publish("a-1 a-2 b-1 a-3");
    world.until_acked(4).await;
    assert_eq!(world.facts.sent(), "a-1 b-1 a-2 a-3");
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert!(world.broker.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_as_scheduled_and_holds_up_its_record_alone() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::status(503));
    world.target.answer("a-1", Answer::status(503));
    world.publish("a-1 a-2 b-1 b-2");
    world.until_acked(4).await;
    assert_eq!(world.facts.sent(), "a-1 b-1 b-2 a-1 a-1 a-2");
    let offsets = world.facts.offsets();
    assert_about(offsets[3], SECOND);
    assert_about(offsets[4], 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_goes_on_when_the_channel_is_lost_and_is_not_made_again() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(SECOND));
    world.publish("a-1 a-2");
    world.until_in_flight(1).await;
    world.broker.lose_channel();
    world.until_acked(2).await;
    assert_eq!(world.facts.sent(), "a-1 a-2");
    assert_eq!(world.broker.channels(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_between_attempts_goes_on_when_the_channel_is_lost() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::status(503));
    world.publish("a-1");
    world.until("the failure", |world| world.facts.sent() == "a-1" && world.facts.in_flight() == 0).await;
    world.broker.lose_channel();
    world.until_acked(1).await;
    let attempts: Vec<_> = world.facts.requests().iter().map(|request| request.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    assert_about(world.facts.offsets()[1], SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_is_not_sent_again_when_its_ack_is_lost() {
    let mut world = World::begin();
    world.publish("a-1");
    world.until("the answer", |world| world.facts.sent() == "a-1" && world.facts.in_flight() == 0).await;
    assert_eq!(world.broker.acked(), 0);
    world.broker.lose_channel();
    world.until_acked(1).await;
    assert_eq!(world.facts.sent(), "a-1");
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_is_sent_again_if_an_alarm_may_have_hidden_another_owner() {
    let mut world = World::begin();
    world.publish("a-1");
    world.until("the answer", |world| world.facts.sent() == "a-1" && world.facts.in_flight() == 0).await;
    assert_eq!(world.broker.acked(), 0);
    world.broker.keep_claims_back();
    world.broker.lose_channel();
    world.until_acked(1).await;
    assert_eq!(world.facts.sent(), "a-1 a-1", "the record may have an older value by now");
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_flight_and_starts_nothing_more() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(SECOND));
    world.publish("a-1 a-2");
    world.until_in_flight(1).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert_eq!(world.facts.sent(), "a-1");
    assert_eq!((world.broker.acked(), world.broker.waiting()), (1, vec!["a-2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_stop_aborts_what_takes_longer_than_drain_timeout() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(10 * SECOND));
    world.publish("a-1 a-2 b-1");
    world.until_in_flight(1).await;
    let begun = Instant::now();
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert_about(begun.elapsed(), DRAIN_TIMEOUT);
    assert_eq!(world.facts.in_flight(), 0);
    assert_eq!((world.broker.acked(), world.broker.waiting()), (1, vec!["a-1".to_owned(), "a-2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_attempts_whose_channel_was_lost() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(SECOND));
    world.publish("a-1");
    world.until_in_flight(1).await;
    world.broker.set_unreachable(true);
    world.broker.lose_channel();
    world.until("the loss", |world| !world.broker.is_attached()).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert_eq!(world.facts.sent(), "a-1");
    assert_about(world.facts.requests()[0].at.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_driver_that_is_not_attached() {
    let mut world = World::begin();
    world.broker.set_unreachable(true);
    sleep(SECOND).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_gone_ends_the_driver() {
    let mut world = World::begin();
    world.broker.set_gone();
    assert_eq!(world.exit().await, DriverExit::Gone);
}

#[tokio::test(start_paused = true)]
async fn a_preempted_owner_finishes_what_is_in_flight_and_gives_the_rest_back() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(SECOND));
    world.publish("a-1 a-2 a-3");
    world.until_in_flight(1).await;
    world.broker.send(SourceEvent::Preempted);
    world.until("the hand-over", |world| !world.broker.is_attached()).await;
    assert_eq!(world.facts.sent(), "a-1");
    assert_eq!(world.broker.waiting(), ["a-2", "a-3"]);
    world.until_acked(3).await;
    let tenures: Vec<_> = world.facts.requests().iter().map(|request| request.tenure).collect();
    assert_eq!(tenures, [Some(1), Some(2), Some(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_preempted_owner_aborts_what_takes_too_long_and_counts_it_as_failed() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(10 * SECOND));
    world.publish("a-1");
    world.until_in_flight(1).await;
    world.broker.send(SourceEvent::Preempted);
    world.until("the hand-over", |world| !world.broker.is_attached()).await;
    assert_about(world.facts.requests()[0].at.elapsed(), DRAIN_TIMEOUT);
    world.until_acked(1).await;
    let attempts: Vec<_> = world.facts.requests().iter().map(|request| request.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_held_for_too_long_is_given_back_before_the_broker_closes_the_channel() {
    let mut world = World::begin();
    for _ in 0..20 {
        world.target.answer("a-1", Answer::status(503));
    }
    world.publish("a-1 b-1");
    let begun = Instant::now();
    world.until("the second channel", |world| world.broker.channels() == 2).await;
    assert_about(begun.elapsed(), HELD_MAX);
    world.until_acked(2).await;
    let attempts = world.facts.requests().into_iter().filter(|request| request.id == "a-1");
    assert!(attempts.map(|request| request.attempt).eq(1..=21), "they are counted on");
}

#[tokio::test(start_paused = true)]
async fn another_owner_s_claim_ends_the_session_at_once() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(5 * SECOND));
    world.publish("a-1");
    world.until_in_flight(1).await;
    world.broker.rival_claims();
    world.broker.send(SourceEvent::ClaimSuperseded);
    world.until("the second channel", |world| world.broker.channels() == 2).await;
    assert_eq!(world.facts.in_flight(), 1, "the request of the first one is still out");
    world.until_acked(1).await;
    assert_eq!(world.facts.sent(), "a-1 a-1", "the other owner may have done anything between the two");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_lapsed_stops_attempts_until_it_is_renewed_under_the_old_number() {
    let mut world = World::begin();
    world.publish("a-1");
    world.until_acked(1).await;
    world.broker.set_silent(true);
    sleep(LEASE + 3 * SECOND).await;
    world.publish("a-2");
    sleep(5 * SECOND).await;
    assert_eq!(world.facts.sent(), "a-1");
    world.broker.set_silent(false);
    world.until_acked(2).await;
    assert_eq!(world.facts.requests()[1].tenure, Some(1), "the lease was renewed under the old number");
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_is_dead_lettered_before_it_is_settled() {
    let mut world = World::begin();
    world.broker.set_dead_letter_delay(SECOND);
    world.broker.publish(Content::Malformed);
    world.publish("a-1");
    world.until("the end of both", |world| world.broker.is_empty()).await;
    assert_eq!(world.broker.dead_letters(), [(None, "no_record_key")]);
    assert_eq!(world.facts.sent(), "a-1");
}

#[tokio::test(start_paused = true)]
async fn the_dead_letter_of_a_malformed_delivery_begins_again_with_the_next_session() {
    let mut world = World::begin();
    world.broker.set_dead_letter_delay(SECOND);
    world.broker.publish(Content::Malformed);
    sleep(SECOND / 2).await;
    world.broker.lose_channel();
    world.until("its end", |world| world.broker.is_empty()).await;
    assert_eq!(world.broker.dead_letters(), [(None, "no_record_key")]);
    assert_eq!(world.broker.channels(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_dead_letter_of_an_update_outlives_its_session() {
    let mut world = World::begin();
    world.broker.set_dead_letter_delay(SECOND);
    world.target.answer("a-1", Answer::status(400));
    world.publish("a-1 a-2");
    world.until("the answer", |world| world.facts.sent() == "a-1" && world.facts.in_flight() == 0).await;
    world.broker.lose_channel();
    world.until_acked(2).await;
    assert_eq!(world.broker.dead_letters(), [(Some("a-1".to_owned()), "rejected")]);
    assert_eq!(world.facts.sent(), "a-1 a-2");
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_comes_first_proves_that_the_partition_is_drained() {
    let mut world = World::begin();
    world.broker.set_drains();
    world.broker.publish(Content::Marker);
    assert_eq!(world.exit().await, DriverExit::Drained);
    assert_eq!(world.broker.channels(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_marker_in_a_partition_that_does_not_drain_is_settled_and_the_partition_goes_on() {
    let mut world = World::begin();
    world.broker.publish(Content::Marker);
    world.publish("a-1");
    world.until_acked(1).await;
    sleep(20 * SECOND).await;
    assert!(!world.broker.holds_nothing(), "the document of another process may say more than ours does");
    world.until("its settlement", |world| world.broker.holds_nothing()).await;
    world.publish("a-2");
    world.until_acked(2).await;
    assert_eq!(world.broker.channels(), 1);
    assert_eq!(world.stop().await, DriverExit::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_comes_before_the_news_that_the_layout_drains_proves_it_all_the_same() {
    let mut world = World::begin();
    world.publish("a-1");
    world.broker.publish(Content::Marker);
    world.until_acked(1).await;
    sleep(20 * SECOND).await;
    world.broker.set_drains();
    assert_eq!(world.exit().await, DriverExit::Drained);
}

#[tokio::test(start_paused = true)]
async fn updates_before_a_marker_are_done_and_looked_for_again() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::status(503));
    world.publish("a-1 a-2");
    world.broker.set_drains();
    world.broker.publish(Content::Marker);
    assert_eq!(world.exit().await, DriverExit::Drained);
    assert_eq!(world.facts.sent(), "a-1 a-1 a-2");
    assert_eq!((world.broker.acked(), world.broker.channels()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_with_what_is_held() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(10 * SECOND));
    world.publish("a-1 a-2");
    world.until_in_flight(1).await;
    sleep(3 * SECOND).await;
    world.broker.send(SourceEvent::StatusRequested(7));
    world.until("the answer", |world| world.broker.status().is_some()).await;
    let status = world.broker.status().expect("it was published");
    assert_eq!((status.answers, status.updates, status.owns), (Some(7), 2, true));
    assert_eq!((status.tenure, status.oldest_held_seconds), (Some(1), Some(3)));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_ends_with_a_probe_out_leaves_it_to_another() {
    let limits = BreakerLimits {
        window: Duration::from_secs(10),
        attempts_min: 2,
        records_min: 2,
        failure_share: 0.9,
        waits: vec![SECOND],
    };
    let mut world = World::of(&Setup { breaker: BreakerConfig::On(limits), ..Setup::without_ledger() });
    for id in ["a-1", "b-1"] {
        world.target.answer(id, Answer::status(503));
        world.target.answer(id, Answer::applied().after(10 * SECOND));
    }
    world.publish("a-1 b-1");
    world.until_sent(3).await;
    assert_about(world.facts.offsets()[2], SECOND);
    let mut other = world.breakers.watch();
    let now = Tick::from_micros(u64::MAX / 2);
    assert!(!other.grant_probe(now, TargetId(0)), "one is out");
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert!(other.grant_probe(now, TargetId(0)));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_given_back_in_order_leaves_nothing_to_wait_for() {
    let mut world = World::begin();
    world.publish("a-1");
    world.until_acked(1).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert_eq!(world.broker.ends(), [End { lost: None, rest: Duration::ZERO }]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_cut_off_at_the_stop_are_waited_for_by_the_next_owner() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(1000 * SECOND));
    world.publish("a-1");
    world.until_in_flight(1).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert_eq!(world.broker.ends(), [End { lost: None, rest: AT_WORK }]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_channel_s_tenure_is_over_for_the_others_once_its_requests_have_ended() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(20 * SECOND));
    world.publish("a-1");
    world.until_in_flight(1).await;
    world.broker.set_unreachable(true);
    world.broker.lose_channel();
    sleep(10 * SECOND).await;
    assert_eq!(world.broker.ends(), [], "it is at work");
    world.until("the end is said", |world| !world.broker.ends().is_empty()).await;
    assert_eq!(world.facts.in_flight(), 0);
    assert_eq!(world.broker.ends(), [End { lost: Some(TenureNumber(1)), rest: Duration::ZERO }]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_wait_goes_on_with_the_next_owner() {
    let mut world = World::begin();
    world.broker.others_at_work_for(20 * SECOND);
    world.publish("a-1");
    world.until_acked(1).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
    let [End { lost: None, rest }] = world.broker.ends()[..] else { panic!("{:?}", world.broker.ends()) };
    assert!((19 * SECOND..20 * SECOND).contains(&rest), "{rest:?}: a fresh update did not wait for it");
}
