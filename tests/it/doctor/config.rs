//! The config against the broker, and what waits for a person.

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;

use super::{Doctor, made, what};
use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_disagrees_with_the_layout_in_force_is_reported_with_the_line_that_agrees() {
    let world = made("disagrees").await;
    let mut doctor = Doctor::of(&world);
    doctor.sees(&[]).await;
    doctor.config =
        world.config("updates.partitions = 3\ndispatch.prefetch = 500\ndispatch.held_max = \"29m\"");
    let report = doctor.sees(&["LK402", "LK502", "LK503"]).await;
    let findings = report["findings"].as_array().unwrap();
    let lines: Vec<&str> = findings
        .iter()
        .flat_map(|finding| finding["remedy"].as_array().unwrap())
        .filter_map(|step| step["config"].as_str())
        .collect();
    assert_eq!(
        lines,
        ["dispatch.held_max = \"1710s\"", "updates.partitions = 2", "dispatch.prefetch = 1000"]
    );
    doctor.config = world.config(&lines.join("\n"));
    doctor.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_in_the_dead_letter_queue_are_counted() {
    let world = made("lettered").await;
    let doctor = Doctor::of(&world);
    let channel = world.channel().await;
    for _ in 0..3 {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("lettered.dead".into(), "17".into(), options, b"", properties).await.unwrap();
    }
    let report = doctor.sees(&["LK501"]).await;
    assert_eq!(what(&report, "LK501"), "3 updates are in the dead-letter queue lettered.dead");
    assert_eq!(report["errors"], 0);
    doctor.remove(&report, &["LK501"]);
    doctor.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_config_and_connection_have_their_exit_codes_and_quote_no_password() {
    let world = World::new("faulty").await;
    let mut doctor = Doctor::of(&world);
    let good = std::mem::take(&mut doctor.config);
    let mut ends = |config: String, management: &str, code: i32, part: &str| {
        doctor.config = config;
        management.clone_into(&mut doctor.management);
        let output = doctor.call(&[]);
        assert_eq!(output.code, Some(code), "{}", output.stderr);
        assert!(output.stderr.contains(part), "{}", output.stderr);
        assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    };
    ends(good.replace("admin.listen", "admin.lissen"), "", 2, "did you mean `listen`?");
    ends(good.clone(), "ftp://guest:hunter2@127.0.0.1", 2, "--management: begins with neither");
    ends(good.replace("guest:guest@", "guest:hunter2@"), "", 3, "access refused");
    ends(good.replace(world.broker.url(), "amqp://guest:hunter2@127.0.0.1:9"), "", 3, "cannot connect");
}
