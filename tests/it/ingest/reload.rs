//! Tokens, secrets, types, rates and certificates change while a door takes updates.

#![expect(clippy::disallowed_types, reason = "its clients trust other authorities than the system's")]

use std::path::Path;

use reqwest::{Certificate, Client, Identity, Method, RequestBuilder, StatusCode};
use serde_json::json;

use super::hooks::{hex, hook};
use super::sender::Sender;
use super::{Ingest, TOKEN, WithJson as _, answer, config};
use crate::harness::{Authority, Issued, Signal, World, assert_flawless, http, lanekeeper_command, until};

const OTHER: &str = "fedcba9876543210-crm";

const HOOK: &str = "[[ingest.hook]]\nname = \"shop\"\nverify = \"github\"\nsecrets = [\"first secret\"]\n\
                    record_key = [\"/id\"]\nid = \"/event\"\ntype = \"/type\"\n";

fn configs_in_force(door: &Ingest) -> usize {
    door.process.log().iter().filter(|line| line.contains("and is in force")).count()
}

/// Writes a config, asks the door to read it, and waits until it is in force.
async fn change(world: &World, door: &Ingest, config: &str) {
    let before = configs_in_force(door);
    std::fs::write(world.dir.path().join("ingest.toml"), config).expect("the config can be written");
    door.process.signal(Signal::HUP);
    in_force(door, before + 1).await;
}

async fn in_force(door: &Ingest, expected: usize) {
    until("the config is in force", || async {
        match configs_in_force(door) {
            changes if changes >= expected => Ok(()),
            changes => Err(format!("{changes} changes: {}", door.process.log().concat())),
        }
    })
    .await;
}

