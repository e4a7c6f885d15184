//! Doors are seen: `lanekeeper status` and the pages of a dispatcher show what each door does for its clients and hooks.

use std::sync::Arc;

use lanekeeper_lab::receiver::ReceiverSettings;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::hooks::{hex, hook, now};
use super::{Ingest, TOKEN, answer, config, metric_is};
use crate::harness::{Broker, Dispatcher, World, http, lanekeeper, until};
use crate::refusals::set_alarm;

const READ_TOKEN: &str = "0123456789abcdef-read";
const HOOKS: &str = r#"
[[ingest.hook]]
name = "stripe"
verify = "stripe"
secrets = ["whsec_secret"]
record_key = ["/data/object/id"]
"#;

/// A door of this name, whose user is this one.
async fn door(world: &World, name: &str, user: &str) -> Ingest {
    let url = world.broker.url().replace("guest:guest@", user);
    let config = format!("instance.name = \"{name}\"\n{}{HOOKS}", config(world, &url, ""));
    let path = world.dir.path().join(format!("{name}.toml"));
    std::fs::write(&path, config).expect("the config can be written");
    let door = Ingest::start_file(&path).await;
    door.process.ready().await;
    door
}

async fn dispatcher(world: &World) -> Dispatcher {
    world.dispatcher(&format!("updates.partitions = 2\nadmin.read_token = \"{READ_TOKEN}\"\n")).await
}

/// `GET` at the dispatcher's admin port.
async fn page(dispatcher: &Dispatcher, path: &str) -> (StatusCode, String) {
    let url = format!("http://{}{path}", dispatcher.admin().await);
    let request = http().get(url).header("authorization", format!("Bearer {READ_TOKEN}"));
    let answer = request.send().await.expect("it answers");
    (answer.status(), answer.text().await.expect("a text"))
}

/// What `lanekeeper status` prints, with these options; or why the broker cannot be asked.
async fn try_status(world: &World, options: &[&str]) -> Result<String, String> {
    let config = world.dir.path().join("lanekeeper.toml").display().to_string();
    let arguments = [&["status", "--config", &config], options].concat();
    let arguments: Vec<String> = arguments.into_iter().map(ToOwned::to_owned).collect();
    let run = move || lanekeeper(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[], b"");
    let output = tokio::task::spawn_blocking(run).await.expect("it does not panic");
    if output.code == Some(0) { Ok(output.stdout) } else { Err(output.stderr) }
}

async fn status(world: &World) -> String {
    try_status(world, &[]).await.expect("the broker is asked")
}

/// Asks until the doors are as they are expected, and returns the report.
async fn doors_are(world: &World, what: &str, expected: impl Fn(&[Value]) -> bool) -> Value {
    until(what, || async {
        let report: Value = serde_json::from_str(&try_status(world, &["--json"]).await?).expect("JSON");
        let doors = report["doors"].as_array().expect("a list").clone();
        if expected(&doors) { Ok(report) } else { Err(report["doors"].to_string()) }
    })
    .await
}

