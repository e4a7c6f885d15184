//! The broker itself, and what it does not let us see.

use std::sync::Arc;

use lanekeeper_lab::receiver::ReceiverSettings;

use super::{Doctor, NOWHERE, PARTITIONS, codes_of, made, what};
use crate::harness::{Broker, World, until};

/// A node of its own: these dangers are the whole broker's.
#[tokio::test(flavor = "multi_thread")]
async fn alarms_and_a_missing_plugin_are_seen_with_and_without_the_management_api() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", ReceiverSettings::default()).await;
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    let mut doctor = Doctor::of(&world);
    let report = doctor.sees(&[]).await;
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);

    broker.ctl(&["set_vm_memory_high_watermark", "0.0000001"]);
    let alarmed = doctor.sees(&["LK105"]).await;
    assert!(what(&alarmed, "LK105").contains("raised the memory alarm"), "{alarmed:#}");
    let management = std::mem::replace(&mut doctor.management, NOWHERE.to_owned());
    let report = doctor.examine();
    assert_eq!(codes_of(&report), ["LK105", "LK901"]);
    assert_eq!(what(&report, "LK105"), "the broker takes no publishes: memory or disk alarm");
    doctor.management = management;
    doctor.remove(&alarmed, &["LK105"]);
    doctor.sees(&[]).await;

    broker.ctl(&["set_disk_free_limit", "900000GB"]);
    let report = doctor.sees(&["LK105"]).await;
    assert!(what(&report, "LK105").contains("raised the disk space alarm"), "{report:#}");
    broker.ctl(&["set_disk_free_limit", "50MB"]);
    doctor.sees(&[]).await;

    broker.ctl(&["eval", "rabbit_registry:unregister(exchange, <<\"x-modulus-hash\">>)."]);
    doctor.management = Broker::shared().management_url().to_owned();
    let report = doctor.examine();
    assert!(what(&report, "LK901").contains("belongs to another cluster"), "{report:#}");
    doctor.management = broker.management_url().to_owned();
    let report = doctor.sees(&["LK101"]).await;
    assert!(report.to_string().contains("rabbitmq-plugins enable rabbitmq_sharding"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_management_api_the_rest_is_judged_and_what_is_missing_is_said() {
    let world = made("half-blind").await;
    let mut doctor = Doctor::of(&world);
    doctor.sees(&[]).await;
    doctor.management = NOWHERE.to_owned();
    doctor.config = world.config("updates.partitions = 3");
    let report = doctor.examine();
    assert_eq!(codes_of(&report), ["LK502", "LK901"]);
    let unseen: Vec<&str> = report["not_looked_at"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unseen| unseen["what"].as_str().unwrap())
        .collect();
    for part in ["policies", "bindings", "consumers of the partitions"] {
        assert!(unseen.contains(&part), "{unseen:?}");
    }
    assert_eq!(report["errors"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_that_are_missing_come_with_the_command_that_grants_them() {
    let world = made("permitted").await;
    let ctl = |arguments: &[&str]| world.broker.ctl(arguments);
    ctl(&["add_user", "permitted", "hunter2"]);
    ctl(&["set_permissions", "permitted", "^$", "^$", "^permitted"]);
    let mut doctor = Doctor::of(&world);
    doctor.config = doctor.config.replace("guest:guest@", "permitted:hunter2@");
    let report = doctor.sees(&["LK108"]).await;
    assert!(what(&report, "LK108").contains("refused for user 'permitted'"), "{report:#}");
    doctor.remove(&report, &["LK108"]);
    doctor.sees(&[]).await;

    // As this user alone: no tag, then one that shows all but the cluster.
    let address = doctor.management.rsplit('@').next().unwrap().to_owned();
    doctor.management = format!("http://{address}");
    let report = doctor.examine();
    assert!(what(&report, "LK901").contains("refuses user permitted"), "{report:#}");
    ctl(&["set_user_tags", "permitted", "management"]);
    let report = until("a user that sees a part", || async {
        let report = doctor.examine();
        if codes_of(&report).contains(&"LK902") { Ok(report) } else { Err(format!("{report:#}")) }
    })
    .await;
    doctor.remove(&report, &["LK902"]);
    doctor.sees(&[]).await;
    ctl(&["delete_user", "permitted"]);
}

/// Bodies of 1 MiB are allowed by default.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_messages_below_the_one_of_bodies_is_seen_and_one_that_is_not_is_not() {
    let broker = Arc::new(Broker::start_with("max_message_size = 1000000\n", &[]));
    let world = World::on(Arc::clone(&broker), "updates", ReceiverSettings::default()).await;
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    let mut doctor = Doctor::of(&world);
    let report = doctor.sees(&["LK130"]).await;
    assert!(what(&report, "LK130").contains("over 1000000 bytes (max_message_size)"), "{report:#}");
    doctor.config = world.config(&format!("{PARTITIONS}\nupdates.body_bytes_max = 1_000_000"));
    doctor.sees(&[]).await;
}
