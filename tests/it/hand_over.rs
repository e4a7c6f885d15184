//! Several replicas on one broker: who owns what, and how a partition goes from one to another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lanekeeper_core::layout::{PartitionNumber, rank};
use lanekeeper_lab::receiver::{FailingRecord, Receiver, ReceiverSettings};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout;

use crate::harness::{
    Broker, Dispatcher, Signal, World, assert_flawless, assert_in_order, pace, until, updates,
};

/// How long a delivery may take to come.
const PATIENCE: Duration = Duration::from_secs(180);

fn slow(latency: Duration) -> ReceiverSettings {
    ReceiverSettings { latency, latency_jitter: 0.5, ..ReceiverSettings::default() }
}

/// A replica of this name, attached to all partitions.
async fn replica(world: &World, name: &str, extra: &str) -> Dispatcher {
    let config = world
        .config(extra)
        .replace(&format!("instance.name = \"{}\"", world.exchange), &format!("instance.name = \"{name}\""));
    let path = world.dir.path().join(format!("{name}.toml"));
    std::fs::write(&path, config).expect("the config can be written");
    let replica = Dispatcher::start(&path);
    replica.ready().await;
    replica
}

/// The partitions that a replica owns, by its own account.
async fn owned(replica: &Dispatcher) -> BTreeSet<String> {
    let text = replica.metrics().await;
    let active = |line: &str| {
        let rest = line.strip_prefix("lanekeeper_partition_active{layout=\"1\",partition=\"")?;
        let (partition, value) = rest.split_once("\"} ")?;
        (value == "1").then(|| partition.to_owned())
    };
    text.lines().filter_map(active).collect()
}

/// The replica of these two that is to have the partition, where the broker heeds priorities.
fn preferred<'a>(one: &'a str, two: &'a str, partition: PartitionNumber) -> &'a str {
    if rank(one, partition) > rank(two, partition) { one } else { two }
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_of_two_replicas_cost_neither_a_duplicate_nor_an_overlap() {
    const EXTRA: &str = "updates.partitions = 4\nbroker.heartbeat = \"5s\"";
    let world = Arc::new(World::with("rolling", slow(Duration::from_millis(10))).await);
    let mut replicas = [replica(&world, "one", EXTRA).await, replica(&world, "two", EXTRA).await];
    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(200, 60)).await });
    for restart in 0..6 {
        world.applied(1_500 * (restart + 1)).await;
        let (place, name) = [(0, "one"), (1, "two")][usize::try_from(restart).expect("it is small") % 2];
        replicas[place].terminate();
        assert_eq!(replicas[place].ended().await, Some(0));
        replicas[place] = replica(&world, name, EXTRA).await;
    }
    publishing.await.expect("it does not panic");
    let report = world.applied(12_000).await;
    assert_flawless(&report, 12_000);
    assert_eq!(report.counts.disconnected, 0, "attempts in flight were finished");
    assert_eq!(report.counts.older_tenures, 0, "tenure numbers grow from owner to owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_drained_to_a_replica_that_joins_and_before_rabbitmq_4_it_stands_by() {
    const EXTRA: &str = "updates.partitions = 8\ndispatch.in_flight_max = 4";
    let world = Arc::new(World::with("joins", slow(Duration::from_millis(20))).await);
    let one = replica(&world, "one", EXTRA).await;
    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(200, 50)).await });
    world.applied(1_000).await;
    let two = replica(&world, "two", EXTRA).await;
    let all = || (0..8).map(PartitionNumber);
    let expected: (BTreeSet<_>, BTreeSet<_>) = if world.broker.moves_partitions() {
        all().partition(|partition| preferred("one", "two", *partition) == "one")
    } else {
        (all().collect(), BTreeSet::new())
    };
    let named = |partitions: &BTreeSet<PartitionNumber>| partitions.iter().map(ToString::to_string).collect();
    let expected = (named(&expected.0), named(&expected.1));
    until(&format!("the partitions to be owned as in {expected:?}"), || async {
        let seen = (owned(&one).await, owned(&two).await);
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert!(world.receiver.report(0).counts.updates < 10_000, "it was under load");
    publishing.await.expect("it does not panic");
    let report = world.applied(10_000).await;
    assert_flawless(&report, 10_000);
    assert_eq!(report.counts.disconnected, 0, "attempts in flight were finished");
    assert_eq!(report.counts.older_tenures, 0, "tenure numbers grow from owner to owner");
    assert_eq!((owned(&one).await, owned(&two).await), expected, "and nothing moved back");
}

/// The broker moves a partition only when the old owner holds nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_waits_between_attempts_does_not_hold_up_the_move_of_its_partition() {
    const EXTRA: &str = "updates.partitions = 1\ndispatch.drain_timeout = \"2s\"\n\
                         retry.delay_initial = \"10m\"\nretry.delay_max = \"10m\"";
    let outage = Duration::from_secs(1);
    let failing: FailingRecord = "record-0=500:1s".parse().expect("a failing record");
    let settings = ReceiverSettings { fail_records: vec![failing], ..slow(Duration::from_millis(5)) };
    let world = World::with("waits", settings).await;
    let preferred = preferred("one", "two", PartitionNumber(0));
    let outranked = if preferred == "one" { "two" } else { "one" };
    let mut old = replica(&world, outranked, EXTRA).await;
    world.publish(updates(10, 10)).await;
    // Those of the other records; record 0 waits for ten minutes.
    world.applied(90).await;
    pace(outage).await;
    let new = replica(&world, preferred, EXTRA).await;
    if world.broker.moves_partitions() {
        old.logged("yielding the partition").await;
    } else {
        world.publish([serde_json::json!({"key": "other", "id": "other-1", "body": {"sequence": 1}})]).await;
        world.applied(91).await;
        assert!(
            !old.log().iter().any(|line| line.contains("yielding the partition")),
            "nobody would take it"
        );
        old.terminate();
        assert_eq!(old.ended().await, Some(0));
    }
    new.logged("partition owned").await;
    let updates = if world.broker.moves_partitions() { 100 } else { 101 };
    let report = world.applied(updates).await;
    assert_flawless(&report, updates);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
}

