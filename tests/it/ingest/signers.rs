//! Webhooks that the senders' own libraries have signed.

use std::path::Path;
use std::process::Command;

use reqwest::StatusCode;
use serde_json::json;

use super::hooks::{hook, now};
use super::{Ingest, config};
use crate::harness::{World, assert_flawless};

const STRIPE: &str = "whsec_0123456789abcdef0123456789abcdef";
const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The default of `tolerance`, in seconds.
const TOLERANCE: u64 = 300;

/// The headers that the library of this name makes.
fn signed(library: &str, secret: &str, time: u64, body: &str, id: &str) -> Vec<(&'static str, String)> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = project.join(".lanekeeper/examples/signers");
    assert!(libraries.join(library).is_dir(), "{library} is missing: scripts/test installs it");
    let mut command = Command::new("python3");
    command.arg(project.join("tests/it/ingest/sign.py")).env("PYTHONPATH", libraries);
    let output =
        command.args([library, secret, &time.to_string(), body, id]).output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("headers are text");
    let names = ["stripe-signature", "webhook-id", "webhook-timestamp", "webhook-signature"];
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("name and value");
        (*names.iter().find(|known| **known == name).expect("a header that is known"), value.to_owned())
    };
    text.lines().map(header).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_libraries_of_stripe_and_standard_webhooks_sign_is_taken() {
    let world = World::new("ingest-signers").await;
    let _dispatcher = world.dispatcher("").await;
    let hooks = format!(
        "[[ingest.hook]]\nname = \"stripe\"\nverify = \"stripe\"\nsecrets = [\"{STRIPE}\"]\nrecord_key = [\"/record\"]\n\
         [[ingest.hook]]\nname = \"standard\"\nverify = \"standard_webhooks\"\nsecrets = [\"{STANDARD}\"]\n\
         record_key = [\"/record\"]\n"
    );
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + &hooks)).await;
    door.process.ready().await;
    for (library, name, secret) in [("stripe", "stripe", STRIPE), ("standardwebhooks", "standard", STANDARD)]
    {
        // Text of several alphabets, and an escape: what is signed are bytes.
        let body = json!({
            "id": format!("evt-{name}"), "type": "customer.updated", "record": name, "sequence": 1,
            "name": "Žofie 東京 \u{1f600} \"\\\n", "price": 1.10,
        })
        .to_string();
        let sent = async |time: u64, sent_body: &str| {
            let headers = signed(library, secret, time, &body, &format!("evt-{name}"));
            hook(&door, name, &headers, sent_body).await.0
        };
        assert_eq!(sent(now(), &body.replace("1.1", "1.2")).await, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(sent(now(), &format!("{body} ")).await, StatusCode::UNAUTHORIZED, "{name}");
        // A minute for a machine with other work.
        assert_eq!(sent(now() - TOLERANCE - 1, &body).await, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(sent(now() + TOLERANCE + 60, &body).await, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(sent(now() - TOLERANCE + 60, &body).await, StatusCode::ACCEPTED, "{name}");
        assert_eq!(sent(now(), &body).await, StatusCode::ACCEPTED, "{name}: a repeat is known");
    }
    assert_flawless(&world.applied(2).await, 2);
}
