//! Targets with limits: their refusals cost no update its budget, and their owner's limits are kept.

use std::time::Duration;

use lanekeeper_lab::receiver::{Outage, RateLimit, RateLimitFields, ReceiverSettings};
use serde_json::json;

use crate::harness::{Dispatcher, World, assert_flawless, assert_in_order, pace, until, updates};

/// An update that fails for two seconds is exhausted.
const HASTY: &str = "updates.partitions = 4\nretry.delay_initial = \"100ms\"\nretry.delay_max = \"500ms\"\n\
    retry.elapsed_max = \"2s\"\n";

fn limited(rate: &str, fields: RateLimitFields) -> ReceiverSettings {
    let rate: RateLimit = rate.parse().expect("a rate");
    ReceiverSettings { rate_limit: Some(RateLimit { fields, ..rate }), ..ReceiverSettings::default() }
}

/// The backlog takes many times as long as an update may be retried.
async fn a_backlog_is_applied_and_nothing_parked(name: &str, fields: RateLimitFields) {
    let world = World::with(name, limited("20/s", fields)).await;
    let dispatcher = world.dispatcher(&(world.ledger() + HASTY)).await;
    world.publish(updates(50, 6)).await;
    let report = world.applied(300).await;
    assert_in_order(&report, 300);
    let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
    assert!(parked < 0.5, "{parked} parked");
    let limited = report.counts.limited;
    assert!((1..150).contains(&limited), "{limited} refused of some 300");
    dispatcher.logged("the target refuses requests of several records").await;
    assert!(dispatcher.metric("lanekeeper_paced").await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_a_limit_slows_down_is_applied_whole_where_the_limit_is_not_stated() {
    a_backlog_is_applied_and_nothing_parked("limited-none", RateLimitFields::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_a_limit_slows_down_is_applied_whole_where_answers_say_when_to_come_again() {
    a_backlog_is_applied_and_nothing_parked("limited-retry-after", RateLimitFields::RetryAfter).await;
}

/// Nothing is refused but what left before the first answer came.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_answers_state_is_kept_before_anything_is_refused() {
    let settings = limited("50/s", RateLimitFields::RateLimit);
    let world = World::with("limited-stated", settings).await;
    let dispatcher = world.dispatcher(&(world.ledger() + HASTY)).await;
    world.publish(updates(50, 6)).await;
    let report = world.applied(300).await;
    assert_in_order(&report, 300);
    let (limited, most) = (report.counts.limited, 4 * 32);
    assert!(limited < most, "{limited} refused, at most {most} were in flight without a permit");
    assert!(dispatcher.metric("lanekeeper_updates_parked_total").await < 0.5);
}

/// Without a ledger: an update that is given up is dead-lettered.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_one_record_ends_its_update_and_slows_no_other() {
    let fail_records = vec!["record-7=429".parse().expect("a failing record")];
    let world =
        World::with("limited-record", ReceiverSettings { fail_records, ..ReceiverSettings::default() }).await;
    let dispatcher = world.dispatcher(&(world.ledger() + HASTY)).await;
    world.publish(updates(50, 4)).await;
    until("the record is parked", || async {
        let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
        if parked > 3.5 { Ok(()) } else { Err(format!("{parked} parked")) }
    })
    .await;
    assert_flawless(&world.applied(196).await, 196);
    assert!(dispatcher.metric("lanekeeper_paced").await < 0.5);
    assert!(dispatcher.metric("lanekeeper_throttled_total").await < 0.5);
}

/// Two processes on four partitions, and a limit of ours; the target has none, and counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_ours_holds_for_all_replicas_together() {
    let world = World::with("limited-ours", limited("1000/s", RateLimitFields::None)).await;
    let replica = |name: &str| {
        let config = world.config(HASTY) + "rate_max = \"20/s\"\nin_flight_max = 4\n";
        let config =
            config.replace("instance.name = \"limited-ours\"", &format!("instance.name = \"{name}\""));
        let path = world.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, config).expect("the config can be written");
        Dispatcher::start(&path)
    };
    let replicas = [replica("one"), replica("two")];
    for replica in &replicas {
        replica.ready().await;
    }
    world.publish(updates(50, 6)).await;
    let report = world.applied(300).await;
    assert_in_order(&report, 300);
    let limit = world.receiver.rate_limit().expect("it counts");
    let seconds: Vec<u64> = (0..=limit.now)
        .filter_map(|second| limit.second(second))
        .map(|counts| counts.accepted + counts.refused)
        .collect();
    let most = seconds.iter().max().copied().unwrap_or_default();
    // A second of the receiver's can hold the burst of one of ours before and after it.
    assert!(most <= 24, "{seconds:?}");
    let busy = seconds.iter().filter(|requests| **requests > 0).count();
    assert!(busy <= 60, "300 updates at 20/s take 15 s and not {busy}");
}

