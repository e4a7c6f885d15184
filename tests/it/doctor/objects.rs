//! Exchanges and queues that are missing or other than they must be.

use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};

use super::{Doctor, PARTITIONS, made, what};
use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_topology_that_does_not_exist_yet_is_no_error_and_one_that_was_made_has_no_danger() {
    let world = World::new("begun").await;
    let doctor = Doctor::of(&world);
    let report = doctor.sees(&["LK201"]).await;
    assert_eq!(report["errors"], 0);
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    doctor.sees(&[]).await;
    let output = doctor.call(&[]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stdout.starts_with("RabbitMQ "), "{}", output.stdout);
    assert!(output.stdout.ends_with("\nNo errors, no warnings.\n"), "{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_missing_or_differ_are_named_and_run_makes_them_anew_once_they_are_deleted() {
    let world = made("altered").await;
    let doctor = Doctor::of(&world);
    let channel = world.channel().await;
    let options = QueueDeleteOptions::default;
    for queue in ["altered.l1.p000", "altered.l1.p001", "altered.dead"] {
        channel.queue_delete(queue.into(), options()).await.unwrap();
    }
    channel.exchange_delete("altered".into(), ExchangeDeleteOptions::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
    channel.queue_declare("altered.l1.p000".into(), durable, arguments).await.unwrap();
    channel.queue_declare("altered.dead".into(), durable, FieldTable::default()).await.unwrap();
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Topic;
    channel.exchange_declare("altered".into(), kind, options, FieldTable::default()).await.unwrap();

    let report = doctor.sees(&["LK202", "LK203", "LK203", "LK204", "LK205"]).await;
    assert_eq!(what(&report, "LK202"), "missing in the broker: altered.l1.p001");
    assert_eq!(what(&report, "LK204"), "queue altered.dead is of type classic, but it must be quorum");
    let findings = report["findings"].as_array().unwrap();
    let said = |what: &str| findings.iter().any(|finding| finding["what"].as_str() == Some(what));
    assert!(said("exchange altered has type = topic, but it must be fanout"), "{report:#}");
    assert!(
        findings
            .iter()
            .any(|finding| finding["what"].as_str().unwrap().starts_with("queue altered.l1.p000 has ")),
        "{report:#}"
    );
    doctor.remove(&report, &["LK203", "LK204"]);
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    doctor.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_document_that_cannot_be_read_is_an_error() {
    let world = made("documented").await;
    let doctor = Doctor::of(&world);
    doctor.sees(&[]).await;
    let channel = world.channel().await;
    let options = BasicPublishOptions::default();
    let stream = "documented.topology".into();
    channel
        .basic_publish("".into(), stream, options, b"{\"version\": 7}", BasicProperties::default())
        .await
        .unwrap();
    let report = doctor.sees(&["LK211"]).await;
    assert!(what(&report, "LK211").contains("its version is 7"), "{report:#}");
}
