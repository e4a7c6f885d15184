//! Parked records by pages and API, on a ledger in a file.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::port::{Listen, Port, WRITE, config};
use super::wait::until;
use super::world::{World, encoded};
use lanekeeper_ledger::ParkedState;

/// Keys that are paths, queries, markup, no names of files, or long.
fn odd_keys() -> Vec<String> {
    let odd = [
        "a/b",
        "..",
        ".",
        "../../etc/passwd",
        "a%2Fb",
        "%2e%2e",
        "a b+c",
        "a?b=c&d#e",
        "<script>alert(1)</script>",
        "\"onload=\"x",
        "客户🌍\u{202e}",
        "a\r\nset-cookie: x=y",
        "\u{0}",
    ];
    odd.into_iter().map(str::to_owned).chain(["k".repeat(255), "ü".repeat(127)]).collect()
}

#[tokio::test]
async fn a_parked_record_is_found_and_read() {
    let world = World::begin().await;
    assert_eq!(world.json("/api/parked").await, json!({ "records": [], "next": null }));
    world.park("customer/17", "u1", b"{\"name\": \"<script>alert(1)</script>\"}").await;
    world.park("customer/17", "u2", b"\0\xff").await;
    world.park("other", "u3", b"").await;
    let page = world.port.get("/parked?contains=customer%2F&reason=rejected&target=crm", &[]).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("/parked/record?key=customer%2F17") && !page.body.contains("key=other"));
    assert!(page.body.contains("no such country &lt;b&gt;"), "{}", page.body);
    let page = world.port.get("/parked/record?key=customer%2F17", &[]).await.body;
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script>alert"),
        "{page}"
    );
    assert!(page.contains("0000  00 ff"), "{page}");

    let found = world.json("/api/parked?contains=17").await;
    assert_eq!(found["records"].as_array().unwrap().len(), 1);
    let record = &found["records"][0];
    for (name, value) in [
        ("key", json!("customer/17")),
        ("state", json!("parked")),
        ("updates", json!(2)),
        ("head_id", json!("u1")),
        ("target", json!("crm")),
        ("reason", json!("rejected")),
        ("status", json!(422)),
        ("attempts", json!(3)),
        ("partition", json!("p002")),
    ] {
        assert_eq!(record[name], value, "{name}");
    }
    assert_eq!(world.json("/api/parked?before=2020-01-01T00:00:00Z").await["records"], json!([]));
    let updates = world.json("/api/parked/updates?key=customer%2F17").await;
    assert_eq!(updates["updates"][0]["body"]["text"], json!("{\"name\": \"<script>alert(1)</script>\"}"));
    assert_eq!(updates["updates"][1]["body"]["base64"], json!("AP8="));
    let seq = updates["updates"][0]["seq"].as_i64().unwrap();
    let body = world.port.get(&format!("/api/parked/body?key=customer%2F17&seq={seq}"), &[]).await;
    assert_eq!(body.header("content-type"), Some("application/octet-stream"), "no browser shows it");
    assert!(body.header("content-disposition").unwrap().starts_with("attachment;"));
    assert_eq!(body.body, "{\"name\": \"<script>alert(1)</script>\"}");
    let gone = world.port.get(&format!("/api/parked/body?key=other&seq={seq}"), &[]).await;
    assert_eq!(gone.status, 404);

    let exported = world.port.get("/api/parked/export", &[]).await;
    assert_eq!(exported.header("content-type"), Some("application/x-ndjson"));
    let exported = exported.body;
    let ids: Vec<Json> = exported
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids.len(), 3, "{exported}");
    let position = |id: &str| ids.iter().position(|found| found == id).unwrap();
    assert!(position("u1") < position("u2"), "in the order of a record: {ids:?}");
    let one = world.port.get("/api/parked/export?key=other", &[]).await.body;
    assert!(one.contains("\"u3\"") && !one.contains("\"u1\""), "{one}");
    assert_eq!(world.port.get("/api/parked/export?key=nobody", &[]).await.status, 404);
}

