//! Deliveries that cannot be updates, and record keys that try to be something else. They never block, never vanish.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use crate::harness::{World, assert_flawless, publish_raw, until};

const CONFIG: &str = "updates.partitions = 1\nupdates.body_bytes_max = 1000";

async fn publish(
    world: &World,
    channel: &Channel,
    key: ShortString,
    properties: BasicProperties,
    body: &[u8],
) {
    let (exchange, options) = (world.exchange.as_str().into(), BasicPublishOptions::default());
    channel.basic_publish(exchange, key, options, body, properties).await.expect("it is sent");
}

fn with_headers(headers: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    BasicProperties::default().with_message_id("id-1".into()).with_headers(table)
}

/// Publishes one delivery and a good update behind it: the first is dead-lettered for this reason, the second applied.
async fn check(
    world: &World,
    n: &mut u64,
    key: ShortString,
    properties: BasicProperties,
    body: &[u8],
    reason: &str,
) {
    let channel = world.channel().await;
    publish(world, &channel, key.clone(), properties, body).await;
    let letter = dead_letter(world, &channel, n, reason).await;
    assert_eq!(letter.routing_key, key, "{reason}: the routing key is as it came");
    assert_eq!(letter.data, body, "{reason}: the body is as it came");
}

/// The dead letter, for this reason, of what was just published. A good update behind it is applied.
async fn dead_letter(world: &World, channel: &Channel, n: &mut u64, reason: &str) -> Delivery {
    *n += 1;
    let good = BasicProperties::default().with_message_id(format!("good-{n}").into());
    publish(world, channel, "good".into(), good, format!("{{\"sequence\":{n}}}").as_bytes()).await;
    let letter = until(&format!("the dead letter of {reason}"), || async {
        let queue = format!("{}.dead", world.exchange);
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
        got.map_err(|error| error.to_string())?.ok_or_else(|| "the queue is empty".to_owned())
    })
    .await
    .delivery;
    let headers = letter.properties.headers().clone().unwrap_or_default();
    let header = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{reason}: {name} is {other:?}"),
    };
    assert_eq!(header("lanekeeper-reason"), reason, "{}", header("lanekeeper-detail"));
    assert!(!header("lanekeeper-detail").is_empty());
    assert_eq!(header("lanekeeper-partition"), "p000");
    world.applied(*n).await;
    letter
}

fn bytes_of(letter: &Delivery, header: &str) -> Vec<u8> {
    let headers = letter.properties.headers().clone().unwrap_or_default();
    match headers.inner().get(header) {
        Some(AMQPValue::ByteArray(bytes)) => bytes.as_slice().to_vec(),
        other => panic!("{header} is {other:?}"),
    }
}

