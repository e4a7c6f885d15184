//! Targets that want to know who we are, or that are behind a proxy.

use bytes::Bytes;
use serde_json::json;
use standardwebhooks::Webhook;

use crate::harness::{Authority, Dispatcher, HttpsTarget, World, assert_flawless, until, updates};

#[path = "../http/proxy_server.rs"]
mod proxy_server;
#[path = "../http/server.rs"]
#[expect(dead_code, reason = "tests/http uses the rest")]
mod server;

use proxy_server::ConnectProxy;
use server::Server;

const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];

/// A config with these targets alone.
fn config(world: &World, extra: &str, targets: &str) -> String {
    let config = world.config(extra);
    let (config, _) = config.split_once("[[target]]").expect("it has one");
    format!("{config}{targets}")
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_flow_with_a_client_certificate_and_wait_without_one() {
    let authority = Authority::new("ours");
    let world = World::new("mutual-tls").await;
    let issued = authority.issue("localhost");
    let one = HttpsTarget::start_demanding(b"h2", &issued, &authority).await;
    let two = HttpsTarget::start_demanding(b"http/1.1", &issued, &authority).await;
    let [certificate, key] = authority.issue("lanekeeper").write(&authority, "client");
    let (ca, certificate, key) = (authority.file(), certificate.display(), key.display());
    let client = format!("certificate = \"file:{certificate}\"\nkey = \"file:{key}\"");
    let target = |name: &str, port: u16, client: &str| {
        format!(
            "[[target]]\nname = \"{name}\"\ntypes = [\"{name}\"]\ntimeout = \"5s\"\n\
             url = \"https://localhost:{port}/records/{{record_key}}\"\n\
             [target.tls]\nca = \"file:{}\"\n{client}\n",
            ca.display()
        )
    };
    let targets =
        [target("one", one.port, &client), target("two", two.port, &client), target("none", one.port, "")];
    // Not even one attempt more than the first may fail, but these are refused: nothing is dead-lettered.
    let config = config(&world, "updates.partitions = 1\nretry.attempts_max = 1", &targets.concat());
    let dispatcher = Dispatcher::start(&world.write_config(&config));
    dispatcher.ready().await;
    for name in ["none", "one", "two"] {
        let update = |n: usize| json!({"key": format!("{name}-{}", n % 3), "type": name, "body": {}});
        world.publish((0..12).map(update)).await;
    }
    for server in [&one, &two] {
        until("the requests", || async {
            match server.seen().len() {
                12 => Ok(()),
                seen => Err(seen.to_string()),
            }
        })
        .await;
        let strangers = server.seen().iter().filter(|(_, path)| path.contains("none")).count();
        assert_eq!(strangers, 0, "nothing was sent without a certificate");
    }
    dispatcher.logged("the target demands a client certificate").await;
    let dead_lettered = dispatcher.metric("lanekeeper_updates_dead_lettered_total").await;
    assert!(dead_lettered < 0.5, "{dead_lettered}: {}", dispatcher.log().concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_flow_through_a_proxy_to_a_name_that_it_alone_knows() {
    let world = World::new("proxy").await;
    let receiver = world.target.strip_prefix("http://").expect("it is one").parse().expect("an address");
    let proxy = ConnectProxy::start(receiver).await;
    let target = format!(
        "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\ntimeout = \"5s\"\nproxy = \"http://app:s3cret@{}\"\n\
         url = \"http://crm.invalid/records/{{record_key}}\"\n",
        proxy.address
    );
    let dispatcher =
        Dispatcher::start(&world.write_config(&config(&world, "updates.partitions = 2", &target)));
    dispatcher.ready().await;
    world.publish(updates(10, 20)).await;
    assert_flawless(&world.applied(200).await, 200);
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    for asked in asked {
        assert!(asked.starts_with("CONNECT crm.invalid:80 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("proxy-authorization: Basic "), "{asked}");
    }
    assert!(!dispatcher.log().concat().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_signed_and_every_attempt_with_its_own_time() {
    let world = World::new("webhooks").await;
    // Each update is refused once, so that there are attempts of another time.
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let mut server = Server::start(move |mut connection| {
        let seen = std::sync::Arc::clone(&seen);
        async move {
            while let Some(request) = connection.next_request().await {
                let (headers, body) = parsed(&request);
                let verified = SECRETS.iter().all(|secret| {
                    Webhook::new(secret).is_ok_and(|webhook| webhook.verify(&body, &headers).is_ok())
                });
                let is_first = seen.lock().unwrap().insert(headers["webhook-id"].clone());
                let status = match (verified, is_first) {
                    (false, _) => "403 Forbidden",
                    (true, true) => "503 Service Unavailable",
                    (true, false) => "204 No Content",
                };
                connection.send(server::answer(status, "", "").as_bytes()).await;
            }
        }
    })
    .await;
    let secrets = world.dir.path().join("secrets");
    std::fs::write(&secrets, SECRETS.join("\n")).expect("it can be written");
    let target = format!(
        "[[target]]\nname = \"partner\"\ntypes = [\"*\"]\nmethod = \"POST\"\ntimeout = \"5s\"\n\
         url = \"http://{}/hooks/{{record_key}}\"\n[target.signature]\nstandard_webhooks = \"file:{}\"\n",
        server.address,
        secrets.display()
    );
    let extra =
        "updates.partitions = 2\nretry.delay_initial = \"1s\"\nretry.jitter = 0.0\nbreaker.enabled = false";
    let dispatcher = Dispatcher::start(&world.write_config(&config(&world, extra, &target)));
    dispatcher.ready().await;
    world.publish(updates(20, 1)).await;
    let mut times = std::collections::BTreeMap::<String, Vec<String>>::new();
    for _ in 0..40 {
        let request = server.next_request().await;
        let (headers, _) = parsed(&request);
        let text = |name: &str| headers[name].to_str().expect("it is ASCII").to_owned();
        assert_eq!(text("webhook-id"), text("lanekeeper-update-id"));
        times.entry(text("webhook-id")).or_default().push(text("webhook-timestamp"));
    }
    assert_eq!(times.len(), 20);
    for (id, times) in times {
        assert!(times.len() == 2 && times[0] < times[1], "{id}: {times:?}");
    }
    until("the updates to be settled", || async {
        let settled = dispatcher.metric("lanekeeper_updates_delivered_total").await;
        if settled >= 20.0 { Ok(()) } else { Err(settled.to_string()) }
    })
    .await;
}

fn parsed(request: &str) -> (http::HeaderMap, Bytes) {
    let (head, body) = request.split_once("\r\n\r\n").expect("it is whole");
    let headers = head.lines().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.parse().expect("a name"), value.parse().expect("a value"))
    });
    (headers.collect(), Bytes::copy_from_slice(body.as_bytes()))
}
