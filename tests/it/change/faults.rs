//! What can be in the way of a change, and what is said about it.

use std::process::Stdio;
use std::sync::Arc;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use super::{failing, shown, topology, topology_command, wants};
use crate::harness::{World, assert_flawless, assert_in_order, lanekeeper, until, updates};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_holds_a_change_up_is_named_and_the_change_ends_when_it_is_applied() {
    let world = World::with("blocked", failing("record-0=500:20s")).await;
    let _dispatcher = world.dispatcher("updates.partitions = 2\nretry.delay_max = \"1s\"").await;
    world.publish(updates(10, 3)).await;
    world.applied(27).await;
    let applied = topology(&world, &wants(&world, 3), &["apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    assert!(applied.stdout.contains("the record of update \"0-1\" holds 3 updates"), "{}", applied.stdout);
    assert!(applied.stdout.contains("Fix their target"), "{}", applied.stdout);
    world.publish(updates(10, 4).skip(30)).await;
    let report = world.applied(40).await;
    assert_in_order(&report, 40);
}

/// Put straight into the queue of a partition that is drained, while another one still drains.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_comes_after_the_end_of_its_layout_is_left_and_apply_says_so_and_ends() {
    let world = Arc::new(World::with("late", failing("record-0=500:15s")).await);
    let _dispatcher = world.dispatcher("updates.partitions = 2\nretry.delay_max = \"1s\"").await;
    world.publish(updates(10, 1)).await;
    world.applied(9).await;
    let config = wants(&world, 3);
    let applying = {
        let (world, config) = (Arc::clone(&world), config.clone());
        tokio::spawn(async move { topology(&world, &config, &["apply"]).await })
    };
    let queue = until("one of two partitions to be drained", || async {
        let shown = shown(&world, &config).await;
        let layouts = shown["layouts"].as_array().cloned().unwrap_or_default();
        let old = layouts.iter().find(|layout| layout["number"] == 1);
        let rows = old.and_then(|old| old["partitions"].as_array()).cloned().unwrap_or_default();
        let drained = rows.iter().find(|row| row["drained"] == true);
        drained.map(|row| row["queue"].as_str().expect("a name").to_owned()).ok_or(shown.to_string())
    })
    .await;
    let channel = world.channel().await;
    let publishing = channel.basic_publish(
        "".into(),
        queue.as_str().into(),
        BasicPublishOptions::default(),
        b"{}",
        BasicProperties::default().with_delivery_mode(2),
    );
    publishing.await.unwrap();
    let applied = applying.await.unwrap();
    assert_eq!(applied.code, Some(1), "{}{}", applied.stdout, applied.stderr);
    let expected = format!("the queue {queue} of a drained layout holds 1 messages that came after its end");
    assert!(applied.stderr.contains(&expected), "{}", applied.stderr);
    assert_eq!(shown(&world, &config).await["in_force"], 2);
    assert_in_order(&world.applied(10).await, 10);
    // Once it is dealt with, a dispatcher removes the rest.
    channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
    assert_eq!(topology(&world, &config, &["apply"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_else_holds_is_reported_with_what_is_known_of_its_holder() {
    let world = World::new("locked").await;
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let holder = world.channel().await;
    holder.queue_declare("locked.topology.lock".into(), options, FieldTable::default()).await.unwrap();
    let config = wants(&world, 3);
    let applied = topology(&world, &config, &["apply"]).await;
    assert_eq!(applied.code, Some(3), "{}", applied.stdout);
    assert!(
        applied.stderr.contains("the last one to change something was locked, at 20"),
        "{}",
        applied.stderr
    );
    assert_eq!(shown(&world, &config).await["in_force"], 1, "nothing is changed");
}

/// Nobody calls `apply` again: a dispatcher finishes or undoes what was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_brings_to_an_end_what_an_apply_that_was_killed_has_begun() {
    let world = World::new("orphaned").await;
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    let config = wants(&world, 64);
    let mut killed =
        topology_command(&world, &config, &["apply"]).stdout(Stdio::null()).spawn().expect("it starts");
    until("a change to be begun", || async {
        let shown = shown(&world, &config).await;
        let begun = !shown["changing"].is_null() || shown["in_force"] != 1;
        if begun { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    killed.kill().expect("it can be killed");
    killed.wait().expect("it ends");
    world.publish(updates(30, 4)).await;
    until("the change to have an end", || async {
        let shown = shown(&world, &config).await;
        let layouts = shown["layouts"].as_array().expect("a list").len();
        if shown["changing"].is_null() && layouts == 1 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_flawless(&world.applied(120).await, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_with_auto_apply_changes_the_layout_at_its_start() {
    let world = World::new("auto").await;
    let mut before = world.dispatcher("updates.partitions = 2").await;
    before.terminate();
    assert_eq!(before.ended().await, Some(0));
    world.publish(updates(20, 2)).await;
    let management = world.broker.management_url();
    let extra = format!(
        "updates.partitions = 3\nupdates.auto_apply = true\nbroker.management_url = \"{management}\""
    );
    let after = world.dispatcher(&extra).await;
    after.logged("updates.auto_apply changes it as soon as no layout drains").await;
    world.publish(updates(20, 4).skip(40)).await;
    assert_flawless(&world.applied(80).await, 80);
    let config = wants(&world, 3);
    until("the layout that the config wants, alone", || async {
        let shown = shown(&world, &config).await;
        let is_alone = shown["layouts"].as_array().is_some_and(|layouts| layouts.len() == 1);
        if is_alone && shown["in_force"] == 2 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_apply_changes_nothing_while_something_else_is_bound_to_the_ingress() {
    let world = World::new("auto-foreign").await;
    let mut before = world.dispatcher("updates.partitions = 2").await;
    before.terminate();
    assert_eq!(before.ended().await, Some(0));
    let channel = world.channel().await;
    let (foreign, ingress) = ("auto-foreign-audit", "auto-foreign.ingress");
    let none = FieldTable::default;
    channel.queue_declare(foreign.into(), QueueDeclareOptions::default(), none()).await.unwrap();
    let options = QueueBindOptions::default();
    channel.queue_bind(foreign.into(), ingress.into(), "".into(), options, none()).await.unwrap();

    let management = world.broker.management_url();
    let extra = format!(
        "updates.partitions = 3\nupdates.auto_apply = true\nbroker.management_url = \"{management}\""
    );
    let after = world.dispatcher(&extra).await;
    let in_the_way = "the layout is not changed because of this obstacle";
    let expected = after.logged(in_the_way).await;
    for part in ["ERROR", "LK206", foreign, "remedy=\"$ curl"] {
        assert!(expected.contains(part), "{part}: {expected}");
    }
    assert!(!expected.contains("guest:"), "{expected}");
    let config = wants(&world, 3);
    assert_eq!(shown(&world, &config).await["in_force"], 1);
    // It does not keep the lock.
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let lock = "auto-foreign.topology.lock";
    channel.queue_declare(lock.into(), options, none()).await.unwrap();
    channel.queue_delete(lock.into(), QueueDeleteOptions::default()).await.unwrap();
    world.publish(updates(20, 2)).await;
    world.applied(40).await;

    channel.queue_unbind(foreign.into(), ingress.into(), "".into(), none()).await.unwrap();
    until("the layout that the config wants", || async {
        let shown = shown(&world, &config).await;
        if shown["in_force"] == 2 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    after.logged("updates.auto_apply: no obstacle is left").await;
    assert_eq!(after.log().iter().filter(|line| line.contains(in_the_way)).count(), 1, "it is said once");
    world.publish(updates(20, 4).skip(40)).await;
    assert_in_order(&world.applied(80).await, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_is_refused_while_something_is_in_the_way_and_not_where_there_is_nothing_to_do() {
    let world = World::new("refused").await;
    let config = wants(&world, 3);
    let applied = topology(&world, &config, &["apply"]).await;
    assert_eq!(applied.code, Some(3), "{}", applied.stdout);
    assert!(applied.stderr.contains("there is no layout of the exchange refused yet"), "{}", applied.stderr);
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    let channel = world.channel().await;
    let none = FieldTable::default;
    channel.queue_declare("refused-audit".into(), QueueDeclareOptions::default(), none()).await.unwrap();
    let (options, from) = (QueueBindOptions::default(), "refused.ingress");
    channel.queue_bind("refused-audit".into(), from.into(), "".into(), options, none()).await.unwrap();
    let applied = topology(&world, &config, &["apply"]).await;
    assert_eq!(applied.code, Some(1), "{}", applied.stdout);
    assert!(applied.stderr.contains("blocks the change (LK206)"), "{}", applied.stderr);
    assert!(applied.stderr.contains("nothing is changed"), "{}", applied.stderr);
    let plan = topology(&world, &config, &["plan"]).await;
    assert_eq!(plan.code, Some(10));
    assert!(plan.stdout.contains("refuses to while something blocks the change"), "{}", plan.stdout);
    assert_eq!(topology(&world, &wants(&world, 2), &["apply"]).await.code, Some(0), "nothing is to be done");
}

/// As a document does that was published on the smaller side of a split.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_arrives_late_makes_no_second_layout() {
    const STREAM: &str = "late-document.topology";
    let world = World::new("late-document").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 2").await;
    let channel = world.channel().await;
    channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
    let mut from_the_first = FieldTable::default();
    from_the_first.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let options = BasicConsumeOptions::default();
    let mut documents =
        channel.basic_consume(STREAM.into(), "".into(), options, from_the_first).await.unwrap();
    let first = loop {
        let message = documents.next().await.expect("the stream has a document").unwrap();
        message.ack(BasicAckOptions::default()).await.unwrap();
        if message.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == "layout") {
            break message;
        }
    };
    assert_eq!(topology(&world, &wants(&world, 3), &["apply"]).await.code, Some(0));
    let publishing = channel.basic_publish(
        "".into(),
        STREAM.into(),
        BasicPublishOptions::default(),
        &first.data,
        first.properties.clone(),
    );
    publishing.await.unwrap();
    loop {
        let message = documents.next().await.expect("the stream goes on").unwrap();
        message.ack(BasicAckOptions::default()).await.unwrap();
        if message.data == first.data {
            break;
        }
    }
    assert_eq!(shown(&world, &wants(&world, 3)).await["in_force"], 2);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    world.publish(updates(10, 2)).await;
    assert_in_order(&world.applied(20).await, 20);
    assert_eq!(topology(&world, &wants(&world, 4), &["apply"]).await.code, Some(0));
    assert_eq!(shown(&world, &wants(&world, 4)).await["in_force"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_deleted_is_named() {
    let world = World::new("deleted-queue").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let channel = world.channel().await;
    channel.queue_delete("deleted-queue.l1.p001".into(), QueueDeleteOptions::default()).await.unwrap();
    let config = wants(&world, 3);
    let shown = topology(&world, &config, &["show"]).await;
    assert!(shown.stdout.contains("THE QUEUE DOES NOT EXIST"), "{}", shown.stdout);
    let plan = topology(&world, &config, &["plan"]).await;
    assert_eq!(plan.code, Some(10));
    assert!(plan.stdout.contains("deleted-queue.l1.p001 does not exist"), "{}", plan.stdout);
}

/// What is parked goes with the change: later updates follow it from the new layout, and a release sends all in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_parked_before_a_change_goes_out_in_order_after_it() {
    let world = World::with("parked-over", failing("record-0=422:8s")).await;
    let ledger = world.ledger();
    let extra = format!("{ledger}updates.partitions = 2");
    let dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(5, 2)).await;
    world.applied(8).await;
    dispatcher.logged("record parked").await;
    let applied = topology(&world, &wants(&world, 5), &["apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    world.publish(updates(5, 4).skip(10)).await;
    world.applied(16).await;
    until("the target to take the record again", || async {
        let config = dispatcher_config(&world, &extra);
        let released = lanekeeper(&["parked", "release", "--all", "--config", &config], &[], b"");
        let applied = world.receiver.report(0).counts.updates;
        if applied == 20 { Ok(()) } else { Err(format!("{applied} applied; {}", released.stdout)) }
    })
    .await;
    assert_in_order(&world.applied(20).await, 20);
}

fn dispatcher_config(world: &World, extra: &str) -> String {
    let path = world.dir.path().join("operator.toml");
    std::fs::write(&path, world.config(extra)).expect("the config can be written");
    path.display().to_string()
}
