//! What is too large to be read never enters memory. The broker dead-letters it as it came, and dispatch goes on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;

use crate::harness::{Broker, World, assert_flawless, publish_raw, until};

const MIB: usize = 1 << 20;

/// A node that takes longer messages and headers than nodes do by default, as its operator may want it to.
fn generous_broker() -> Arc<Broker> {
    static BROKER: OnceLock<Arc<Broker>> = OnceLock::new();
    let settings = "max_message_size = 134217728\nframe_max = 1048576\n";
    Arc::clone(BROKER.get_or_init(|| Arc::new(Broker::start_with(settings, &[]))))
}

/// Publishes one message after the other, as they are.
async fn publish(world: &World, messages: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>) {
    let (url, exchange) = (world.broker.url().to_owned(), world.exchange.clone());
    let publishing = move || {
        for (key, headers, body) in messages {
            publish_raw(&url, &exchange, &key, &headers, &body);
        }
    };
    tokio::task::spawn_blocking(publishing).await.expect("it does not panic");
}

/// The update that comes after so many others of its record.
fn update(key: &str, sequence: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    (key.into(), Vec::new(), format!("{{\"sequence\":{sequence}}}").into_bytes())
}

/// A header of so many bytes.
fn header(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).expect("it fits").to_be_bytes();
    [b"\x01xS".as_slice(), &length, &vec![b'x'; bytes]].concat()
}

async fn dead_letters(world: &World, channel: &Channel, expected: u32) {
    until(&format!("{expected} dead letters"), || async {
        match world.waiting(channel, "dead").await {
            count if count == expected => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

/// Takes a dead letter. The broker wrote it, since nobody here has read what is in it.
async fn take(world: &World, channel: &Channel) -> Delivery {
    let got = channel.basic_get(format!("{}.dead", world.exchange).into(), BasicGetOptions { no_ack: true });
    let letter = got.await.expect("the broker answers").expect("there is one").delivery;
    let headers = letter.properties.headers().clone().unwrap_or_default();
    assert!(!headers.inner().contains_key("lanekeeper-reason"), "{headers:?}");
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("{headers:?}") };
    let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first() else { panic!("{deaths:?}") };
    let text = |name: &str| match death.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(text("reason"), "rejected");
    assert_eq!(text("queue"), format!("{}.l1.p000", world.exchange));
    letter
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_two_gigabytes_are_dead_lettered_by_a_process_with_a_quarter_of_one() {
    const LARGE: usize = 20;
    let world = World::on(generous_broker(), "large", ReceiverSettings::default()).await;
    let dispatcher = world.dispatcher("updates.partitions = 1").await;
    let before = dispatcher.memory().now_mb;
    let large =
        |n: usize| (format!("large-{n}").into_bytes(), Vec::new(), vec![u8::try_from(n).unwrap(); 100 * MIB]);
    for n in 0..LARGE {
        let sequence = u64::try_from(n).unwrap() + 1;
        publish(&world, vec![update("good", sequence), large(n)]).await;
    }
    publish(&world, vec![update("good", 21)]).await;
    assert_flawless(&world.applied(21).await, 21);
    let channel = world.channel().await;
    dead_letters(&world, &channel, 20).await;
    let peak = dispatcher.memory().peak_mb;
    assert!(peak < 256.0, "{before} MiB before, {peak} MiB at most");
    let line = dispatcher.logged("body_too_large").await;
    assert!(line.contains("WARN"), "{line}");
    let letter = take(&world, &channel).await;
    let (key, _, body) = large(0);
    assert_eq!(letter.routing_key.as_str().as_bytes(), key);
    assert!(letter.data == body, "the body is as it was published");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_too_large_is_acked_with_the_updates_around_it() {
    for (exchange, strict) in [("around", ""), ("around-strict", "\ndispatch.in_flight_max = 1")] {
        let world = World::new(exchange).await;
        let config = format!("updates.partitions = 1\nupdates.body_bytes_max = 1000{strict}");
        let mut dispatcher = world.dispatcher(&config).await;
        let large = |n: usize| (b"large".to_vec(), Vec::new(), vec![b'x'; 1001 + n]);
        let messages = (0..50).flat_map(|n| {
            let sequence = u64::try_from(n).unwrap() + 1;
            [update("good", sequence), large(n)]
        });
        publish(&world, messages.collect()).await;
        assert_flawless(&world.applied(50).await, 50);
        let channel = world.channel().await;
        dead_letters(&world, &channel, 50).await;
        for n in 0..50 {
            assert_eq!(take(&world, &channel).await.data.len(), 1001 + n, "in the order in which they came");
        }
        dispatcher.terminate();
        assert_eq!(dispatcher.ended().await, Some(0));
        assert_eq!(world.waiting(&channel, "l1.p000").await, 0, "nothing came back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_does_not_wait_for_an_older_update_and_survives_a_kill() {
    let settings = ReceiverSettings { latency: Duration::from_secs(30), ..ReceiverSettings::default() };
    let world = World::with("behind", settings).await;
    let config = "updates.partitions = 1\nupdates.body_bytes_max = 1000";
    let mut first = world.dispatcher(config).await;
    publish(&world, vec![update("slow", 1), (b"large".to_vec(), Vec::new(), vec![b'x'; 2000])]).await;
    let channel = world.channel().await;
    dead_letters(&world, &channel, 1).await;
    first.kill();
    let second = world.dispatcher(config).await;
    until("a second request of the slow update", || async {
        match world.receiver.report(0).counts.requests {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert_eq!(world.waiting(&channel, "dead").await, 1, "neither lost nor twice");
    assert_eq!(take(&world, &channel).await.data, vec![b'x'; 2000]);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_longer_than_a_frame_are_read_and_those_far_longer_dead_lettered() {
    let world = World::on(generous_broker(), "long-headers", ReceiverSettings::default()).await;
    let dispatcher = world.dispatcher("updates.partitions = 1").await;
    let key = b"good".to_vec();
    let messages = vec![
        (key.clone(), header(200_000), b"{\"sequence\":1}".to_vec()),
        (b"large".to_vec(), header(600_000), b"{}".to_vec()),
        (key, header(10), b"{\"sequence\":2}".to_vec()),
    ];
    publish(&world, messages).await;
    assert_flawless(&world.applied(2).await, 2);
    let channel = world.channel().await;
    dead_letters(&world, &channel, 1).await;
    let letter = take(&world, &channel).await;
    assert_eq!((letter.routing_key.as_str(), letter.data.as_slice()), ("large", b"{}".as_slice()));
    let headers = letter.properties.headers().clone().unwrap_or_default();
    match headers.inner().get("x") {
        Some(AMQPValue::LongString(text)) => assert_eq!(text.as_bytes().len(), 600_000),
        other => panic!("{other:?}"),
    }
    dispatcher.logged("properties_too_large").await;
    assert!(!dispatcher.log().iter().any(|line| line.contains("lost")), "{:?}", dispatcher.log());
}
