//! Where the broker puts keys, and where they are computed to be.

use std::time::Duration;

use lanekeeper_broker::{Address, ConnectionSettings};
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::secret::Secret;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};

use crate::harness::{World, publish_raw};

/// A hash exchange with so many queues, all of one name.
async fn declare(channel: &Channel, name: &str, queues: u16) {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Custom("x-modulus-hash".to_owned());
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap();
    for number in 0..queues {
        let queue = format!("{name}.p{number:03}");
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
        let (queue, options) = (queue.as_str().into(), QueueBindOptions::default());
        channel.queue_bind(queue, name.into(), "".into(), options, FieldTable::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_puts_every_key_where_it_is_computed_to_be() {
    const QUEUES: u16 = 7;
    let world = World::new("computed").await;
    let channel = world.channel().await;
    declare(&channel, "computed-hash", QUEUES).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut keys: Vec<Vec<u8>> = (0..300).map(|number| format!("record-{number}").into_bytes()).collect();
    keys.extend((1..=255).map(|length| "ä-key".bytes().cycle().skip(2).take(length).collect()));
    keys.extend(["", "日本", "customer/42"].map(|key| key.as_bytes().to_vec()));
    keys.extend([b"\xff".to_vec(), b"\0\xfe".to_vec(), b"\xc3\x28 no UTF-8".to_vec()]);
    let url = world.broker.url().to_owned();
    for (place, key) in keys.iter().enumerate() {
        let body = place.to_string();
        if let Ok(key) = std::str::from_utf8(key) {
            let (properties, options) = (BasicProperties::default(), BasicPublishOptions::default());
            let exchange = "computed-hash".into();
            let sent =
                channel.basic_publish(exchange, key.into(), options, body.as_bytes(), properties).await;
            sent.unwrap().await.unwrap();
        } else {
            let (url, key) = (url.clone(), key.clone());
            let publishing = move || publish_raw(&url, "computed-hash", &key, b"", body.as_bytes());
            tokio::task::spawn_blocking(publishing).await.expect("it does not panic");
        }
    }
    // The client alone cannot read a routing key that is not UTF-8: the product's connection can.
    let settings =
        ConnectionSettings { urls: vec![Secret::new(url.as_str())], heartbeat: Duration::from_secs(10) };
    let connection = Address::new(&settings).unwrap().connect("routing test").await.unwrap();
    let reading = connection.create_channel().await.unwrap();
    let mut seen = 0;
    for number in 0..QUEUES {
        let queue = format!("computed-hash.p{number:03}");
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = reading.basic_get(queue.as_str().into(), options).await.unwrap() {
            let place: usize = String::from_utf8(message.delivery.data.clone()).unwrap().parse().unwrap();
            assert_eq!(partition_of(&keys[place], QUEUES).0, number, "{:?}", keys[place]);
            seen += 1;
        }
    }
    assert_eq!(seen, keys.len());
}
