//! Targets that fail: retry, wait, give up, and the other records meanwhile.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;

use crate::harness::{World, assert_flawless, assert_in_order, until, updates};

/// Short waits, so that a test does not last.
const QUICK: &str = "updates.partitions = 2\nretry.delay_initial = \"100ms\"\nretry.delay_max = \"500ms\"";

fn failing(faults: &[&str], share: f64) -> ReceiverSettings {
    ReceiverSettings {
        fail_share: share,
        fail_with: faults.iter().map(|fault| fault.parse().expect("a fault")).collect(),
        ..ReceiverSettings::default()
    }
}

fn failing_record(failure: &str) -> ReceiverSettings {
    let fail_records = vec![failure.parse().expect("a failing record")];
    ReceiverSettings { fail_records, ..ReceiverSettings::default() }
}

/// Reason and detail of every dead letter, as the broker has them.
async fn dead_letters(world: &World, count: usize) -> Vec<(String, String, String)> {
    let channel = world.channel().await;
    let mut letters = Vec::new();
    for _ in 0..count {
        let letter = until("a dead letter", || async {
            let queue = format!("{}.dead", world.exchange);
            let got = channel.basic_get(queue.into(), lapin::options::BasicGetOptions { no_ack: true }).await;
            got.map_err(|error| error.to_string())?.ok_or_else(|| "the queue is empty".to_owned())
        })
        .await;
        let headers = letter.delivery.properties.headers().clone().unwrap_or_default();
        let text = |name: &str| match headers.inner().get(name) {
            Some(lapin::types::AMQPValue::LongString(text)) => text.to_string(),
            other => panic!("{name}: {other:?}"),
        };
        let id = letter.delivery.properties.message_id().as_ref().map(ToString::to_string);
        letters.push((id.unwrap_or_default(), text("lanekeeper-reason"), text("lanekeeper-detail")));
    }
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_when_a_third_of_first_attempts_fail_in_every_way() {
    let settings = ReceiverSettings {
        first_attempts_only: true,
        retry_after: Some(Duration::from_secs(1)),
        hang_for: Duration::from_secs(5),
        ..failing(&["500", "503", "429", "408", "hang"], 0.3)
    };
    let world = World::with("failing", settings).await;
    let extra = "updates.partitions = 8\nretry.delay_initial = \"100ms\"";
    let _dispatcher = world.dispatcher(extra).await;
    world.publish(updates(200, 25)).await;
    let report = world.applied(5_000).await;
    assert_flawless(&report, 5_000);
    assert!(report.counts.failed > 1_000, "{}", report.counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_lies_makes_a_duplicate_but_never_a_reorder() {
    let world = World::with("lies", failing(&["applied-then-500"], 0.3)).await;
    let _dispatcher = world.dispatcher(QUICK).await;
    world.publish(updates(20, 20)).await;
    let report = world.applied(400).await;
    assert_in_order(&report, 400);
    assert!(report.counts.duplicates > 50, "{}", report.counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fails_for_ten_seconds_does_not_delay_the_others() {
    let world = World::with("stuck", failing_record("record-0=503:10s")).await;
    let extra = "updates.partitions = 1\nretry.delay_initial = \"100ms\"\nretry.delay_max = \"500ms\"";
    let _dispatcher = world.dispatcher(extra).await;
    // 2,400 updates of others behind the head of the stuck one: more than the window of 1,000.
    world.publish(updates(25, 100)).await;
    world.applied(2_400).await;
    let stuck = world.receiver.record("record-0").expect("it was tried");
    assert_eq!(stuck.counts.updates, 0, "the others were done before it was");
    assert_flawless(&world.applied(2_500).await, 2_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_us_ends_no_update() {
    // No other record is applied meanwhile, which would make it the fault of this one.
    let world = World::with("refused-target", failing_record("record-0=401:2s")).await;
    let limits = "retry.attempts_max = 1\nretry.elapsed_max = \"1s\"";
    let dispatcher = world.dispatcher(&format!("{QUICK}\n{limits}")).await;
    world.publish(updates(1, 5)).await;
    assert_flawless(&world.applied(5).await, 5);
    dispatcher.logged("the target refuses requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_update_goes_to_the_dead_letter_queue_and_its_record_goes_on() {
    let world = World::with("rejected", failing_record("record-0=422:500ms")).await;
    let _dispatcher = world.dispatcher(QUICK).await;
    world.publish(updates(1, 1)).await;
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters[0].0, "0-1");
    assert_eq!(letters[0].1, "rejected");
    assert!(letters[0].2.contains("status 422"), "{letters:?}");
    until("a record that accepts again", || async {
        world.publish(updates(1, 1)).await;
        match world.receiver.record("record-0") {
            Some(record) if record.counts.updates == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_update_and_a_conflict_are_distinguished() {
    let world = World::with("exhausted", failing_record("record-0=500")).await;
    let _dispatcher = world.dispatcher(&format!("{QUICK}\nretry.attempts_max = 3")).await;
    world.publish(updates(1, 1)).await;
    let letters = dead_letters(&world, 1).await;
    assert_eq!(letters[0].1, "exhausted");
    assert!(letters[0].2.starts_with("after 3 attempts, status 500"), "{letters:?}");

    let world = World::with("conflict", failing_record("record-0=409")).await;
    let _dispatcher = world.dispatcher(QUICK).await;
    world.publish(updates(1, 1)).await;
    assert_eq!(dead_letters(&world, 1).await[0].1, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_policy_holds_the_record_and_nothing_else() {
    let world = World::with("blocking", failing_record("record-0=422:3s")).await;
    let _dispatcher = world.dispatcher(&format!("{QUICK}\nfailure.rejected = \"block\"")).await;
    world.publish(updates(4, 10)).await;
    world.applied(30).await;
    assert_eq!(world.receiver.record("record-0").expect("it was tried").counts.updates, 0);
    assert_flawless(&world.applied(40).await, 40);
}
