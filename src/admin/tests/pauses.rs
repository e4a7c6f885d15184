//! Targets and records that people pause and resume by pages and API, on a ledger in a file and without a broker.

use serde_json::{Value as Json, json};

use super::port::{Answer, Listen, Port, READ, WRITE, config};
use super::world::{World, encoded};
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{Operations as _, OperatorReason, ParkedState, Paused};

/// The code of a problem, and its status.
async fn problem(world: &World, path: &str, body: &Json) -> (u16, String) {
    let answer = world.change(path, body).await;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path} {body}: {answer:?}");
    let problem: Json = serde_json::from_str(&answer.body).unwrap();
    (answer.status, problem["code"].as_str().unwrap().to_owned())
}

async fn done(world: &World, path: &str, body: &Json) -> Json {
    let answer = world.change(path, body).await;
    assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

async fn paused_targets(world: &World) -> Vec<String> {
    let paused = world.ledger.paused_targets().await.unwrap();
    paused.into_iter().map(|target| target.name).collect()
}

async fn is_paused(world: &World, key: &str) -> bool {
    let state = world.ledger.record_state(&RecordKey::new(key).unwrap()).await.unwrap();
    state.paused.is_some()
}

fn reason(why: &str) -> OperatorReason {
    OperatorReason { who: "grace".to_owned(), why: why.to_owned() }
}

/// What the page that asks again adds to the form: which pause it ends.
fn confirmed(asked: &Answer) -> String {
    let since = asked.body.split_once("name=\"since\" value=\"").and_then(|(_, rest)| rest.split_once('"'));
    let (since, _) = since.unwrap_or_else(|| panic!("{asked:?}"));
    format!("&confirmed=yes&since={since}")
}

#[tokio::test]
async fn a_target_is_paused_and_resumed_by_the_api() {
    let world = World::begin().await;
    let change = json!({ "name": "crm", "who": "Ada", "why": "upgrade" });
    assert_eq!(problem(&world, "/api/target/resume", &change).await, (409, "not_paused".to_owned()));
    assert_eq!(done(&world, "/api/target/pause", &change).await, json!({ "paused": true }));
    assert_eq!(problem(&world, "/api/target/pause", &change).await, (409, "already_paused".to_owned()));
    let listed = world.json("/api/paused/targets").await;
    assert_eq!(listed["next"], Json::Null);
    let crm = &listed["targets"][0];
    assert_eq!(
        (&crm["name"], &crm["known"], &crm["who"], &crm["why"]),
        (&json!("crm"), &json!(true), &json!("Ada"), &json!("upgrade"))
    );
    assert!(crm["since"].as_str().unwrap().ends_with('Z'), "{crm}");
    assert_eq!(done(&world, "/api/target/resume", &change).await, json!({ "paused": false }));
    assert_eq!(problem(&world, "/api/target/resume", &change).await, (409, "not_paused".to_owned()));
    assert_eq!(world.json("/api/paused/targets").await, json!({ "targets": [], "next": null }));
    let changes = world.json("/api/changes").await["changes"].clone();
    let shown = |index: usize| {
        let row = &changes[index];
        [&row["what"], &row["of"], &row["records"], &row["who"], &row["why"]]
            .map(ToString::to_string)
            .join(" ")
    };
    assert_eq!(changes.as_array().unwrap().len(), 2, "what changed nothing leaves no row: {changes}");
    assert_eq!(shown(0), r#""resume_target" "crm" 0 "Ada" "upgrade""#);
    assert_eq!(shown(1), r#""pause_target" "crm" 0 "Ada" "upgrade""#);
}

#[tokio::test]
async fn a_target_that_no_config_has_is_not_paused_and_can_be_resumed() {
    let world = World::begin().await;
    let gone = json!({ "name": "gone", "who": "Ada", "why": "x" });
    for path in ["/api/target/pause", "/api/target/resume"] {
        assert_eq!(problem(&world, path, &gone).await, (404, "unknown_target".to_owned()));
    }
    assert_eq!(world.ledger.pause_target("gone", &reason("moved")).await.unwrap(), Paused::Done);
    assert_eq!(problem(&world, "/api/target/pause", &gone).await, (404, "unknown_target".to_owned()));
    assert_eq!(world.json("/api/paused/targets").await["targets"][0]["known"], json!(false));
    let session = world.port.log_in(WRITE).await;
    let list = world.port.get("/paused", &[&session]).await;
    assert!(list.body.contains("/target?name=gone") && list.body.contains("not in this process"), "{list:?}");
    let page = world.port.get("/target?name=gone", &[&session]).await;
    assert!(page.status == 200 && page.body.contains("by grace: moved"), "{page:?}");
    let form = format!("form_token={}&name=gone&who=Ada&why=x", page.form_token());
    let asked = world.port.post_form("/target/resume", &[&session], &form).await;
    let resumed = world.port.post_form("/target/resume", &[&session], &(form + &confirmed(&asked))).await;
    assert_eq!((resumed.status, resumed.header("location")), (303, Some("/paused?done=resume")));
    assert_eq!(paused_targets(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_record_is_paused_and_resumed_by_the_api() {
    let world = World::begin().await;
    let change = |key: &str| json!({ "key": key, "who": "Ada", "why": "merged by hand" });
    assert_eq!(problem(&world, "/api/record/resume", &change("a")).await, (409, "not_paused".to_owned()));
    assert_eq!(done(&world, "/api/record/pause", &change("a")).await, json!({ "paused": true }));
    assert_eq!(problem(&world, "/api/record/pause", &change("a")).await, (409, "already_paused".to_owned()));
    let resumed = json!({ "paused": false, "updates": 0, "still_parked": null });
    assert_eq!(done(&world, "/api/record/resume", &change("a")).await, resumed);

    // What had failed before stays parked, and a release passes it over while it is paused.
    world.park("b", "u1", b"1").await;
    done(&world, "/api/record/pause", &change("b")).await;
    let release = json!({ "keys": ["b"], "who": "Ada", "why": "x" });
    let passed_over = json!({ "records": 0, "updates": 0, "paused": 1 });
    assert_eq!(done(&world, "/api/parked/release", &release).await, passed_over);
    assert_eq!(world.json("/api/parked").await["records"][0]["paused"], json!(true));
    let listed = world.json("/api/paused/records").await;
    assert_eq!(
        (&listed["records"][0]["key"], &listed["records"][0]["updates"]),
        (&json!("b"), &json!(1)),
        "{listed}"
    );
    let resumed = done(&world, "/api/record/resume", &change("b")).await;
    assert_eq!((&resumed["updates"], &resumed["still_parked"]["reason"]), (&json!(0), &json!("rejected")));
    assert_eq!(world.state("b").await, Some(ParkedState::Parked));
    let changes = world.json("/api/changes?key=b").await["changes"].clone();
    let kinds: Vec<&Json> = changes.as_array().unwrap().iter().map(|change| &change["what"]).collect();
    assert_eq!(kinds, ["resume_record", "pause_record"]);
}

#[tokio::test]
async fn what_is_paused_comes_in_pages() {
    let world = World::begin().await;
    for number in 0..5 {
        let key = RecordKey::new(format!("k&{number}")).unwrap();
        assert_eq!(world.ledger.pause_record(&key, &reason("many")).await.unwrap(), Paused::Done);
        assert_eq!(
            world.ledger.pause_target(&format!("t&{number}"), &reason("many")).await.unwrap(),
            Paused::Done
        );
    }
    for (what, field, prefix) in [("targets", "name", "t"), ("records", "key", "k")] {
        let (mut path, mut found) = (format!("/api/paused/{what}?limit=2"), Vec::new());
        loop {
            let listed = world.json(&path).await;
            let some = listed[what].as_array().unwrap();
            assert!((1..=2).contains(&some.len()), "{listed}");
            found.extend(some.iter().map(|one| one[field].as_str().unwrap().to_owned()));
            match listed["next"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => break,
            }
        }
        assert_eq!(found, (0..5).map(|number| format!("{prefix}&{number}")).collect::<Vec<_>>());
        for query in ["limit=0", "limit=501", "limit=x", "after=%FF"] {
            let answer = world.port.get(&format!("/api/paused/{what}?{query}"), &[]).await;
            assert_eq!(answer.status, 400, "{query}: {answer:?}");
        }
    }
    let page = world.port.get("/paused?limit=2", &[]).await.body;
    assert!(page.contains("/paused?after_target=t%261&amp;limit=2"), "{page}");
    assert!(page.contains("/paused?after=k%261&amp;limit=2"), "{page}");
    let page = world.port.get("/paused?after=k%263&limit=2", &[]).await.body;
    assert!(page.contains("k&amp;4") && !page.contains("k&amp;3") && !page.contains("?after="), "{page}");
}

#[tokio::test]
async fn the_api_pauses_with_the_write_token_alone_and_with_the_right_fields() {
    let world = World::begin().await;
    let session = world.port.log_in(WRITE).await;
    let json_type = "content-type: application/json";
    let paths = [
        ("target/pause", "name"),
        ("target/resume", "name"),
        ("record/pause", "key"),
        ("record/resume", "key"),
    ];
    for (path, field) in paths {
        let path = format!("/api/{path}");
        let right = json!({ field: "crm", "who": "Ada", "why": "x" });
        for headers in [vec![json_type], vec![json_type, &session]] {
            let answer = world.port.send("POST", &path, &headers, &right.to_string()).await;
            assert_eq!(answer.status, 401, "no cookie of a browser counts: {answer:?}");
        }
        let by_get = world.port.get(&format!("{path}?{field}=crm&who=Ada&why=x"), &[]).await;
        assert_eq!(by_get.status, 405, "never by GET");
        for wrong in [
            json!({ field: "crm", "who": "", "why": "x" }),
            json!({ field: "crm", "who": "Ada", "why": " " }),
            json!({ field: "crm", "who": "a".repeat(201), "why": "x" }),
            json!({ field: "crm", "who": "Ada" }),
            json!({ "who": "Ada", "why": "x" }),
            json!({ field: ["crm"], "who": "Ada", "why": "x" }),
            json!({ field: "crm", "who": "Ada", "why": "x", "all": true }),
            json!([]),
        ] {
            let answer = world.change(&path, &wrong).await;
            assert_eq!(answer.status, 400, "{path} {wrong}: {answer:?}");
        }
    }
    for key in [String::new(), "k".repeat(256)] {
        let wrong = json!({ "key": key, "who": "Ada", "why": "x" });
        assert_eq!(problem(&world, "/api/record/pause", &wrong).await, (400, "invalid_request".to_owned()));
    }
    let reader = Port::open(&config(Listen::OnLoopback, Some(READ), Some(WRITE))).await;
    let bearer = format!("authorization: Bearer {READ}");
    let body = json!({ "name": "crm", "who": "Ada", "why": "x" }).to_string();
    let refused = reader.send("POST", "/api/target/pause", &[json_type, &bearer], &body).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(world.json("/api/changes").await["changes"], json!([]), "nothing was done");
}

#[tokio::test]
async fn pauses_are_asked_for_again_on_the_pages_and_kept() {
    let world = World::begin().await;
    let reading = world.port.get("/target?name=crm", &[]).await;
    assert!(reading.status == 200 && reading.body.contains("href=\"/login\""), "{reading:?}");
    assert!(!reading.body.contains("action=\"/target/pause\""), "{reading:?}");
    let session = world.port.log_in(WRITE).await;
    // Without a broker: the ledger alone is needed.
    let page = world.port.get("/target?name=crm", &[&session]).await;
    assert!(page.body.contains("action=\"/target/pause\""), "{page:?}");
    let token = page.form_token();
    let post = async |path: &str, form: &str| {
        world.port.post_form(path, &[&session], &format!("form_token={token}&{form}")).await
    };
    let asked = post("/target/pause", "name=crm&who=Ada&why=%3Cb%3Eupgrade").await;
    assert_eq!(asked.status, 200, "{asked:?}");
    assert!(
        asked.body.contains("name=\"confirmed\" value=\"yes\"") && asked.body.contains("&lt;b&gt;upgrade")
    );
    assert_eq!(paused_targets(&world).await, Vec::<String>::new(), "asked again first");
    let paused = post("/target/pause", "name=crm&who=Ada&why=%3Cb%3Eupgrade&confirmed=yes").await;
    assert_eq!((paused.status, paused.header("location")), (303, Some("/target?name=crm&done=pause")));
    let page = world.port.get("/target?name=crm&done=pause", &[&session]).await.body;
    assert!(
        page.contains("by Ada: &lt;b&gt;upgrade") && page.contains("action=\"/target/resume\""),
        "{page}"
    );
    assert!(page.contains("Within two seconds") && !page.contains("action=\"/target/pause\""), "{page}");
    for confirmed in ["", "&confirmed=yes"] {
        let again = post("/target/pause", &format!("name=crm&who=Ada&why=x{confirmed}")).await;
        assert!(again.status == 409 && again.body.contains("is paused already"), "{again:?}");
    }
    let asked = post("/target/resume", "name=crm&who=Bob&why=y").await;
    assert!(asked.body.contains("by Ada: &lt;b&gt;upgrade"), "{asked:?}");
    let another = post("/target/resume", "name=crm&who=Bob&why=y&confirmed=yes&since=7").await;
    assert!(another.status == 409 && another.body.contains("has paused it again"), "{another:?}");
    let resumed = post("/target/resume", &format!("name=crm&who=Bob&why=y{}", confirmed(&asked))).await;
    assert_eq!((resumed.status, resumed.header("location")), (303, Some("/target?name=crm&done=resume")));
    assert_eq!(post("/target/resume", "name=crm&who=Bob&why=y&confirmed=yes").await.status, 409);
    let other = world.port.get("/target?name=other", &[&session]).await.body;
    assert!(other.contains("this one's has no such target") && !other.contains("/target/pause"), "{other}");

    let page = world.port.get("/parked/record?key=a", &[&session]).await.body;
    assert!(
        page.contains("action=\"/record/pause\"") && page.contains("name=\"from\" value=\"parked\""),
        "{page}"
    );
    assert_eq!(post("/record/pause", "key=a&from=parked&who=Ada&why=x").await.status, 200);
    assert!(!is_paused(&world, "a").await, "asked again first");
    let paused = post("/record/pause", "key=a&from=parked&who=Ada&why=x&confirmed=yes").await;
    assert_eq!(paused.header("location"), Some("/parked/record?key=a&done=pause"), "{paused:?}");
    let page = world.port.get("/parked/record?key=a&done=pause", &[&session]).await.body;
    assert!(page.contains("by Ada: x") && page.contains("action=\"/record/resume\""), "{page}");
    assert_eq!(post("/record/pause", "key=a&from=parked&who=Ada&why=x").await.status, 409);
    assert_eq!(post("/record/resume", "key=a&who=Ada&why=x&confirmed=yes&since=7").await.status, 409);
    let asked = post("/record/resume", "key=a&who=Ada&why=x").await;
    let resumed = post("/record/resume", &format!("key=a&who=Ada&why=x{}", confirmed(&asked))).await;
    assert_eq!(resumed.header("location"), Some("/record?key=a&done=resume"), "{resumed:?}");
    assert_eq!(post("/record/resume", "key=a&who=Ada&why=x").await.status, 409);
    let changes = world.port.get("/changes", &[]).await.body;
    for part in ["pause target", "resume target", "pause record", "resume record", "/target?name=crm"] {
        assert!(changes.contains(part), "{part}: {changes}");
    }
}

#[tokio::test]
async fn a_paused_record_is_resumed_and_not_released() {
    let world = World::begin().await;
    world.park("a", "u1", b"1").await;
    let key = RecordKey::new("a").unwrap();
    assert_eq!(world.ledger.pause_record(&key, &reason("merged")).await.unwrap(), Paused::Done);
    let session = world.port.log_in(WRITE).await;
    let page = world.port.get("/parked/record?key=a", &[&session]).await;
    assert!(page.body.contains("action=\"/record/resume\""), "{page:?}");
    assert!(!page.body.contains("action=\"/parked/release\""), "{page:?}");
    assert!(world.port.get("/parked", &[]).await.body.contains("paused by a person"));
    for confirmed in ["", "&confirmed=yes"] {
        let form = format!("form_token={}&key=a&head_id=u1&who=Ada&why=x{confirmed}", page.form_token());
        let released = world.port.post_form("/parked/release", &[&session], &form).await;
        assert!(released.status == 409 && released.body.contains("The record is paused"), "{released:?}");
    }
    let form = format!("form_token={}&key=a&from=parked&who=Ada&why=x", page.form_token());
    let asked = world.port.post_form("/record/resume", &[&session], &form).await;
    let resumed = world.port.post_form("/record/resume", &[&session], &(form + &confirmed(&asked))).await;
    assert_eq!(resumed.header("location"), Some("/parked/record?key=a&done=resume-parked"));
    let page = world.port.get("/parked/record?key=a&done=resume-parked", &[&session]).await.body;
    assert!(page.contains("It stays parked") && page.contains("action=\"/parked/release\""), "{page}");
}

#[tokio::test]
async fn forged_and_wrong_forms_pause_nothing() {
    let world = World::begin().await;
    let session = world.port.log_in(WRITE).await;
    let token = world.port.get("/target?name=crm", &[&session]).await.form_token();
    let foreign = "origin: http://evil.example";
    for (path, what) in [
        ("/target/pause", "name=crm"),
        ("/target/resume", "name=crm"),
        ("/record/pause", "key=a"),
        ("/record/resume", "key=a"),
    ] {
        let right = format!("{what}&who=Ada&why=x&confirmed=yes");
        let by_get = world.port.get(&format!("{path}?form_token={token}&{right}"), &[&session]).await;
        assert_eq!(by_get.status, 405, "never by GET");
        let with_token = format!("form_token={token}&{right}");
        for (headers, form) in [
            (vec![session.as_str()], right.clone()),
            (vec![&session], format!("form_token=AAAA&{right}")),
            (vec![&session, foreign], with_token.clone()),
        ] {
            let answer = world.port.post_form(path, &headers, &form).await;
            assert_eq!(answer.status, 403, "{path} {form}: {answer:?}");
        }
        assert_eq!(world.port.post_form(path, &[], &with_token).await.status, 401, "no session");
        for wrong in [
            "who=Ada&why=x&confirmed=yes".to_owned(),
            format!("{what}&why=x&confirmed=yes"),
            format!("{what}&who=+&why=x&confirmed=yes"),
            format!("{what}&who=Ada&confirmed=yes"),
            format!("{what}&{what}&who=Ada&why=x&confirmed=yes"),
        ] {
            let form = format!("form_token={token}&{wrong}");
            assert_eq!(world.port.post_form(path, &[&session], &form).await.status, 400, "{path} {wrong}");
        }
    }
    let unknown = format!("form_token={token}&name=gone&who=Ada&why=x&confirmed=yes");
    for path in ["/target/pause", "/target/resume"] {
        let answer = world.port.post_form(path, &[&session], &unknown).await;
        assert!(answer.status == 404 && answer.body.contains("it has crm"), "{answer:?}");
    }
    assert_eq!(world.json("/api/changes").await["changes"], json!([]), "nothing was done");

    // Who may only read gets no form, and cannot send one.
    let reader = Port::open(&config(Listen::OnLoopback, Some(READ), Some(WRITE))).await;
    let session = reader.log_in(READ).await;
    let page = reader.get("/target?name=crm", &[&session]).await;
    assert!(page.status == 200 && !page.body.contains("action=\"/target/pause\""), "{page:?}");
    let form = format!("form_token={}&name=crm&who=Ada&why=x&confirmed=yes", page.form_token());
    assert_eq!(reader.post_form("/target/pause", &[&session], &form).await.status, 403);
}

#[tokio::test]
async fn a_pause_of_an_odd_key_leads_where_it_should() {
    let world = World::begin().await;
    let session = world.port.log_in(WRITE).await;
    let token = world.port.get("/target?name=crm", &[&session]).await.form_token();
    for key in
        ["a/b", "..", "<script>alert(1)</script>", "a\r\nset-cookie: x=y", "客户🌍\u{202e}", "a&from=record"]
    {
        let path = format!("/parked/record?key={}", encoded(key));
        let form = |confirmed| {
            format!("form_token={token}&key={}&from=parked&who=%3Cb%3E&why=x{confirmed}", encoded(key))
        };
        let asked = world.port.post_form("/record/pause", &[&session], &form("")).await;
        assert!(asked.status == 200 && !asked.body.contains("<script>alert"), "{key:?}: {asked:?}");
        let paused = world.port.post_form("/record/pause", &[&session], &form("&confirmed=yes")).await;
        assert_eq!(paused.header("location"), Some(&*format!("{path}&done=pause")), "{key:?}");
        assert_eq!(paused.header("set-cookie"), None);
        assert!(is_paused(&world, key).await, "{key:?}");
    }
    let list = world.port.get("/paused", &[]).await.body;
    assert!(!list.contains("<script>") && !list.contains("<b>") && list.contains("&lt;b&gt;"), "{list}");
    assert!(list.contains("/parked/record?key=%2E%2E"), "{list}");
}

#[tokio::test]
async fn without_a_ledger_nothing_is_paused_and_the_pages_say_why() {
    let without =
        Port::open_with(&config(Listen::OnLoopback, None, Some(WRITE)), |parts| parts.ledger.set(None)).await;
    let session = without.log_in(WRITE).await;
    let page = without.get("/target?name=crm", &[&session]).await;
    assert!(page.status == 200 && page.body.contains("It cannot be paused"), "{page:?}");
    assert!(!page.body.contains("action=\"/target/pause\""), "{page:?}");
    let bearer = format!("authorization: Bearer {WRITE}");
    let headers = ["content-type: application/json", &bearer];
    for (path, body) in [
        ("/api/target/pause", json!({ "name": "crm", "who": "Ada", "why": "x" })),
        ("/api/target/resume", json!({ "name": "crm", "who": "Ada", "why": "x" })),
        ("/api/record/pause", json!({ "key": "a", "who": "Ada", "why": "x" })),
        ("/api/record/resume", json!({ "key": "a", "who": "Ada", "why": "x" })),
    ] {
        let answer = without.send("POST", path, &headers, &body.to_string()).await;
        assert!(answer.status == 409 && answer.body.contains("\"no_ledger\""), "{answer:?}");
    }
    for path in ["/api/paused/targets", "/api/paused/records"] {
        assert_eq!(without.get(path, &[]).await.status, 409);
    }
    let starting = Port::open(&config(Listen::OnLoopback, None, Some(WRITE))).await;
    let page = starting.get("/target?name=crm", &[]).await;
    assert!(page.status == 200 && page.body.contains("If it is paused is not known"), "{page:?}");
}
