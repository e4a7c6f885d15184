//! `lanekeeper try` and `lanekeeper test`: what a config makes of an update, before it is published and after it was parked.

use std::process::Command;

use lanekeeper_lab::receiver::ReceiverSettings;

use crate::harness::{World, assert_flawless, lanekeeper_command, until, updates};

fn run(arguments: &[&str], config: &std::path::Path) -> (Option<i32>, String) {
    let mut command: Command = lanekeeper_command();
    command.env("SEGMENT", "s3cret-segment");
    let output = command.args(arguments).arg("--config").arg(config).output().expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("it prints text"))
}

const LINE: &str =
    r#"{"key":"record-0","id":"tried-1","type":"record.updated","body":{"sequence":1,"price":1.10}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_shown_and_sent_only_if_nothing_else_can_be_on_its_way() {
    let world = World::with(
        "tried",
        ReceiverSettings {
            fail_records: vec!["record-1=hang:300s".parse().expect("a failing record")],
            hang_for: std::time::Duration::from_secs(300),
            ..ReceiverSettings::default()
        },
    )
    .await;
    let config = world.config(&(world.ledger() + "updates.partitions = 1\n"))
        + "headers = { authorization = \"Bearer s3cret\" }\n";
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    let path = world.dir.path().join("lanekeeper.toml");
    let (code, text) = run(&["try", LINE], &path);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "target receiver",
        "PUT http://",
        "/records/record-0",
        "authorization: ***",
        "idempotency-key: \"tried-1\"",
        "\"price\":1.10",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    let (code, text) = run(&["try", "{\"key\":\"\"}"], &path);
    assert!(code == Some(2) && text.contains("this is no update"), "{code:?} {text}");
    assert_eq!(world.receiver.report(0).counts.requests, 0, "nothing was sent so far");

    let (code, text) = run(&["try", LINE, "--send"], &path);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("status 200, applied"), "{text}");
    assert_flawless(&world.applied(1).await, 1);

    // It is published after all, and then the ledger knows it.
    let known = LINE.replace("tried-1", "known-1").replace("\"sequence\":1", "\"sequence\":2");
    let published: serde_json::Value = serde_json::from_str(&known).expect("a line is JSON");
    world.publish([published]).await;
    until("an update that is settled", || async {
        let (code, text) = run(&["try", &known, "--send"], &path);
        if code == Some(1) && text.contains("the ledger knows") { Ok(()) } else { Err(text) }
    })
    .await;

    // Another record of the same partition is on its way.
    world.publish(updates(2, 1).skip(1)).await;
    until("an update that is held", || async {
        let held = dispatcher.metric("lanekeeper_held").await;
        if held > 0.5 { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
    let second = LINE.replace("tried-1", "tried-2").replace("\"sequence\":1", "\"sequence\":3");
    let (code, text) = run(&["try", &second, "--send"], &path);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("not sent: partition p000 of layout 1 has 0 updates in its queue and 1 with its owner"),
        "{text}"
    );
    assert_eq!(world.receiver.report(0).counts.updates, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_update_is_tried_by_its_owner() {
    let world = World::with(
        "tried-parked",
        ReceiverSettings {
            fail_records: vec!["record-0=422:2s".parse().expect("a failing record")],
            ..ReceiverSettings::default()
        },
    )
    .await;
    let dispatcher = world.dispatcher(&(world.ledger() + "updates.partitions = 2\n")).await;
    world.publish(updates(1, 3)).await;
    dispatcher.logged("record parked").await;
    let path = world.dir.path().join("lanekeeper.toml");
    let (code, text) = run(&["try", LINE, "--send"], &path);
    assert!(code == Some(1) && text.contains("the record has parked updates"), "{code:?} {text}");
    let (code, text) = run(&["try", "--parked", "record-0"], &path);
    assert!(code == Some(0) && text.contains("\"sequence\":1"), "{code:?} {text}");
    let (code, text) = run(&["try", "--parked", "nobody"], &path);
    assert!(code == Some(1) && text.contains("has no parked updates"), "{code:?} {text}");
    until("an API that takes the record again", || async {
        let (code, text) = run(&["try", "--parked", "record-0", "--send"], &path);
        match code {
            Some(0) if text.contains("applied: the record is no longer parked") => Ok(()),
            _ => {
                assert!(text.contains("parked again: rejected (status 422)"), "{code:?} {text}");
                Err(text)
            }
        }
    })
    .await;
    assert_flawless(&world.applied(3).await, 3);
}

/// The receiver is not asked.
#[tokio::test(flavor = "multi_thread")]
async fn cases_in_a_file_hold_or_show_what_differs() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let config = dir.path().join("lanekeeper.toml");
    std::fs::write(
        &config,
        r#"
[[target]]
name = "crm"
types = ["customer.*"]
url = "https://crm.example/customers/{record_key}"
headers = { x-api-key = "s3cret" }
[[target.on]]
types = ["customer.deleted"]
method = "DELETE"
[[target.on]]
types = ["customer.merged"]
url = "https://crm.example/${SEGMENT}/{record_key}?token=s3cret"
[[target.answers]]
status = 200
pointer = "/error/code"
value = "E42"
outcome = "rejected"
"#,
    )
    .expect("the directory is ours");
    let good = dir.path().join("good.toml");
    std::fs::write(
        &good,
        r#"
[[case]]
name = "a deleted customer"
update = { key = "a/b", id = "u-1", type = "customer.deleted", body = {} }
request.target = "crm"
request.method = "DELETE"
request.url = "https://crm.example/customers/a%2Fb"
request.headers = { x-api-key = "s3cret" }
request.headers_absent = ["if-match"]
[[case]]
name = "an error inside a 200"
update = '{"key":"1","type":"customer.updated","body":{"price":1.10}}'
request.body_text = '{"price":1.10}'
[[case.answer]]
status = 200
body = { error = { code = "E42" } }
outcome = "rejected"
[[case.answer]]
status = 200
body = {}
outcome = "applied"
[[case]]
name = "a secret in a URL"
update = { key = "a/b", type = "customer.merged", body = 1 }
request.url = "https://crm.example/s3cret-segment/a%2Fb?token=s3cret"
[[case]]
name = "a secret in a URL that the case does not know"
update = { key = "a/b", type = "customer.merged", body = 1 }
request.url = "https://crm.example/***/a%2Fb?token=***"
[[case]]
name = "an order goes nowhere"
update = { key = "1", type = "order.created", body = 1 }
rejected = "no target"
"#,
    )
    .expect("the directory is ours");
    let (code, text) = run(&["test", &good.display().to_string()], &config);
    assert!(code == Some(0) && text.contains("5 cases, 0 failed"), "{code:?} {text}");
    let merged = r#"{"key":"a/b","type":"customer.merged","body":1}"#;
    let (code, text) = run(&["try", merged], &config);
    assert!(code == Some(0) && text.contains("PUT https://crm.example/***/a%2Fb?token=***\n"), "{text}");

    let bad = dir.path().join("bad.toml");
    let text = std::fs::read_to_string(&good).expect("it was written");
    let text = text.replace("s3cret\" }\nrequest.headers_absent", "other\" }\nrequest.headers_absent");
    std::fs::write(
        &bad,
        text.replace("DELETE", "POST")
            .replace("1.10}'\n[[", "1.1}'\n[[")
            .replace("\"applied\"", "\"conflict\"")
            .replace("/s3cret-segment/a%2Fb?token=s3cret", "/other"),
    )
    .expect("the directory is ours");
    let (code, text) = run(&["test", &good.display().to_string(), &bad.display().to_string()], &config);
    assert!(code == Some(1) && text.contains("10 cases, 3 failed"), "{code:?} {text}");
    for part in [
        "- POST",
        "+ DELETE",
        "header x-api-key has another value",
        "- {\"price\":1.1}",
        "+ {\"price\":1.10}",
        "- https://crm.example/other",
        "+ https://crm.example/***/a%2Fb?token=***",
        "- conflict",
        "+ applied",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    std::fs::write(&bad, "[[case]]\nnam = 1").expect("the directory is ours");
    let (code, text) = run(&["test", &bad.display().to_string()], &config);
    assert!(code == Some(2) && text.contains("nam"), "{code:?} {text}");
}