fn sender<'a>(door: &'a Value, name: &str) -> &'a Value {
    let senders = door["senders"].as_array().expect("a list");
    senders.iter().find(|sender| sender["name"] == name).expect("there is one of this name")
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_are_shown_with_what_they_do_for_each_client_and_hook() {
    let world = World::on(Arc::new(Broker::start()), "updates", ReceiverSettings::default()).await;
    let dispatcher = dispatcher(&world).await;
    let (mut one, mut two) =
        (door(&world, "door-1", "guest:guest@").await, door(&world, "door-2", "guest:guest@").await);
    let body = json!({"sequence": 1});
    for id in ["a", "b", "c", "c"] {
        assert_eq!(answer(one.put("secret-record", id, &body)).await.0, StatusCode::ACCEPTED);
    }
    let without_id = one.request(reqwest::Method::POST, "/updates/secret-record").body("{}");
    assert_eq!(answer(without_id).await.1["code"], "no_id");
    let wrong = http().put(format!("http://{}/updates/secret-record/d", one.address)).bearer_auth("wrong");
    assert_eq!(answer(wrong).await.1["code"], "unauthorized");
    let event = json!({"id": "evt_1", "type": "t", "data": {"object": {"id": "cus_secret"}}}).to_string();
    let stripe = async |secret: &str| {
        let time = now();
        let signature = hex(secret, format!("{time}.{event}").as_bytes());
        hook(&two, "stripe", &[("stripe-signature", format!("t={time},v1={signature}"))], &event).await.0
    };
    assert_eq!(stripe("whsec_secret").await, StatusCode::ACCEPTED);

    let report = doors_are(&world, "both doors with what they did", |doors| {
        doors.len() == 2
            && doors[0]["known"] == 1
            && doors[1]["accepted"] == 1
            && doors[0]["refused"] == json!({"no_id": 1, "unauthorized": 1})
    })
    .await;
    let doors = &report["doors"];
    let crm = sender(&doors[0], "crm");
    assert_eq!((&doors[0]["instance"], &doors[1]["instance"]), (&json!("door-1"), &json!("door-2")));
    assert_eq!((&crm["accepted"], &crm["known"], &crm["per_minute"]), (&json!(3), &json!(1), &json!(4)));
    assert_eq!(crm["last_failure"], "400 no_id: The update has no id");
    assert_eq!(doors[0]["last_failure"], "401 unauthorized: A token is needed");
    assert_eq!(sender(&doors[1], "stripe")["accepted"], 1);
    // A door is no replica, and no process is waited for because of it.
    assert_eq!(report["processes"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!((&report["silent"], &report["fault"]), (&json!([]), &Value::Null));
    assert_eq!(report["verdict"]["must_act"], false, "{report}");

    for _ in 0..6 {
        assert_eq!(stripe("whsec_other").await, StatusCode::UNAUTHORIZED);
    }
    until("the first line says that a hook gets no good signature", || async {
        let text = status(&world).await;
        let first = text.lines().next().unwrap_or_default();
        if first.starts_with("A person must act: The last 6 requests to hook stripe had no good signature") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let text = status(&world).await;
    let shown = page(&dispatcher, "/").await.1;
    for part in ["door-1", "door-2", "401 unauthorized: no signature fits the body and a secret"] {
        assert!(text.contains(part) && shown.contains(part), "{part}: {text}\n{shown}");
    }
    let process = doors[1]["process"].as_str().expect("an id");
    let (code, of_door) = page(&dispatcher, &format!("/door?process={process}")).await;
    assert!(code == StatusCode::OK && of_door.contains("unauthorized 6"), "{of_door}");
    assert_eq!(page(&dispatcher, "/door?process=another").await.0, StatusCode::NOT_FOUND);
    let api: Value = serde_json::from_str(&page(&dispatcher, "/api/status").await.1).expect("JSON");
    assert_eq!(api["doors"][0]["accepted"], 3, "{api}");
    for secret in ["secret-record", "cus_secret", TOKEN, "whsec"] {
        assert!(![&text, &shown, &of_door, &api.to_string()].iter().any(|shown| shown.contains(secret)));
    }

    set_alarm(&world.broker, true).await;
    let report = doors_are(&world, "the doors as they were before the alarm", |doors| {
        doors.len() == 2 && doors.iter().all(|door| door["silent_ms"].is_null())
    })
    .await;
    assert!(!report["verdict"].to_string().contains("No report from"), "{}", report["verdict"]);
    set_alarm(&world.broker, false).await;
    doors_are(&world, "both doors after the alarm", |doors| {
        doors.len() == 2
            && doors.iter().all(|door| door["silent_ms"].as_u64().is_some_and(|silent| silent < 2_500))
    })
    .await;

    world.broker.restart();
    let is_back = |door: &Value| {
        door["unready"].is_null()
            && door["reconnects"].as_u64() >= Some(1)
            && door["silent_ms"].as_u64().is_some_and(|silent| silent < 4_000)
    };
    doors_are(&world, "both doors after a restart of the broker", |doors| {
        doors.len() == 2 && doors.iter().all(is_back)
    })
    .await;
    metric_is(&one, "lanekeeper_ingest_reconnects_total", 1.0).await;
    assert_eq!(answer(one.put("secret-record", "e", &body)).await.0, StatusCode::ACCEPTED);

    one.process.terminate();
    assert_eq!(one.process.ended().await, Some(0));
    doors_are(&world, "a door that ends is gone", |doors| {
        let is_missed = |door: &Value| door["silent_ms"].as_u64() > Some(10_000);
        assert!(!doors.iter().any(is_missed), "it has said that it ends: {doors:?}");
        doors.len() == 1 && doors[0]["instance"] == "door-2"
    })
    .await;
    two.process.kill();
    until("a door that is killed is missed", || async {
        let text = status(&world).await;
        if text.contains("No report from door door-2: ended without a word") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_may_only_publish_updates_says_once_how_to_have_it_shown() {
    let world = World::new("ingest-unshown").await;
    let _dispatcher = dispatcher(&world).await;
    let exchange = &world.exchange;
    for (user, write) in
        [("publishes", format!("^{exchange}$")), ("reports", format!(r"^{exchange}(\.doors)?$"))]
    {
        world.broker.ctl(&["add_user", user, "right"]);
        world.broker.ctl(&["set_permissions", user, "^$", &write, "^$"]);
    }
    let unshown = door(&world, "unshown", "publishes:right@").await;
    let hint = "do not show this door, since its user may not write to this exchange";
    let line = unshown.process.logged(hint).await;
    assert!(line.contains(" INFO ") && line.contains(r"(\.doors)?$"), "{line}");
    assert_eq!(answer(unshown.put("r", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    let shown = door(&world, "shown", "reports:right@").await;
    assert_eq!(answer(shown.put("r", "2", &json!({"sequence": 2}))).await.0, StatusCode::ACCEPTED);
    let report = doors_are(&world, "the door whose user may report", |doors| {
        !doors.is_empty() && doors[0]["accepted"] == 1
    })
    .await;
    assert_eq!(report["doors"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["doors"][0]["instance"], "shown");
    world.applied(2).await;
    let log = unshown.process.log();
    assert_eq!(log.iter().filter(|line| line.contains(hint)).count(), 1, "{log:?}");
    assert!(!log.iter().any(|line| line.contains(" WARN ") || line.contains(" ERROR ")), "{log:?}");
}
