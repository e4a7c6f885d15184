//! What must hold with a ledger, case by case.

use tokio::time::{Instant, sleep};

use super::scenarios::{SECOND, assert_about};
use super::target::Answer;
use super::world::{DRAIN_TIMEOUT, Setup, World};
use crate::runtime::driver::DriverExit;
use lanekeeper_broker::SourceEvent;
use lanekeeper_core::message::TenureNumber;

#[tokio::test(start_paused = true)]
async fn nothing_is_settled_before_the_ledger_has_it() {
    let mut world = World::of(&Setup::with_ledger());
    world.ledger.set_delay(SECOND);
    world.publish("a-1 a-2 b-1");
    world.until_acked(3).await; // the world judges each settlement
    assert_eq!(world.facts.sent(), "a-1 b-1 a-2");
}

#[tokio::test(start_paused = true)]
async fn a_write_outlives_its_session_and_spares_a_second_request() {
    let mut world = World::of(&Setup::with_ledger());
    world.publish("a-1");
    world.until("the answer", |world| world.facts.sent() == "a-1").await;
    world.ledger.set_delay(5 * SECOND);
    sleep(SECOND).await;
    world.broker.lose_channel();
    world.until_acked(1).await;
    assert_eq!(world.facts.sent(), "a-1");
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_the_ledger_does_not_take() {
    let mut world = World::of(&Setup::with_ledger());
    world.publish("a-1");
    world.until_in_flight(1).await;
    world.ledger.set_fails(true);
    sleep(SECOND).await;
    let begun = Instant::now();
    assert_eq!(world.stop().await, DriverExit::Stopped);
    assert_about(begun.elapsed(), DRAIN_TIMEOUT);
    assert_eq!((world.broker.acked(), world.broker.waiting()), (0, vec!["a-1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_preempted_owner_gives_back_what_the_ledger_does_not_take() {
    let mut world = World::of(&Setup::with_ledger());
    world.publish("a-1");
    world.until_in_flight(1).await;
    world.ledger.set_fails(true);
    sleep(SECOND).await;
    world.broker.send(SourceEvent::Preempted);
    world.until("the hand-over", |world| !world.broker.is_attached()).await;
    assert_eq!(world.broker.waiting(), ["a-1"]);
    world.ledger.set_fails(false);
    world.until_acked(1).await;
    assert_eq!(world.facts.sent(), "a-1");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_a_newer_owner_fences_ends_the_session_and_is_written_under_the_next_number() {
    let mut world = World::of(&Setup::with_ledger());
    world.target.answer("a-1", Answer::applied().after(SECOND));
    world.publish("a-1");
    world.until_in_flight(1).await;
    let number = world.broker.rival_claims();
    world.ledger.rival_claims(number);
    world.until("the end of the session", |world| !world.broker.is_attached()).await;
    assert_eq!(world.broker.acked(), 0);
    world.until_acked(1).await;
    assert_eq!(world.broker.channels(), 2);
}

/// Another process had owned the partition in between, and its claim stood in the stream that is gone.
#[tokio::test(start_paused = true)]
async fn the_ledger_learns_of_the_number_of_a_claim_behind_a_lost_stream() {
    let mut world = World::of(&Setup::with_ledger());
    world.publish("a-1");
    world.until_acked(1).await;
    let number = world.broker.lose_claims();
    world.ledger.rival_claims(number);
    world.broker.lose_channel();
    world.publish("a-2");
    world.until_acked(2).await;
    assert_eq!(world.facts.sent(), "a-1 a-2");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_the_ledger_refuses_starts_no_attempt() {
    let mut world = World::of(&Setup::with_ledger());
    world.ledger.rival_claims(TenureNumber(3));
    world.publish("a-1");
    world.until_acked(1).await;
    let tenures: Vec<_> = world.facts.requests().iter().map(|request| request.tenure).collect();
    assert_eq!(tenures, [Some(3)]);
    assert_eq!(world.broker.channels(), 3, "each refusal ends a session");
}

#[tokio::test(start_paused = true)]
async fn a_parked_record_goes_out_in_order_when_it_is_released() {
    let mut world = World::of(&Setup::with_ledger());
    world.target.answer("a-1", Answer::status(400));
    world.publish("a-1 a-2 b-1");
    world.until_acked(3).await;
    assert_eq!((world.facts.sent(), world.ledger.parked()), ("a-1 b-1".to_owned(), 2));
    world.ledger.release_all();
    world.until("an empty ledger", |world| world.ledger.parked() == 0).await;
    assert_eq!(world.facts.sent(), "a-1 b-1 a-1 a-2");
}

#[tokio::test(start_paused = true)]
async fn what_is_released_while_nothing_comes_asks_the_broker_for_a_delivery() {
    let mut world = World::of(&Setup::with_ledger());
    world.target.answer("a-1", Answer::status(400));
    world.publish("a-1");
    world.until_acked(1).await;
    world.broker.send(SourceEvent::Preempted); // it holds nothing, and lets go
    sleep(SECOND).await;
    world.ledger.release_all();
    world.until("an empty ledger", |world| world.ledger.parked() == 0).await;
    assert_eq!(world.broker.asked_for_delivery(), 1);
    assert_eq!(world.facts.sent(), "a-1 a-1");
}