/// One record fills the window, and a firewall refuses it: the others have their turn once its first update has used its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_firewall_refuses_is_parked_and_holds_up_nobody_for_longer() {
    let fail_records = vec!["poison=page-403".parse().expect("a failing record")];
    let world =
        World::with("firewall", ReceiverSettings { fail_records, ..ReceiverSettings::default() }).await;
    let extra = world.ledger() + HASTY + "dispatch.prefetch = 20\ndispatch.in_flight_max = 8\n";
    let dispatcher = world.dispatcher(&extra.replace("partitions = 4", "partitions = 1")).await;
    let poison = (1..=30).map(|sequence| {
        json!({"key": "poison", "id": format!("poison-{sequence}"), "type": "record.updated", "body": {"sequence": sequence}})
    });
    world.publish(poison).await;
    world.publish(updates(10, 5)).await;
    assert_flawless(&world.applied(50).await, 50);
    until("all of it is parked", || async {
        let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
        if parked > 29.5 { Ok(()) } else { Err(format!("{parked} parked")) }
    })
    .await;
    let line = dispatcher.logged("record parked").await;
    assert!(line.contains("poison-1") && line.contains("rejected"), "{line}");
}

/// All are refused, so that nobody's update is at fault: as with a token that was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_all_parks_nothing() {
    let fail_records =
        (0..20).map(|number| format!("record-{number}=403:6s").parse().expect("a failing record"));
    let fail_records = fail_records.collect();
    let world =
        World::with("refused-all", ReceiverSettings { fail_records, ..ReceiverSettings::default() }).await;
    let dispatcher = world.dispatcher(&(world.ledger() + HASTY + "breaker.wait_initial = \"200ms\"\n")).await;
    world.publish(updates(20, 3)).await;
    pace(Duration::from_secs(1)).await;
    assert_flawless(&world.applied(60).await, 60);
    assert!(dispatcher.metric("lanekeeper_updates_parked_total").await < 0.5);
}

/// For longer than an update may be retried.
#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_page_parks_nothing() {
    let world = World::new("maintenance").await;
    let dispatcher = world.dispatcher(&(world.ledger() + HASTY + "breaker.wait_initial = \"200ms\"\n")).await;
    let page = Outage {
        retry_after: Some(Duration::from_secs(1)),
        ..Outage::of_all("page-503".parse().expect("a fault"))
    };
    world.receiver.begin_outage(page);
    world.publish(updates(50, 3)).await;
    pace(Duration::from_secs(5)).await;
    world.receiver.end_outage();
    assert_flawless(&world.applied(150).await, 150);
    assert!(dispatcher.metric("lanekeeper_updates_parked_total").await < 0.5);
}

/// One in ten first attempts gets 429, whatever the rate is.
#[tokio::test(flavor = "multi_thread")]
async fn order_holds_where_requests_are_refused_by_chance() {
    let settings = ReceiverSettings {
        fail_share: 0.1,
        fail_with: vec!["429".parse().expect("a fault")],
        first_attempts_only: true,
        retry_after: Some(Duration::from_millis(500)),
        ..ReceiverSettings::default()
    };
    let world = World::with("limited-by-chance", settings).await;
    let dispatcher = world.dispatcher(&(world.ledger() + HASTY)).await;
    world.publish(updates(20, 20)).await;
    assert_flawless(&world.applied(400).await, 400);
    assert!(dispatcher.metric("lanekeeper_updates_parked_total").await < 0.5);
}
