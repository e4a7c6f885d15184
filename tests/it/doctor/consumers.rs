//! Consumers of the partitions.

use std::mem::ManuallyDrop;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;

use super::{Doctor, made, what};
use crate::harness::updates;

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_not_ours_is_seen_and_goes_with_the_command_that_is_printed() {
    let world = made("consumed").await;
    let doctor = Doctor::of(&world);
    doctor.sees(&[]).await;
    world.publish(updates(20, 1)).await;
    let report = doctor.sees(&["LK404"]).await;
    assert_eq!(
        what(&report, "LK404"),
        "updates wait, but nobody consumes consumed.l1.p000, consumed.l1.p001"
    );

    let consume = async |queue: &str, tag: &str| {
        let channel = world.channel().await;
        channel.basic_qos(5, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(queue.into(), tag.into(), options, FieldTable::default());
        // Its channel is closed by the broker, not by dropping it.
        ManuallyDrop::new((consuming.await.unwrap(), channel))
    };
    let _foreign = consume("consumed.l1.p000", "shovel").await;
    let _old = consume("consumed.l1.p001", "lanekeeper old p001").await;
    let report = doctor.sees(&["LK401", "LK403"]).await;
    assert!(
        what(&report, "LK401").ends_with("is not Lanekeeper's and consumes consumed.l1.p000"),
        "{report:#}"
    );
    assert!(
        what(&report, "LK403").contains("holds at most 5, below the layout's prefetch of 1000"),
        "{report:#}"
    );
    doctor.remove(&report, &["LK401"]);
    doctor.sees(&["LK403", "LK404"]).await;
}