/// Publishes what the client would not: bytes that are not UTF-8.
async fn raw(world: &World, key: &'static [u8], headers: Vec<u8>, body: &'static [u8]) {
    let (url, exchange) = (world.broker.url().to_owned(), world.exchange.clone());
    let publishing = move || publish_raw(&url, &exchange, key, &headers, body);
    tokio::task::spawn_blocking(publishing).await.expect("it does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_update_is_dead_lettered_with_its_reason_and_others_flow() {
    let world = World::new("malformed").await;
    let config = world.config(CONFIG).replace("types = [\"*\"]", "types = [\"customer.*\", \"*\"]");
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    let long = |text: &str| AMQPValue::LongString(text.into());
    let id = || BasicProperties::default().with_message_id("id-1".into());
    let n = &mut 0;
    check(&world, n, "".into(), id(), b"{}", "no_record_key").await;
    raw(&world, b"\xff\xfex", Vec::new(), b"{}").await;
    let letter = dead_letter(&world, &world.channel().await, n, "record_key_not_utf8").await;
    assert_eq!(letter.routing_key.as_str(), "\u{1a}\u{1a}x");
    assert_eq!(bytes_of(&letter, "lanekeeper-original-routing-key"), b"\xff\xfex");
    assert_eq!(letter.data, b"{}");
    let copies = AMQPValue::FieldArray(vec![long("other")].into());
    check(&world, n, "key".into(), with_headers(&[("CC", copies)]), b"{}", "carbon_copy").await;
    let unfit = BasicProperties::default().with_message_id("é".into());
    check(&world, n, "key".into(), unfit, b"{}", "update_id_unfit").await;
    let nested = AMQPValue::FieldTable(FieldTable::default());
    check(&world, n, "key".into(), with_headers(&[("cloudEvents_source", nested)]), b"{}", "header_unfit")
        .await;
    let unsendable = BasicProperties::default().with_content_type("text/\u{7}plain".into());
    check(&world, n, "key".into(), unsendable, b"{}", "header_unfit").await;
    assert_eq!(world.receiver.report(0).counts.updates, *n, "nothing malformed was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_a_target_or_without_a_demanded_id_is_dead_lettered() {
    let world = World::new("no-target").await;
    let config = world.config("updates.partitions = 1\nupdates.require_id = true");
    let dispatcher = world.start(&config.replace("types = [\"*\"]", "types = [\"good.*\"]"));
    dispatcher.ready().await;
    let channel = world.channel().await;
    let named = |kind: &str| BasicProperties::default().with_type(kind.into());
    publish(&world, &channel, "a".into(), named("bad.type").with_message_id("1".into()), b"{}").await;
    publish(&world, &channel, "b".into(), named("good.type"), b"{}").await;
    let good = named("good.type").with_message_id("2".into());
    publish(&world, &channel, "c".into(), good, b"{\"sequence\":1}").await;
    world.applied(1).await;
    until("two dead letters", || async {
        match world.waiting(&channel, "dead").await {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

/// RabbitMQ 4 hands what has a priority over 4 over before what was published earlier; 3.10 takes no notice of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_whose_priority_would_let_it_overtake_is_dead_lettered_and_its_record_keeps_order() {
    let world = World::new("priority").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 1").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let channel = world.channel().await;
    for (sequence, priority) in [(1, None), (2, Some(0)), (3, Some(4)), (4, None), (9, Some(5)), (5, None)] {
        let id = BasicProperties::default().with_message_id(format!("id-{sequence}").into());
        let properties = match priority {
            Some(priority) => id.with_priority(priority),
            None => id,
        };
        let body = format!("{{\"sequence\":{sequence}}}");
        publish(&world, &channel, "key".into(), properties, body.as_bytes()).await;
    }
    until("six updates in the queue", || async {
        match world.waiting(&channel, "l1.p000").await {
            6 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let dispatcher = world.dispatcher("updates.partitions = 1").await;
    assert_flawless(&world.applied(5).await, 5);
    let line = dispatcher.logged("priority_too_high").await;
    assert!(line.contains("WARN"), "{line}");
    until("its dead letter", || async {
        match world.waiting(&channel, "dead").await {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_without_end_do_not_stop_the_dispatcher() {
    let world = World::new("nested").await;
    let dispatcher = world.dispatcher("updates.partitions = 1").await;
    // 20,000 arrays within each other: 100 kB, which fits one frame.
    let deep = (0..20_000).fold(vec![b'V'], |inner, _| {
        let length = u32::try_from(inner.len()).expect("it fits a frame").to_be_bytes();
        [b"A".as_slice(), &length, &inner].concat()
    });
    let headers = [b"\x01x".as_slice(), &deep].concat();
    raw(&world, b"deep", headers, b"{\"sequence\":1}").await;
    world.applied(1).await;
    assert!(!dispatcher.log().iter().any(|line| line.contains("lost")), "{:?}", dispatcher.log());
}

/// RabbitMQ adds a header to what it delivers again; these leave no room for it in a frame of 128 KiB.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_outgrow_a_frame_when_delivered_again_do_not_end_the_connection() {
    let settings = ReceiverSettings { latency: Duration::from_secs(30), ..ReceiverSettings::default() };
    let world = World::with("frame", settings).await;
    let mut first = world.dispatcher("updates.partitions = 1").await;
    let filler = vec![b'x'; 131_030];
    let length = u32::try_from(filler.len()).expect("it fits a frame").to_be_bytes();
    let headers = [b"\x01xS".as_slice(), &length, &filler].concat();
    raw(&world, b"full", headers, b"{\"sequence\":1}").await;
    until("a request in progress", || async {
        match world.receiver.report(0).in_progress {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    first.kill();
    let second = world.dispatcher("updates.partitions = 1").await;
    // It comes again, and is sent again.
    until("a second request", || async {
        match world.receiver.report(0).counts.requests {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert!(!second.log().iter().any(|line| line.contains("lost")), "{:?}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_record_key_arrives_as_one_segment_of_the_configured_path() {
    let world = World::new("hostile").await;
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    let longest = "ä".repeat(127) + "x";
    let keys = [
        "../../admin",
        "a/b",
        "a?x=1",
        "http://evil/",
        "é",
        " ",
        "a b",
        "%2F",
        "%",
        "a%2e%2e",
        ";",
        "#",
        "\\..\\",
        "\u{7f}",
        "\u{1}\u{2}",
        "\t",
        "a\nb",
        "{record_key}",
        "😀",
        "...",
        "-",
        "@",
        "//evil",
        &longest,
    ];
    let lines = keys
        .iter()
        .enumerate()
        .map(|(n, key)| serde_json::json!({"key": key, "id": format!("id-{n}"), "body": {"sequence": 1}}));
    world.publish(lines).await;
    let report = world.applied(keys.len() as u64).await;
    assert_eq!(report.counts.key_mismatches, 0);
    for key in keys {
        let record = world.receiver.record(key).unwrap_or_else(|| panic!("{key:?} did not arrive"));
        assert_eq!(record.counts.updates, 1, "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_key_that_no_url_can_carry_is_dead_lettered() {
    let world = World::new("dots").await;
    let _dispatcher = world.dispatcher("updates.partitions = 1").await;
    world.publish([".", ".."].map(|key| serde_json::json!({"key": key, "body": {"sequence": 1}}))).await;
    world.publish([serde_json::json!({"key": "good", "body": {"sequence": 1}})]).await;
    world.applied(1).await;
    let channel = world.channel().await;
    until("two dead letters", || async {
        match world.waiting(&channel, "dead").await {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert_eq!(world.receiver.report(0).counts.requests, 1);
}