/// The whole of the fence. Every permit is used by a request that the receiver has, so that nothing else is on its way
/// when the owner is stopped; going on, it finds the answers, and lanes that are ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_owner_that_goes_on_starts_nothing_after_the_standby_has_begun() {
    const EXTRA: &str = "updates.partitions = 1\nbroker.heartbeat = \"5s\"\ndispatch.in_flight_max = 5";
    let settings = ReceiverSettings { latency: Duration::from_millis(300), ..ReceiverSettings::default() };
    let world = World::with("stopped", settings).await;
    let owner = replica(&world, "owner", EXTRA).await;
    let standby = replica(&world, "standby", EXTRA).await;
    world.publish(updates(15, 10)).await;
    world.applied(30).await;
    until("five requests in progress", || async {
        match world.receiver.report(0).in_progress {
            5 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    owner.signal(Signal::STOP);
    let stopped = Instant::now();
    // Its channel is closed by the broker after some two and a half heartbeats.
    standby.logged("partition owned").await;
    let before = world.receiver.report(0).counts.updates;
    world.applied(before + 10).await;
    until("15 seconds", || async {
        let elapsed = stopped.elapsed();
        if elapsed >= Duration::from_secs(15) { Ok(()) } else { Err(format!("{elapsed:?}")) }
    })
    .await;
    owner.signal(Signal::CONT);
    owner.logged("partition lost").await;
    let report = world.applied(150).await;
    assert_in_order_but_for_what_was_under_way(&report, 150);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
}

/// What the owner had in flight when it was stopped may be sent again by the standby while it lies there.
#[track_caller]
fn assert_in_order_but_for_what_was_under_way(report: &lanekeeper_lab::receiver::Report, updates: u64) {
    let counts = &report.counts;
    assert_eq!(
        (counts.updates, counts.reorders, counts.gaps, counts.outdated),
        (updates, 0, 0, 0),
        "{counts}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_holds_an_update_for_too_long_steps_back_and_goes_on_counting() {
    let failing: FailingRecord = "record-0=500:6s".parse().expect("a failing record");
    let settings = ReceiverSettings { fail_records: vec![failing], ..slow(Duration::from_millis(5)) };
    let world = World::with("held", settings).await;
    let extra = "updates.partitions = 1\nbroker.heartbeat = \"1s\"\ndispatch.held_max = \"2s\"\nretry.delay_max = \"500ms\"";
    let dispatcher = world.dispatcher(extra).await;
    world.publish(updates(10, 20)).await;
    let report = world.applied(200).await;
    assert_flawless(&report, 200);
    dispatcher.logged("yielding the partition").await;
    assert!(dispatcher.metric("lanekeeper_step_backs_total").await >= 2.0);
    // Six seconds of a wait of half a second at most: counted on, the attempts of record 0 would be some fifteen.
    let requests = world.receiver.record("record-0").expect("it was sent").counts.requests;
    assert!((10..60).contains(&requests), "{requests} requests");
}

/// A consumer that is not ours held the oldest update, and gives it back late: the broker puts it behind newer ones, with a
/// count that is higher than theirs.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_gives_back_late_does_not_keep_the_others_from_flowing() {
    const EXTRA: &str = "updates.partitions = 1\nbroker.heartbeat = \"2s\"";
    let world = World::new("given-back").await;
    let mut first = replica(&world, "first", EXTRA).await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    let channel = world.channel().await;
    channel.basic_qos(1, BasicQosOptions::default()).await.expect("the broker takes it");
    let queue = format!("{}.l1.p000", world.exchange);
    let (tag, options) = ("somebody else".into(), BasicConsumeOptions::default());
    // From RabbitMQ 4 on, the broker would give the partition to a process otherwise.
    let mut preferred = FieldTable::default();
    preferred.insert("x-priority".into(), AMQPValue::LongInt(i32::MAX));
    let consumer = channel.basic_consume(queue.as_str().into(), tag, options, preferred).await;
    let mut consumer = consumer.expect("it consumes");
    let _one = replica(&world, "one", EXTRA).await;
    let _other = replica(&world, "other", EXTRA).await;
    world.publish(updates(5, 1)).await;
    // The first process can have left a witness, which is no update.
    loop {
        let delivery = timeout(PATIENCE, consumer.next()).await.expect("the broker prefers it");
        let delivery = delivery.expect("it is handed over").expect("a delivery");
        if delivery.routing_key.as_str().starts_with("record-") {
            break;
        }
        delivery.acker.ack(BasicAckOptions::default()).await.expect("it is settled");
    }
    #[expect(clippy::disallowed_methods, reason = "somebody else does what is wrong here")]
    let cancelling = channel.basic_cancel("somebody else".into(), BasicCancelOptions::default());
    cancelling.await.expect("it is cancelled");
    channel.close(200, "normal shutdown".into()).await.expect("it is closed");
    assert_in_order(&world.applied(5).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_dies_is_followed_at_once() {
    const EXTRA: &str = "updates.partitions = 4";
    let world = World::with("dies", slow(Duration::from_millis(5))).await;
    let mut owner = replica(&world, "owner", EXTRA).await;
    let standby = replica(&world, "standby", EXTRA).await;
    world.publish(updates(100, 20)).await;
    world.applied(300).await;
    owner.kill();
    standby.logged("partition owned").await;
    let report = world.applied(2_000).await;
    assert_in_order(&report, 2_000);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_read_back_from_a_stream_of_members_that_was_deleted_and_recreated() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "anew", slow(Duration::from_millis(5))).await;
    let one = replica(&world, "one", "updates.partitions = 4").await;
    let all: Vec<_> = updates(40, 10).collect();
    for (round, lines) in (1..).zip(all.chunks(100)) {
        world.publish(lines.iter().cloned()).await;
        world.applied(100 * round).await;
        if round == 3 {
            let options = QueueDeleteOptions::default();
            world.channel().await.queue_delete("anew.members".into(), options).await.expect("it is there");
        }
        // The partitions are claimed anew each time: the stream grows longer than the next one is soon.
        let node = Arc::clone(&broker);
        let closing = move || node.ctl(&["close_all_connections", "by hand"]);
        tokio::task::spawn_blocking(closing).await.expect("it does not panic");
    }
    assert_flawless(&world.applied(400).await, 400);
    one.logged("somebody deleted the stream of members").await;
}

/// Both targets go on working when their client is gone, as most applications do. What the owner sent has to end before
/// anything of it is sent again. Records that it had sent nothing of do not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_leaves_no_request_that_the_next_one_overlaps() {
    const SLOW_TIMEOUT: Duration = Duration::from_secs(8);
    const EXTRA: &str = "updates.partitions = 4\nbroker.heartbeat = \"2s\"";
    let working = |latency, timeout| ReceiverSettings { finish_abandoned: Some(timeout), ..slow(latency) };
    let world = World::with("killed", working(Duration::from_millis(200), Duration::from_secs(1))).await;
    let slow_target = Receiver::new(working(SLOW_TIMEOUT / 2, SLOW_TIMEOUT));
    let address = slow_target.spawn().await.expect("a port is free");
    let targets = world.config(EXTRA).replace("types = [\"*\"]", "types = [\"record.*\"]");
    let config = |name: &str| {
        let named = format!("instance.name = \"{name}\"");
        targets.replace("instance.name = \"killed\"", &named)
            + &format!(
                "\n[[target]]\nname = \"slow\"\ntypes = [\"slow.*\"]\nmethod = \"PUT\"\n\
                 url = \"http://{address}/records/{{record_key}}\"\ntimeout = \"8s\"\n"
            )
    };
    let replica = async |name: &str| {
        let path = world.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, config(name)).expect("the config can be written");
        let replica = Dispatcher::start(&path);
        replica.ready().await;
        replica
    };
    let mut owner = replica("owner").await;
    let standby = replica("standby").await;
    let slow_update = |record: usize| {
        let key = format!("slow-{record}");
        serde_json::json!({"key": key, "id": key, "type": "slow.updated", "body": {"sequence": 1}})
    };
    world.publish((0..10).map(slow_update).chain(updates(100, 20))).await;
    world.applied(300).await;
    owner.kill();
    let killed = Instant::now();
    standby.logged("partition owned").await;
    world
        .publish((0..100).map(|record| {
            serde_json::json!({
                "key": format!("fresh-{record}"), "id": format!("fresh-{record}"), "type": "record.updated",
                "body": {"sequence": 1},
            })
        }))
        .await;
    until("a fresh record to be applied", || async {
        world.receiver.record("fresh-0").map(drop).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(killed.elapsed() < SLOW_TIMEOUT, "fresh records do not wait for what may be at work");
    let fast = world.applied(2_100).await;
    assert_in_order(&fast, 2_100);
    until("the updates of the slow target", || async {
        let report = slow_target.report(0);
        if report.counts.updates == 10 && report.in_progress == 0 {
            Ok(())
        } else {
            Err(report.counts.to_string())
        }
    })
    .await;
    let slow = slow_target.report(0);
    assert_in_order(&slow, 10);
    assert_eq!(fast.counts.older_tenures + slow.counts.older_tenures, 0, "{}", slow.counts);
}

/// Its way to the target is lost, and RabbitMQ sees nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_reach_its_target_gives_its_partitions_to_one_that_does() {
    let world = World::new("reach").await;
    let nowhere = "http://127.0.0.1:9"; // discard: nobody listens
    let config = |name: &str, target: &str| {
        let extra = format!("{}updates.partitions = 2\nbroker.heartbeat = \"2s\"\n", world.ledger());
        let config = world.config(&extra).replace(&world.target, target);
        config.replace("instance.name = \"reach\"", &format!("instance.name = \"{name}\""))
    };
    let start = |name: &str, target: &str| {
        let path = world.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, config(name, target)).expect("the config can be written");
        Dispatcher::start(&path)
    };
    // The broker prefers it, if it prefers any: it has to go to the end of the line.
    let mut names = ["one", "two"];
    names.sort_by_key(|name| std::cmp::Reverse(rank(name, PartitionNumber(0))));
    let lost = start(names[0], nowhere);
    lost.ready().await;
    world.publish(updates(10, 3)).await;
    let other = start(names[1], &world.target);
    other.ready().await;
    // It waits for a minute before it gives up, and so does a wait of this suite.
    let began = Instant::now();
    until("most of a minute", || async {
        let elapsed = began.elapsed();
        if elapsed >= Duration::from_secs(45) { Ok(()) } else { Err(format!("{elapsed:?}")) }
    })
    .await;
    lost.logged("another replica reaches them").await;
    let report = world.applied(30).await;
    assert_in_order(&report, 30);
    assert_eq!(report.counts.duplicates, 0, "{}", report.counts);
}
