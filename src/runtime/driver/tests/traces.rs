//! The spans of updates and attempts, as a driver begins and ends them.

use opentelemetry::Value;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

use super::scenarios::SECOND;
use super::target::Answer;
use super::world::{Setup, World};
use crate::runtime::driver::DriverExit;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn of_publisher(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| &attribute.value)
}

fn text(span: &SpanData, key: &str) -> String {
    attribute(span, key).map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn attempts_are_children_of_the_update_and_count_their_repetitions() {
    let mut world = World::of(&Setup::without_ledger());
    world.target.answer("a-1", Answer::status(503));
    world.publish_traced("a-1", &of_publisher("01"));
    world.until_acked(1).await;
    let spans = world.spans();
    let [first, second, update] = spans.as_slice() else { panic!("three spans: {spans:?}") };
    assert_eq!(update.span_kind, SpanKind::Consumer);
    assert_eq!(update.span_context.trace_id().to_string(), TRACE);
    assert_eq!(update.parent_span_id.to_string(), SPAN);
    assert_eq!(
        (text(update, "lanekeeper.resolution"), text(update, "lanekeeper.attempts")),
        ("applied".into(), "2".into())
    );
    assert_eq!((&update.status, attribute(update, "error.type")), (&Status::Unset, None));
    for attempt in [first, second] {
        assert_eq!(attempt.span_kind, SpanKind::Client);
        assert_eq!(attempt.span_context.trace_id(), update.span_context.trace_id());
        assert_eq!(attempt.parent_span_id, update.span_context.span_id());
        assert!(attempt.end_time <= update.end_time);
    }
    assert_eq!(
        (attribute(first, "http.request.resend_count"), text(first, "error.type")),
        (None, "503".into())
    );
    assert!(matches!(first.status, Status::Error { .. }));
    assert_eq!(
        (text(second, "http.request.resend_count"), attribute(second, "error.type")),
        ("1".into(), None)
    );
    assert_eq!(text(second, "lanekeeper.outcome"), "applied");
    // The target was sent of the attempt, and not of the update or the publisher.
    let sent = world.facts.requests().into_iter().map(|request| request.traceparent.unwrap());
    let expected = [first, second].map(|span| format!("00-{TRACE}-{}-01", span.span_context.span_id()));
    assert_eq!(sent.collect::<Vec<_>>(), expected);
}

/// What is held for spans has a bound: a span that was never ended would take the place of another one.
#[tokio::test(start_paused = true)]
async fn every_update_of_a_long_session_has_its_span() {
    for setup in [Setup::without_ledger(), Setup::with_ledger()] {
        let mut world = World::of(&setup);
        for place in 1..=100 {
            world.publish(&format!("a-{place} b-{place}"));
        }
        world.until_acked(200).await;
        let spans = world.spans();
        let updates = spans.iter().filter(|span| span.span_kind == SpanKind::Consumer);
        assert_eq!((updates.count(), spans.len()), (200, 400));
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_is_not_sampled_is_passed_on_and_not_exported() {
    let mut world = World::begin();
    world.publish_traced("a-1", &of_publisher("00"));
    world.until_acked(1).await;
    assert!(world.spans().is_empty());
    let sent = world.facts.requests()[0].traceparent.clone().unwrap();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    assert!(!sent.contains(SPAN), "a span that is not exported has an id of its own: {sent}");
}

#[tokio::test(start_paused = true)]
async fn an_update_that_comes_again_has_a_span_for_each_delivery() {
    let mut world = World::begin();
    world.target.answer("a-1", Answer::applied().after(SECOND));
    world.publish_traced("a-1", &of_publisher("01"));
    world.until_in_flight(1).await;
    world.broker.lose_channel();
    world.until_acked(1).await;
    let spans = world.spans();
    let updates: Vec<_> = spans.iter().filter(|span| span.span_kind == SpanKind::Consumer).collect();
    let [lost, settled] = updates.as_slice() else { panic!("two updates: {spans:?}") };
    assert_eq!(
        (text(lost, "lanekeeper.given_back"), attribute(lost, "lanekeeper.resolution")),
        ("true".into(), None)
    );
    assert_eq!(
        (text(settled, "lanekeeper.redelivered"), text(settled, "lanekeeper.given_back")),
        ("true".into(), String::new())
    );
    for span in &spans {
        assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    }
    // The attempt went on when the channel was lost.
    let attempts: Vec<_> = spans.iter().filter(|span| span.span_kind == SpanKind::Client).collect();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].parent_span_id, lost.span_context.span_id());
}

#[tokio::test(start_paused = true)]
async fn a_released_update_has_a_trace_of_its_own_that_is_linked_to_the_publishers() {
    let mut world = World::of(&Setup::with_ledger());
    world.target.answer("a-1", Answer::status(400));
    world.publish_traced("a-1", &of_publisher("01"));
    world.until_acked(1).await;
    let spans = world.spans();
    let parked = spans.last().expect("the update");
    assert_eq!(
        (text(parked, "lanekeeper.resolution"), text(parked, "error.type")),
        ("parked".into(), "rejected".into())
    );
    assert!(matches!(parked.status, Status::Error { .. }));
    world.ledger.release_all();
    world.until("the end of the parked update", |world| world.ledger.parked() == 0).await;
    assert_eq!(world.stop().await, DriverExit::Stopped);
    let spans = world.spans();
    let [attempt, released] = spans.as_slice() else { panic!("two spans: {spans:?}") };
    assert_ne!(released.span_context.trace_id().to_string(), TRACE);
    assert_eq!(released.links[0].span_context.trace_id().to_string(), TRACE);
    assert_eq!(released.links[0].span_context.span_id().to_string(), SPAN);
    assert_eq!(
        (text(released, "lanekeeper.released"), text(released, "lanekeeper.resolution")),
        ("true".into(), "applied".into())
    );
    assert_eq!(attempt.parent_span_id, released.span_context.span_id());
}
