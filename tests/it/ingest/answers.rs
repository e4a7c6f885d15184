//! What requests are answered.

use lanekeeper_lab::receiver::ReceiverSettings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Ingest, WithJson as _, answer, config};
use crate::harness::{World, assert_flawless, lanekeeper};

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_accepted_once_and_arrives_once() {
    let world = World::new("ingest-once").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let door = Ingest::ready(&world, "").await;
    let accepted = |id: &str, state: &str| {
        (StatusCode::ACCEPTED, json!({ "record_key": "record-1", "update_id": id, "state": state }))
    };
    let first = door.request(Method::POST, "/updates/record-1").header("idempotency-key", "\"a-1\"");
    assert_eq!(answer(first.json(&json!({"sequence": 1}))).await, accepted("a-1", "accepted"));
    let again = door.put("record-1", "a-1", &json!({"sequence": 1}));
    assert_eq!(answer(again).await, accepted("a-1", "known"));
    let other = answer(door.put("record-1", "a-1", &json!({"sequence": 7}))).await;
    assert_eq!((other.0, &other.1["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("id_reused")));
    assert_eq!(
        answer(door.put("record-1", "a-2", &json!({"sequence": 2}))).await,
        accepted("a-2", "accepted")
    );
    // Another door does not know it, and the ledger does.
    let other = Ingest::ready(&world, "").await;
    assert_eq!(
        answer(other.put("record-1", "a-1", &json!({"sequence": 1}))).await,
        accepted("a-1", "accepted")
    );
    assert_eq!(
        answer(other.put("record-1", "a-3", &json!({"sequence": 3}))).await,
        accepted("a-3", "accepted")
    );
    assert_flawless(&world.applied(3).await, 3);
    assert!((door.process.metric("lanekeeper_ingest_updates_total").await - 3.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_accepted_as_a_whole_or_not_at_all() {
    let world = World::new("ingest-batch").await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, "batch_lines_max = 10").await;
    let post = |media_type: &str, body: String| {
        door.request(Method::POST, "/updates").header("content-type", media_type).body(body)
    };
    let line = |sequence: u64| {
        format!("{{\"key\":\"r\",\"id\":\"n{sequence}\",\"body\":{{\"sequence\":{sequence}}}}}\n")
    };
    let lines: String = (1..=3).map(line).collect();
    let accepted = (StatusCode::ACCEPTED, json!({"accepted": 3, "known": 0}));
    assert_eq!(answer(post("application/x-ndjson", format!("\u{feff}{lines}\r\n\n"))).await, accepted);
    assert_eq!(answer(post("application/x-ndjson", lines)).await.1, json!({"accepted": 0, "known": 3}));
    assert_eq!(answer(post("application/x-ndjson", String::new())).await.1, json!({"accepted": 0}));
    let bad = |body: String, code: &'static str, line: Option<u64>| {
        let request = post("application/x-ndjson", body);
        async move {
            let (_, body) = answer(request).await;
            assert_eq!(body["code"], code, "{body}");
            assert_eq!(body["lines"][0]["line"].as_u64(), line, "{body}");
        }
    };
    bad(line(4) + "{}\n", "bad_line", Some(2)).await;
    bad(line(4) + "\n{\"key\":\"r\",\"body\":1}", "no_id", Some(3)).await;
    bad(line(4) + &line(3).replace("\"sequence\":3", "\"sequence\":9"), "id_reused", Some(2)).await;
    bad((4..=14).map(line).collect(), "body_too_large", None).await;

    let event = |id: &str, sequence: u64| json!({"specversion": "1.0", "id": id, "source": "/test", "type": "t", "subject": "r", "data": {"sequence": sequence}});
    let one = post("application/cloudevents+json; charset=utf-8", event("e4", 4).to_string());
    assert_eq!(answer(one).await.1, json!({"record_key": "r", "update_id": "e4", "state": "accepted"}));
    let two = post("application/cloudevents-batch+json", json!([event("e5", 5), event("e6", 6)]).to_string());
    assert_eq!(answer(two).await.1, json!({"accepted": 2, "known": 0}));
    let binary = door.request(Method::POST, "/updates");
    let binary = ["ce-specversion:1.0", "ce-id:e7", "ce-type:t", "ce-source:/a%20b", "ce-subject:r"]
        .iter()
        .map(|header| header.split_once(':').unwrap())
        .fold(binary, |request, (name, value)| request.header(name, value));
    let binary = binary.header("content-type", "application/json").body("{\"sequence\":7}");
    assert_eq!(answer(binary).await.1, json!({"record_key": "r", "update_id": "e7", "state": "accepted"}));
    let unsupported = answer(post("text/plain", "x".to_owned())).await;
    assert_eq!(unsupported.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_flawless(&world.applied(7).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_send_is_refused() {
    let world = World::new("ingest-clients").await;
    let _dispatcher = world.dispatcher("").await;
    let extra = "[[ingest.client]]\nname = \"flow\"\ntokens = [\"fedcba9876543210-flow\"]\nheader = \"x-api-key\"\n\
                 types = [\"order.*\"]\nrate_max = \"1/1h\"\n";
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + extra)).await;
    door.process.ready().await;
    let url = format!("http://{}/updates/r/1", door.address);
    let put = || crate::harness::http().put(&url).json(&json!({"sequence": 1}));
    let code =
        |(status, body): (StatusCode, Value)| (status.as_u16(), body["code"].as_str().map(str::to_owned));
    let unauthorized = || (401, Some("unauthorized".to_owned()));
    assert_eq!(code(answer(put()).await), unauthorized());
    assert_eq!(code(answer(put().bearer_auth("0123456789abcdef-no")).await), unauthorized());
    assert_eq!(code(answer(put().header("x-api-key", super::TOKEN)).await), unauthorized());
    let flow = || put().header("x-api-key", "fedcba9876543210-flow");
    assert_eq!(code(answer(flow()).await).0, 403);
    assert_eq!(code(answer(flow().header("lanekeeper-type", "customer.updated")).await).0, 403);
    assert_eq!(code(answer(flow().header("lanekeeper-type", "order.paid")).await).0, 202);
    assert_eq!(
        code(answer(flow().header("lanekeeper-type", "order.paid")).await),
        (429, Some("too_many".to_owned()))
    );
    let basic = put().basic_auth("any", Some(super::TOKEN));
    assert_eq!(answer(basic).await.1["state"], "known");
    assert_flawless(&world.applied(1).await, 1);
    let log = door.process.log().join("\n");
    assert!(!log.contains("0123456789abcdef") && !log.contains("fedcba"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_update_is_refused() {
    let world = World::with("ingest-unfit", ReceiverSettings::default()).await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, "").await;
    let check = async |method: Method, path: &str, headers: &[(&str, &str)], expected: (u16, &str)| {
        let request = headers
            .iter()
            .fold(door.request(method, path), |request, (name, value)| request.header(*name, *value));
        let (status, body) = answer(request.body("{}")).await;
        assert_eq!(
            (status.as_u16(), body["code"].as_str()),
            (expected.0, Some(expected.1)),
            "{path} {headers:?}: {body}"
        );
    };
    let (post, put) = (Method::POST, Method::PUT);
    check(post.clone(), "/updates/r", &[], (400, "no_id")).await;
    check(put.clone(), "/updates/r/%C3%A9", &[], (400, "id_unfit")).await;
    check(put.clone(), "/updates/r/1", &[("idempotency-key", "2")], (400, "id_unfit")).await;
    check(put.clone(), &format!("/updates/{}/1", "x".repeat(256)), &[], (400, "key_unfit")).await;
    check(put.clone(), "/updates/%FF/1", &[], (400, "key_unfit")).await;
    check(put.clone(), "/updates/r/1", &[("record-version", "x")], (400, "header_unfit")).await;
    check(put.clone(), "/updates/r/1", &[("ce-", "x")], (400, "header_unfit")).await;
    check(put.clone(), "/updates/r/1", &[("content-length", "2000000")], (413, "body_too_large")).await;
    check(post.clone(), "/nothing", &[], (404, "not_found")).await;
    check(Method::GET, "/updates", &[], (405, "method")).await;
    check(post.clone(), "/updates/r/1", &[], (405, "method")).await;
    // A key of an update need not be a word.
    let odd = door.request(put, "/updates/a%2Fb%20%C3%A9/1").json(&json!({"sequence": 1}));
    assert_eq!(answer(odd).await.1["record_key"], "a/b é");
    world.applied(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_config_and_a_taken_port_end_the_command() {
    let world = World::new("ingest-exit").await;
    let run = |text: String| {
        let path = world.dir.path().join("faulty.toml");
        std::fs::write(&path, text).unwrap();
        lanekeeper(&["ingest", "--config", path.to_str().unwrap()], &[], b"")
    };
    let text = config(&world, world.broker.url(), "");
    let no_client = run(text.split("[[ingest.client]]").next().unwrap().to_owned());
    assert_eq!(no_client.code, Some(2), "{}", no_client.stderr);
    assert!(no_client.stderr.contains("nobody could send anything"), "{}", no_client.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _keeps = std::net::TcpListener::bind(&taken);
    let listens = run(text.replacen(
        "[ingest]\nlisten = \"127.0.0.1:0\"",
        &format!("[ingest]\nlisten = \"{taken}\""),
        1,
    ));
    assert_eq!(listens.code, Some(1), "{}", listens.stderr);
    assert!(listens.stderr.contains("cannot listen on ingest.listen"), "{}", listens.stderr);
}
