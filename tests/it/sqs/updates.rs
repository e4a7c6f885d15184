//! What becomes of an update: its request, its end, and its place in the ledger.

use std::time::Instant;

use lanekeeper_lab::receiver::{FailingRecord, ReceiverSettings};
use serde_json::json;

use super::SqsWorld;
use crate::harness::{
    Dispatcher, Signal, StandIn, assert_flawless, assert_in_order, lanekeeper, until, updates,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_no_target_will_have_goes_to_the_other_queue_as_it_came() {
    let world = SqsWorld::new().await;
    let types = world.config("one", "").replace("types = [\"*\"]", "types = [\"customer.*\"]");
    let path = world.dir.path().join("typed.toml");
    std::fs::write(&path, types).expect("the config can be written");
    let dispatcher = Dispatcher::start(&path);
    dispatcher.ready().await;
    let line = |id: &str, update_type: &str, sequence: u64| json!({"key": "a", "id": id, "type": update_type, "body": {"sequence": sequence}});
    world
        .send([
            line("u1", "customer.updated", 1),
            line("u2", "order.paid", 0),
            line("u3", "customer.updated", 2),
        ])
        .await;
    assert_flawless(&world.applied(2).await, 2);
    let dead = world.dead_letter().await;
    let attributes = dead.message_attributes().expect("it has some");
    let text = |name: &str| {
        attributes.get(name).and_then(|value| value.string_value()).unwrap_or_default().to_owned()
    };
    assert_eq!(text("lanekeeper-reason"), "no_target");
    assert!(text("lanekeeper-detail").contains("order.paid"), "{}", text("lanekeeper-detail"));
    assert_eq!((text("update-id").as_str(), text("type").as_str()), ("u2", "order.paid"));
    assert!(text("lanekeeper-original").contains("message_id"));
    assert_eq!(dead.body(), Some("{\"sequence\":0}"));
    until("an empty queue", || async {
        match world.left(&world.queue).await {
            0 => Ok(()),
            left => Err(left.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_sees_the_sequence_number_and_no_tenure() {
    let world = SqsWorld::new().await;
    let target = StandIn::start(|_| (200, String::new())).await;
    let config = world.config("one", "").replace(&world.target, &format!("http://{}", target.address()));
    let path = world.dir.path().join("stand-in.toml");
    std::fs::write(&path, config).expect("the config can be written");
    let dispatcher = Dispatcher::start(&path);
    dispatcher.ready().await;
    world.send(updates(1, 3)).await;
    until("three requests", || async {
        let seen = target.seen();
        if seen.len() == 3 { Ok(()) } else { Err(seen.len().to_string()) }
    })
    .await;
    let numbers: Vec<u128> = target
        .seen()
        .iter()
        .map(|request| {
            assert!(request.header("lanekeeper-tenure").is_none());
            request.header("lanekeeper-sequence").expect("it is sent").parse().expect("it is a number")
        })
        .collect();
    assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_parked_waits_until_a_person_releases_it() {
    let failing: FailingRecord = "record-1=422:3s".parse().expect("it is one");
    let settings = ReceiverSettings { fail_records: vec![failing], ..ReceiverSettings::default() };
    let world = SqsWorld::with(settings).await;
    let ledger = format!("ledger.url = \"sqlite://{}\"\n", world.dir.path().join("ledger.db").display());
    let dispatcher = world.dispatcher(&ledger).await;
    world.send(updates(3, 10)).await;
    // Two records get through, and the updates of the third are in the ledger: the queue holds nothing of them.
    world.applied(20).await;
    world.emptied().await;
    until("ten updates parked", || async {
        let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
        if parked > 9.5 { Ok(()) } else { Err(parked.to_string()) }
    })
    .await;
    let config = world.dir.path().join("one.toml").to_str().expect("a plain name").to_owned();
    let command = move |words: &'static [&'static str]| {
        let config = config.clone();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = words.iter().copied().chain(["--config", &config]).collect();
            lanekeeper(&arguments, &[], b"")
        })
    };
    let listed = command(&["parked", "list"]).await.expect("it does not panic");
    assert!(
        listed.code == Some(0) && listed.stdout.contains("record-1"),
        "{}{}",
        listed.stdout,
        listed.stderr
    );
    // The receiver fails the record for three seconds from its first request on.
    until("the record's fault is over", || async {
        // It says so if nothing is parked at this moment.
        let released = command(&["parked", "release", "record-1"]).await.expect("no panic");
        assert!(matches!(released.code, Some(0 | 1)), "{}", released.stderr);
        let updates = world.receiver.report(0).counts.updates;
        if updates == 30 { Ok(()) } else { Err(format!("{updates} applied")) }
    })
    .await;
    assert_in_order(&world.applied(30).await, 30);

    // Other commands say that they are for RabbitMQ.
    for words in [&["topology", "show"][..], &["status"], &["doctor"]] {
        let said = command(match words {
            ["topology", "show"] => &["topology", "show"],
            ["status"] => &["status"],
            _ => &["doctor"],
        })
        .await
        .expect("no panic");
        assert!(said.code == Some(2) && said.stderr.contains("RabbitMQ alone"), "{words:?}: {}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_back_what_waits_at_once() {
    let failing: FailingRecord = "record-1=503".parse().expect("it is one");
    let settings = ReceiverSettings { fail_records: vec![failing], ..ReceiverSettings::default() };
    let world = SqsWorld::with(settings).await;
    let mut one = world
        .dispatcher("retry.delay_initial = \"50ms\"\nretry.delay_max = \"200ms\"\nbreaker.enabled = false\n")
        .await;
    world.send(updates(2, 5)).await;
    world.applied(5).await;
    one.signal(Signal::TERM);
    assert_eq!(one.ended().await, Some(0));
    // The visibility timeout is 10 s: without giving back, nobody would get them before.
    let begun = Instant::now();
    let visible = || async {
        let asked = world.client.receive_message().queue_url(&world.queue).max_number_of_messages(10);
        asked.send().await.expect("the queue answers").messages.unwrap_or_default().len()
    };
    until("five messages", || async {
        let messages = visible().await;
        if messages == 5 { Ok(()) } else { Err(messages.to_string()) }
    })
    .await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_is_applied_and_the_process_is_ready_again() {
    let world = SqsWorld::new().await;
    let dispatcher = world.dispatcher("").await;
    world.send(updates(3, 5)).await;
    world.applied(15).await;
    let config = world.config("one", "retry.jitter = 0.1\n");
    std::fs::write(world.dir.path().join("one.toml"), config).expect("the config can be written");
    dispatcher.signal(Signal::HUP);
    let line = dispatcher.logged("the config has changed, and is in force").await;
    assert!(line.contains("retry.jitter"), "{line}");
    dispatcher.ready().await;
    world.send(updates(3, 10).filter(|line| line["body"]["sequence"].as_u64() > Some(5))).await;
    assert_flawless(&world.applied(30).await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_mix_or_keep_no_order_is_refused() {
    let world = SqsWorld::new().await;
    let ledger = format!("ledger.url = \"sqlite://{}\"\n", world.dir.path().join("ledger.db").display());
    let mut one = world.dispatcher(&ledger).await;
    // A file has no row locks: only one process may use it.
    let mut second = world.start("second", &ledger);
    assert_eq!(second.ended().await, Some(4));
    assert!(second.log().concat().contains("another lanekeeper uses this ledger"), "{:?}", second.log());
    one.signal(Signal::TERM);
    assert_eq!(one.ended().await, Some(0));
    let other = super::create(&world.client, "other.fifo").await;
    let path = world.dir.path().join("other.toml");
    let config = world.config("other", &ledger).replace(&world.queue, &other);
    std::fs::write(&path, config).expect("the config can be written");
    let mut refused = Dispatcher::start(&path);
    assert_eq!(refused.ended().await, Some(4));
    let log = refused.log().concat();
    assert!(log.contains("this ledger belongs to the SQS queue") && log.contains("--adopt-ledger"), "{log}");
    let mut adopting = Dispatcher::start_with(&path, &["--adopt-ledger"]);
    adopting.ready().await;
    adopting.signal(Signal::TERM);
    assert_eq!(adopting.ended().await, Some(0));
}