#[tokio::test]
async fn odd_keys_lead_where_they_should_and_do_nothing_else() {
    let world = World::begin().await;
    for (number, key) in odd_keys().iter().enumerate() {
        world.park(key, &format!("odd-{number}"), b"1").await;
    }
    let list = world.port.get("/parked", &[]).await;
    assert!(!list.body.contains("<script>") && !list.body.contains("\"onload=\""), "{}", list.body);
    assert_eq!(list.header("set-cookie"), None);
    let session = world.port.log_in(WRITE).await;
    for (number, key) in odd_keys().iter().enumerate() {
        let (path, id) = (format!("/parked/record?key={}", encoded(key)), format!("odd-{number}"));
        assert!(list.body.contains(&format!("href=\"{path}\"")), "{key:?}");
        let page = world.port.get(&path, &[&session]).await;
        assert!(page.status == 200 && page.body.contains(&id), "{key:?}: {page:?}");
        let updates = world.json(&format!("/api/parked/updates?key={}", encoded(key))).await;
        assert_eq!((&updates["record"]["key"], &updates["record"]["head_id"]), (&json!(key), &json!(id)));
        let export = world.port.get(&format!("/api/parked/export?key={}", encoded(key)), &[]).await;
        assert_eq!(export.body.lines().filter(|line| line.contains(&id)).count(), 1, "{key:?}: {export:?}");
        let form = format!(
            "form_token={}&key={}&head_id={id}&who=Ada&why=odd&confirmed=yes",
            page.form_token(),
            encoded(key)
        );
        let released = world.port.post_form("/parked/release", &[&session], &form).await;
        assert_eq!(released.status, 303, "{released:?}");
        assert_eq!(released.header("location"), Some(&*format!("{path}&done=release")));
        assert_eq!(released.header("set-cookie"), None);
        assert_eq!(world.state(key).await, Some(ParkedState::Releasing), "{key:?}");
    }
    let changes = world.json("/api/changes").await;
    assert_eq!(changes["changes"].as_array().unwrap().len(), odd_keys().len());
    for key in ["", &"k".repeat(256), "%FF"] {
        let answer = world.port.get(&format!("/api/parked/updates?key={key}"), &[]).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}

#[tokio::test]
async fn a_release_and_a_discard_are_asked_for_again_and_kept() {
    let world = World::begin().await;
    for id in ["u1", "u2", "u3"] {
        world.park("a", id, b"1").await;
    }
    let reading = world.port.get("/parked/record?key=a", &[]).await;
    assert!(reading.body.contains("href=\"/login\"") && !reading.body.contains("action=\"/parked/release\""));
    let session = world.port.log_in(WRITE).await;
    let token = world.port.get("/parked/record?key=a", &[&session]).await.form_token();
    let post = async |path: &str, form: &str| {
        world.port.post_form(path, &[&session], &format!("form_token={token}&{form}")).await
    };
    let asked = post("/parked/discard", "key=a&head_id=u1&head=1&who=Ada&why=%3Cb%3Etwice").await;
    assert_eq!(asked.status, 200);
    assert!(asked.body.contains("name=\"confirmed\" value=\"yes\"") && asked.body.contains("&lt;b&gt;twice"));
    for (path, form, status) in [
        ("/parked/release", "key=a&head_id=u1&why=x&confirmed=yes", 400),
        ("/parked/release", "key=a&head_id=u1&who=+&why=x&confirmed=yes", 400),
        ("/parked/release", "key=a&head_id=u2&who=Ada&why=x&confirmed=yes", 409),
        ("/parked/release", "key=b&head_id=u1&who=Ada&why=x&confirmed=yes", 404),
        ("/parked/discard", "key=a&head_id=u1&head=0&who=Ada&why=x&confirmed=yes", 400),
        ("/parked/discard", "key=a&head_id=u1&who=Ada&why=x&confirmed=yes", 400),
    ] {
        assert_eq!(post(path, form).await.status, status, "{form}");
    }
    let unchanged = world.json("/api/parked").await;
    assert_eq!(unchanged["records"][0]["updates"], json!(3), "nothing was done");
    for path in ["/parked/release", "/parked/discard"] {
        let by_get = world.port.get(&format!("{path}?key=a&who=Ada&why=x&confirmed=yes"), &[&session]).await;
        assert_eq!(by_get.status, 405, "never by GET");
    }
    let done =
        post("/parked/discard", "key=a&head_id=u1&head=1&who=Ada&why=%3Cb%3Etwice&confirmed=yes").await;
    assert_eq!((done.status, done.header("location")), (303, Some("/parked/record?key=a&done=discard")));
    assert_eq!(post("/parked/release", "key=a&head_id=u2&who=Ada&why=now&confirmed=yes").await.status, 303);
    assert_eq!(post("/parked/release", "key=a&head_id=u2&who=Ada&why=now&confirmed=yes").await.status, 409);
    assert_eq!(world.state("a").await, Some(ParkedState::Releasing));
    let changes = world.json("/api/changes?key=a").await["changes"].clone();
    let row = |index: usize| {
        let row = &changes[index];
        [&row["what"], &row["key"], &row["updates"], &row["who"], &row["why"]]
            .map(ToString::to_string)
            .join(" ")
    };
    assert_eq!(row(0), r#""release" "a" 2 "Ada" "now""#);
    assert_eq!(row(1), r#""discard" "a" 1 "Ada" "<b>twice""#);
    let shown = world.port.get("/changes", &[]).await.body;
    assert!(shown.contains("&lt;b&gt;twice") && !shown.contains("<b>twice"), "{shown}");
    let became = world.json("/api/updates?id=u1").await;
    assert_eq!(
        (&became["updates"][0]["end"], &became["updates"][0]["who"]),
        (&json!("discarded"), &json!("Ada"))
    );
    let became = world.port.get("/updates?id=u2", &[]).await.body;
    assert!(became.contains("released, being sent"), "{became}");
    assert!(world.port.get("/updates?id=u9", &[]).await.body.contains("does not know this id"));
}

#[tokio::test]
async fn the_api_changes_with_the_write_token_alone() {
    let world = World::begin().await;
    world.park("a", "u1", b"1").await;
    world.park("b", "u2", b"1").await;
    let session = world.port.log_in(WRITE).await;
    let release = json!({ "keys": ["a"], "who": "Ada", "why": "x" });
    let json_type = "content-type: application/json";
    for headers in [vec![json_type], vec![json_type, &session]] {
        let answer = world.port.send("POST", "/api/parked/release", &headers, &release.to_string()).await;
        assert_eq!(answer.status, 401, "no cookie of a browser counts: {answer:?}");
    }
    let bearer = format!("authorization: Bearer {WRITE}");
    let plain = ["content-type: text/plain", &bearer];
    assert_eq!(
        world.port.send("POST", "/api/parked/release", &plain, &release.to_string()).await.status,
        415
    );
    for (path, body) in [
        ("release", json!({ "keys": [], "who": "Ada", "why": "x" })),
        ("release", json!({ "keys": ["a"], "who": "", "why": "x" })),
        ("release", json!({ "keys": ["a"], "who": "Ada", "why": "x", "all": true })),
        ("release", json!([])),
        ("discard", json!({ "key": "a", "who": "Ada", "why": "x" })),
        ("discard", json!({ "key": "a", "head": 1, "all": true, "who": "Ada", "why": "x" })),
        ("release-found", json!({ "rate_per_second": 0, "who": "Ada", "why": "x" })),
        (
            "release-found",
            json!({ "rate_per_second": 1, "search": { "reason": "x" }, "who": "Ada", "why": "x" }),
        ),
    ] {
        let answer = world.change(&format!("/api/parked/{path}"), &body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    let discarded = world
        .change("/api/parked/discard", &json!({ "key": "b", "all": true, "who": "Ada", "why": "x" }))
        .await;
    assert_eq!((discarded.status, discarded.body.as_str()), (200, r#"{"left":0,"updates":1}"#));
    let released = world.change("/api/parked/release", &release).await;
    assert_eq!((released.status, released.body.as_str()), (200, r#"{"paused":0,"records":1,"updates":1}"#));
    assert_eq!((world.state("a").await, world.state("b").await), (Some(ParkedState::Releasing), None));
}

#[tokio::test]
async fn all_that_a_search_finds_is_released_at_a_rate_and_can_be_stopped() {
    let world = World::begin().await;
    for number in 0..30 {
        world.park(&format!("customer-{number:02}"), &format!("u{number}"), b"1").await;
    }
    world.park("other", "u30", b"1").await;
    let begin =
        json!({ "search": { "contains": "customer" }, "rate_per_second": 10, "who": "Ada", "why": "fixed" });
    let begun = Instant::now();
    assert_eq!(world.change("/api/parked/release-found", &begin).await.status, 200);
    assert_eq!(world.change("/api/parked/release-found", &begin).await.status, 409, "one at a time");
    let ended = async || {
        until("the end of the release", || async {
            let shown = world.json("/api/parked/release-found").await["last"].clone();
            if shown["state"] == "running" { Err(shown.to_string()) } else { Ok(shown) }
        })
        .await
    };
    let done = ended().await;
    assert_eq!((&done["state"], &done["records"]), (&json!("done"), &json!(30)), "{done}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "ten in a second: {:?}", begun.elapsed());
    assert_eq!(world.state("other").await, Some(ParkedState::Parked));
    let changes = world.json("/api/changes").await;
    assert_eq!(changes["changes"][0]["of"], json!("parked records whose key contains \"customer\""));

    for number in 0..30 {
        world.park(&format!("second-{number:02}"), &format!("v{number}"), b"1").await;
    }
    let begin =
        json!({ "search": { "contains": "second" }, "rate_per_second": 1, "who": "Ada", "why": "fixed" });
    assert_eq!(world.change("/api/parked/release-found", &begin).await.status, 200);
    let page = world.port.get("/parked/releasing", &[&world.port.log_in(WRITE).await]).await;
    assert!(page.body.contains("Stop it") && page.header("refresh") == Some("2"), "{page:?}");
    assert_eq!(world.change("/api/parked/release-found/stop", &json!({})).await.status, 200);
    let stopped = ended().await;
    assert_eq!(stopped["state"], json!("stopped"));
    assert!(stopped["records"].as_u64().unwrap() < 5, "{stopped}");
}

#[tokio::test]
async fn without_a_ledger_the_pages_say_so() {
    let config = config(Listen::OnLoopback, None, Some(WRITE));
    let starting = Port::open(&config).await;
    let without = Port::open_with(&config, |parts| parts.ledger.set(None)).await;
    for path in ["/parked", "/paused", "/updates", "/changes", "/parked/record?key=a"] {
        let answer = starting.get(path, &[]).await;
        assert!(answer.status == 503 && answer.body.contains("The process starts"), "{path}: {answer:?}");
        let answer = without.get(path, &[]).await;
        assert!(answer.status == 409 && answer.body.contains("There is no ledger"), "{path}: {answer:?}");
    }
    assert_eq!(
        without.get("/api/parked/export", &[]).await.header("content-type"),
        Some("application/problem+json")
    );
}
