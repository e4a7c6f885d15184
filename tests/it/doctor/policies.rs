//! Policies.

use super::{Doctor, PARTITIONS, what};
use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_lose_updates_are_seen_and_go_with_the_command_that_is_printed() {
    let world = World::new("policed").await;
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    let doctor = Doctor::of(&world);
    doctor.sees(&[]).await;

    let set = |verb: &str, name: &str, pattern: &str, definition: &str| {
        world.broker.ctl(&[verb, "--apply-to", "queues", name, pattern, definition]);
    };
    let partitions = r#"{"delivery-limit": 20, "message-ttl": 60000, "max-length": 10, "max-length-bytes": 1000,
                         "expires": 3600000, "overflow": "drop-head"}"#;
    set("set_policy", "policed partitions", r"^policed\.l1\.", partitions);
    set("set_policy", "policed-document", r"^policed\.topology$", r#"{"max-age": "1h"}"#);
    set("set_operator_policy", "policed-dead", r"^policed\.dead$", r#"{"delivery-limit": 5}"#);

    let codes = ["LK301", "LK301", "LK302", "LK303", "LK303", "LK304", "LK305", "LK308"];
    let report = doctor.sees(&codes).await;
    assert_eq!(
        what(&report, "LK302"),
        "policy \"policed partitions\" sets message-ttl = 60000 on policed.l1.p000, policed.l1.p001"
    );
    let findings = report["findings"].as_array().unwrap();
    let limits: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["code"] == "LK301")
        .map(|finding| finding["what"].as_str().unwrap())
        .collect();
    assert!(
        limits.contains(&"operator policy \"policed-dead\" sets delivery-limit = 5 on policed.dead"),
        "{limits:?}"
    );

    doctor.run("rabbitmqctl clear_policy --vhost / 'policed partitions'");
    let report = doctor.sees(&["LK301", "LK308"]).await;
    doctor.remove(&report, &["LK301", "LK308"]);
    doctor.sees(&[]).await;
}