/// An update of a record of its own.
async fn sent(door: &Ingest, token: &str, record: &str) -> StatusCode {
    let url = format!("http://{}/updates/{record}/1?type=order.paid", door.address);
    let request = http().put(url).bearer_auth(token).json(&json!({"sequence": 1}));
    request.send().await.expect("the door answers").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_change_while_updates_flow() {
    let world = World::new("ingest-reload").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let first = config(&world, world.broker.url(), "");
    let door = Ingest::start_with(&world, &first).await;
    door.process.ready().await;
    let sender = Sender::start(&door, "steady");
    sender.sends(10).await;
    assert_eq!(sent(&door, OTHER, "a").await, StatusCode::UNAUTHORIZED);

    // A second token, a further client, and a hook.
    let both = format!("tokens = [\"{TOKEN}\", \"{OTHER}\"]");
    let more = first.replace(&format!("tokens = [\"{TOKEN}\"]"), &both)
        + "[[ingest.client]]\nname = \"shop\"\ntokens = [\"0123456789abcdef-shop\"]\ntypes = [\"order.*\"]\n";
    change(&world, &door, &(more.clone() + HOOK)).await;
    assert_eq!(sent(&door, OTHER, "b").await, StatusCode::ACCEPTED);
    assert_eq!(sent(&door, "0123456789abcdef-shop", "c").await, StatusCode::ACCEPTED);
    let event = |id: &str| json!({"id": id, "event": "1", "type": "order", "sequence": 1}).to_string();
    let signed = |secret: &str, body: &str| {
        [("x-hub-signature-256", format!("sha256={}", hex(secret, body.as_bytes())))]
    };
    let (one, two) = (event("hooked-1"), event("hooked-2"));
    assert_eq!(hook(&door, "shop", &signed("first secret", &one), &one).await.0, StatusCode::ACCEPTED);
    sender.sends(10).await;

    // The clients stand in another order, one sends other types, and the hook has another secret.
    let (head, clients) = more.split_once("[[ingest.client]]").expect("it has two");
    let (crm, shop) = clients.split_once("[[ingest.client]]").expect("it has two");
    let turned = format!("{head}[[ingest.client]]{shop}[[ingest.client]]{crm}")
        .replace("types = [\"order.*\"]", "types = [\"customer.*\"]")
        + &HOOK.replace("first secret", "second secret");
    change(&world, &door, &turned).await;
    assert_eq!(sent(&door, OTHER, "d").await, StatusCode::ACCEPTED);
    assert_eq!(sent(&door, "0123456789abcdef-shop", "e").await, StatusCode::FORBIDDEN);
    assert_eq!(hook(&door, "shop", &signed("first secret", &two), &two).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(hook(&door, "shop", &signed("second secret", &two), &two).await.0, StatusCode::ACCEPTED);
    sender.sends(10).await;

    // Client and hook are gone, and the time for a confirm is another one. What was accepted is known as before.
    let last = first
        .replace("listen = \"127.0.0.1:0\"\n\n[[", "listen = \"127.0.0.1:0\"\nconfirm_timeout = \"9s\"\n[[");
    assert_ne!(last, first);
    change(&world, &door, &last).await;
    assert_eq!(sent(&door, OTHER, "b").await, StatusCode::UNAUTHORIZED);
    assert_eq!(sent(&door, "0123456789abcdef-shop", "c").await, StatusCode::UNAUTHORIZED);
    assert_eq!(hook(&door, "shop", &signed("second secret", &two), &two).await.0, StatusCode::NOT_FOUND);
    let (_, known) =
        answer(door.request(Method::PUT, "/updates/b/1?type=order.paid").json(&json!({"sequence": 1}))).await;
    assert_eq!(known["state"], "known");

    // A fault, and a key that only a restart applies: nothing of the file is in force.
    let path = world.dir.path().join("ingest.toml");
    for (lines, why) in [
        ("confirm_timeout = 5", "ingest.confirm_timeout"),
        ("pending_max = 5_000", "only a restart applies ingest.pending_max"),
    ] {
        let refused = more.replace("[ingest]\n", &format!("[ingest]\n{lines}\n"));
        std::fs::write(&path, refused).expect("the config can be written");
        door.process.signal(Signal::HUP);
        until(why, || async {
            let log = door.process.log();
            let said =
                |line: &String| line.contains("the changed config is not applied") && line.contains(why);
            if log.iter().any(said) { Ok(()) } else { Err(log.concat()) }
        })
        .await;
        assert_eq!(sent(&door, OTHER, "f").await, StatusCode::UNAUTHORIZED);
        assert!(door.process.metric("lanekeeper_config_last_reload_successful").await < 0.5);
    }
    let admin = door.process.admin().await;
    let mut check = lanekeeper_command();
    check.args(["check", "--against-running", "--config"]).arg(&path);
    let output = check.env("LANEKEEPER_ADMIN__LISTEN", admin).output().expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert_eq!(output.status.code(), Some(10), "{text}");
    for line in ["ingest.client[0].tokens", "with the next request", "ingest.pending_max", "after a restart"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }

    // b, c and d, and two webhooks.
    let updates = sender.stopped("changes of the config").await + 5;
    assert_flawless(&world.applied(updates).await, updates);
    let log = door.process.log().concat();
    for secret in [TOKEN, OTHER, "second secret"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_file_is_read_again_without_being_asked() {
    let world = World::new("ingest-token-file").await;
    let _dispatcher = world.dispatcher("").await;
    let file = world.dir.path().join("token");
    std::fs::write(&file, TOKEN).expect("it can be written");
    let quoted = format!("\"{TOKEN}\"");
    let config = config(&world, world.broker.url(), "").replace(&quoted, "\"file:token\"");
    let door = Ingest::start_with(&world, &config).await;
    door.process.ready().await;
    assert_eq!(sent(&door, TOKEN, "a").await, StatusCode::ACCEPTED);
    std::fs::write(&file, OTHER).expect("it can be written");
    in_force(&door, 1).await;
    assert_eq!(sent(&door, OTHER, "b").await, StatusCode::ACCEPTED);
    assert_eq!(sent(&door, TOKEN, "c").await, StatusCode::UNAUTHORIZED);
    // A file that is gone leaves the token of before in force.
    std::fs::remove_file(&file).expect("it is there");
    let line = door.process.logged("the changed config is not applied").await;
    assert!(line.contains("ingest.client[0].tokens"), "{line}");
    assert_eq!(sent(&door, OTHER, "d").await, StatusCode::ACCEPTED);
}

/// A client that trusts this authority alone, and shows a certificate if it has one.
fn https(authority: &Authority, own: Option<&Issued>) -> Client {
    let root = Certificate::from_pem(authority.pem().as_bytes()).expect("it is PEM");
    let builder = Client::builder().tls_certs_only([root]).no_proxy();
    let builder = match own {
        None => builder,
        Some(own) => {
            let pem = own.pem() + &own.key_pem();
            builder.identity(Identity::from_pem(pem.as_bytes()).expect("it has both"))
        }
    };
    builder.build().expect("a client can be made")
}

fn put(client: &Client, door: &Ingest, record: &str) -> RequestBuilder {
    let port = door.address.rsplit(':').next().expect("it has a port");
    let url = format!("https://localhost:{port}/updates/{record}/1");
    client.put(url).bearer_auth(TOKEN).json(&json!({"sequence": 1}))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_with_the_next_connection() {
    let world = World::new("ingest-tls").await;
    let _dispatcher = world.dispatcher("").await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (certificate, key) = (world.dir.path().join("door.pem"), world.dir.path().join("door.key"));
    let write = |issued: &Issued| {
        let replace = |path: &Path, content: String| {
            let next = path.with_extension("next");
            std::fs::write(&next, content).expect("it can be written");
            std::fs::rename(next, path).expect("it can be written");
        };
        replace(&certificate, issued.pem());
        replace(&key, issued.key_pem());
    };
    write(&ours.issue("localhost"));
    let tls = "tls.certificate = \"file:door.pem\"\ntls.key = \"file:door.key\"\n";
    let door = Ingest::start_with(&world, &config(&world, world.broker.url(), tls)).await;
    door.process.ready().await;

    let (trusts_ours, trusts_theirs) = (https(&ours, None), https(&theirs, None));
    assert_eq!(answer(put(&trusts_ours, &door, "a")).await.0, StatusCode::ACCEPTED);
    put(&trusts_theirs, &door, "b").send().await.expect_err("it does not trust the door");
    let plain = door.request(Method::PUT, "/updates/record/c").json(&json!({}));
    plain.send().await.expect_err("the door speaks TLS");

    // The files change: whoever connects sees the new certificate, and a connection that is open stays.
    write(&theirs.issue("localhost"));
    in_force(&door, 1).await;
    assert_eq!(answer(put(&trusts_ours, &door, "d")).await.0, StatusCode::ACCEPTED);
    assert_eq!(answer(put(&trusts_theirs, &door, "e")).await.0, StatusCode::ACCEPTED);
    put(&https(&ours, None), &door, "f").send().await.expect_err("it does not trust the door any more");

    // A certificate without its key is not shown.
    std::fs::write(&key, ours.issue("localhost").key_pem()).expect("it can be written");
    door.process.logged("the changed config is not applied").await;
    assert_eq!(answer(put(&https(&theirs, None), &door, "g")).await.0, StatusCode::ACCEPTED);
    write(&theirs.issue("localhost"));
    in_force(&door, 2).await;

    // Clients have to show a certificate of an authority.
    std::fs::write(world.dir.path().join("ca.pem"), ours.pem()).expect("it can be written");
    let demanding = config(&world, world.broker.url(), &format!("{tls}tls.client_ca = \"file:ca.pem\"\n"));
    change(&world, &door, &demanding).await;
    let (known, stranger) = (ours.issue("client"), theirs.issue("client"));
    assert_eq!(answer(put(&https(&theirs, Some(&known)), &door, "h")).await.0, StatusCode::ACCEPTED);
    for client in [https(&theirs, Some(&stranger)), https(&theirs, None)] {
        put(&client, &door, "i").send().await.expect_err("nobody has issued it for this door");
    }
    // a, d, e, g and h: what was refused never arrives.
    assert_flawless(&world.applied(5).await, 5);
}
