//! Bindings.

use lapin::options::{ExchangeBindOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::{Doctor, PARTITIONS, what};
use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn bindings_that_are_too_many_go_with_the_command_that_is_printed_and_missing_ones_are_made_by_run() {
    let world = World::new("bound").await;
    let mut dispatcher = world.dispatcher(PARTITIONS).await;
    let doctor = Doctor::of(&world);
    doctor.sees(&[]).await;
    // A dispatcher would make the missing binding again within 5 s.
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));

    let channel = world.channel().await;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("bound-audit".into(), options, FieldTable::default()).await.unwrap();
    let bind = async |queue: &str, exchange: &str, key: &str| {
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
            .await
            .unwrap();
    };
    // The public exchange is free for audit queues.
    bind("bound-audit", "bound", "").await;
    doctor.sees(&[]).await;

    bind("bound-audit", "bound.ingress", "").await;
    bind("bound-audit", "bound.handoff", "").await;
    bind("bound-audit", "bound.l1", "").await;
    bind("bound.l1.p000", "bound.l1", "again").await;
    bind("bound.l1.p001", "amq.topic", "customer.#").await;
    let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
    channel
        .exchange_bind("bound.ingress".into(), "amq.direct".into(), "k".into(), options, none)
        .await
        .unwrap();
    let none = FieldTable::default();
    channel.queue_unbind("bound.dead".into(), "bound.dead".into(), "".into(), none).await.unwrap();

    let report = doctor.sees(&["LK205", "LK206", "LK207", "LK208", "LK209", "LK210", "LK210"]).await;
    assert_eq!(what(&report, "LK205"), "missing bindings: bound.dead to bound.dead");
    assert_eq!(what(&report, "LK209"), "exchange amq.topic is bound to queue bound.l1.p001");
    doctor.remove(&report, &["LK206", "LK207", "LK208", "LK209", "LK210"]);
    doctor.sees(&["LK205"]).await;

    let _dispatcher = world.dispatcher(PARTITIONS).await;
    doctor.sees(&[]).await;
}
