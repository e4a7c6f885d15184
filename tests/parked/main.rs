//! `lanekeeper parked`, the built binary, on ledgers that were written through the trait.

#[expect(dead_code, reason = "the suite of the ledgers uses it")]
#[path = "../it/harness/wait.rs"]
mod wait;
#[expect(dead_code, reason = "the suite of the ledgers uses all of it")]
#[path = "../../crates/ledger/tests/ledger/world.rs"]
mod world;

use std::process::Command;

use lanekeeper_broker::publisher::json_line;
use lanekeeper_ledger::{BoundTopology, IdStatus, Ledger, LedgerPlace, TopologyPlace};
use serde_json::Value as Json;

use crate::world::{World, lookup, on_both, park, park_behind, parked, write};

on_both!(
    a_person_lists_shows_and_exports_what_is_parked,
    a_person_releases_and_discards,
    changes_are_listed_with_who_and_why,
    a_record_is_paused_and_resumed,
    a_record_that_is_not_parked_is_exit_code_1,
    the_config_of_another_exchange_is_refused,
);

/// Exit code, standard output, standard error of `lanekeeper parked`.
fn lanekeeper(world: &World, arguments: &[&str]) -> (i32, String, String) {
    with_url(&url(world), &[&["parked"], arguments].concat())
}

fn url(world: &World) -> String {
    match &world.place {
        LedgerPlace::Sqlite(path) => format!("sqlite://{}", path.display()),
        LedgerPlace::Postgres(urls) => urls[0].reveal().to_owned(),
    }
}

fn with_url(url: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
        .env_clear()
        .env("LANEKEEPER_LEDGER__URL", url)
        .env("USER", "ada")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn output_of(world: &World, arguments: &[&str]) -> String {
    let (code, out, error) = lanekeeper(world, arguments);
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

async fn a_person_lists_shows_and_exports_what_is_parked(world: World) {
    let ledger = world.open().await;
    assert_eq!(output_of(&world, &["list"]), "Nothing is parked.\n");
    assert_eq!(output_of(&world, &["list", "--json"]), "");
    write(&ledger, park("customer-17", "u1", "{\"name\": \"Ada\"}")).await;
    write(&ledger, park_behind("customer-17", "u2", "{\"name\": \"\u{1b}\"}")).await;
    write(&ledger, park("customer-4", "u3", "\u{1}")).await;

    let listed = output_of(&world, &["list"]);
    let row = listed.lines().find(|line| line.starts_with("customer-17 ")).unwrap();
    for part in [" 2 parked ", " u1 ", " rejected ", " 422 no such country", "20"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    let lines = output_of(&world, &["list", "--json", "--record", "customer-4"]);
    let record: Json = serde_json::from_str(&lines).unwrap();
    assert_eq!((record["updates"].as_u64(), record["status"].as_u64()), (Some(1), Some(422)));
    assert_eq!((&record["detail"], &record["head"]), (&"no such country".into(), &"u3".into()));

    let shown = output_of(&world, &["show", "customer-17"]);
    assert!(shown.contains("{\"name\": \"Ada\"}") && shown.contains("customer.updated"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "a body cannot steer the terminal: {shown}");
    let shown = output_of(&world, &["show", "customer-17", "--limit", "1"]);
    assert!(shown.contains("… and 1 more"), "{shown}");
    let shown = output_of(&world, &["show", "customer-17", "--json"]);
    let second: Json = serde_json::from_str(shown.lines().nth(1).unwrap()).unwrap();
    assert_eq!((second["reason"].as_str(), second["update"]["id"].as_str()), (Some("behind"), Some("u2")));

    let exported = output_of(&world, &["export"]);
    let keys: Vec<String> = exported
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["u1", "u2", "u3"]);
    let line = json_line::parse(exported.lines().next().unwrap().as_bytes(), 1000, 0).unwrap();
    assert_eq!(
        (line.record_key.as_str(), line.id.as_str()),
        ("customer-17", "u1"),
        "it can be published again"
    );
    assert_eq!(line.body, "{\"name\": \"Ada\"}", "as it was written");
    let exported = output_of(&world, &["export", "customer-4"]);
    assert_eq!(exported.lines().count(), 1);
    let line = json_line::parse(exported.trim_end().as_bytes(), 1000, 0).unwrap();
    assert_eq!(line.body, "\u{1}", "though it is no JSON");
    assert_eq!(parked(&ledger, "customer-17").await, "u1 u2", "they stay");
}

async fn a_person_releases_and_discards(world: World) {
    let ledger = world.open().await;
    for number in 1..=4 {
        write(&ledger, park("a", &format!("u{number}"), "")).await;
    }
    write(&ledger, park("b", "u5", "")).await;
    let (code, _, error) = lanekeeper(&world, &["discard", "a"]);
    assert!(code == 2 && error.contains("--why"), "{error}");
    let out = output_of(&world, &["discard", "a", "--why", "sent by mistake"]);
    assert_eq!(out, "1 discarded, 3 still parked: release the record to send them\n");
    let listed = output_of(&world, &["list", "--record", "a"]);
    assert!(listed.contains(" u2 "), "the first that is left: {listed}");
    output_of(&world, &["discard", "a", "--head", "2", "--why", "these too"]);
    assert_eq!(parked(&ledger, "a").await, "u4");
    assert_eq!(lookup(&ledger, "a", "u2", "").await.id_status, IdStatus::Resolved);
    let kept = "SELECT count(*) FROM ledger_discarded WHERE who = 'ada' AND why = 'these too'";
    assert_eq!(world.count(kept).await, 2);

    assert_eq!(output_of(&world, &["release", "--reason", "conflict"]), "0 records released\n");
    assert_eq!(output_of(&world, &["release", "a"]), "1 record released\n");
    let released = ledger.released(None, 10).await.unwrap();
    assert_eq!(released[0].record_key.as_str(), "a");
    let (code, _, error) = lanekeeper(&world, &["discard", "a", "--why", "too late"]);
    assert!(code == 1 && error.contains("on their way"), "{error}");
    assert_eq!(output_of(&world, &["release", "--all"]), "1 record released\n");
}

async fn changes_are_listed_with_who_and_why(world: World) {
    let ledger = world.open().await;
    for record in ["a", "b", "c"] {
        write(&ledger, park(record, record, "")).await;
    }
    let changes = |arguments: &[&str]| {
        let (code, out, error) = with_url(&url(&world), &[&["ledger", "changes"], arguments].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    };
    assert_eq!(changes(&[]), "Nothing was changed.\n");
    output_of(&world, &["discard", "a", "--why", "sent\nby mistake"]);
    output_of(&world, &["release", "b", "--who", "grace", "--why", "the API is fixed"]);
    output_of(&world, &["release", "--all"]);
    let listed = changes(&[]);
    let lines: Vec<String> =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let ends = [
        "CHANGE OF RECORDS UPDATES WHO WHY",
        " release all parked records 1 1 ada -",
        " release b 1 1 grace the API is fixed",
        " discard a 1 1 ada sent\\nby mistake",
    ];
    assert_eq!(lines.len(), ends.len(), "{listed}");
    for (line, end) in lines.iter().zip(ends) {
        assert!(line.ends_with(end), "{end} in\n{listed}");
    }
    let one: Json = serde_json::from_str(&changes(&["--json", "--record", "b"])).unwrap();
    assert_eq!((&one["change"], &one["record_key"]), (&Json::from("release"), &Json::from("b")));
    assert_eq!((&one["who"], &one["why"]), (&Json::from("grace"), &Json::from("the API is fixed")));
    assert_eq!(changes(&["--limit", "1", "--json"]).lines().count(), 1);
}

async fn a_record_is_paused_and_resumed(world: World) {
    let ledger = world.open().await;
    assert_eq!(output_of(&world, &["paused"]), "No record is paused.\n");
    assert!(output_of(&world, &["pause", "a", "--why", "merged by hand"]).starts_with("a is paused: "));
    let (code, _, error) = lanekeeper(&world, &["pause", "a"]);
    assert!(code == 1 && error.contains("paused already, since 2"), "{code} {error}");
    assert!(error.ends_with("by ada: merged by hand\n"), "{error}");
    write(&ledger, park_behind("a", "u1", "")).await;
    let listed = output_of(&world, &["list"]);
    assert!(listed.contains(" paused ") && listed.contains("paused by ada: merged by hand"), "{listed}");
    assert!(output_of(&world, &["paused"]).trim_end().ends_with("by ada: merged by hand; 1 parked"));
    let (code, out, error) = lanekeeper(&world, &["release", "--all"]);
    assert!(code == 1 && out == "0 records released\n" && error.starts_with("1 not released"), "{error}");
    assert_eq!(output_of(&world, &["resume", "a"]), "a is resumed; 1 released\n");
    let (code, _, error) = lanekeeper(&world, &["resume", "a"]);
    assert!(code == 1 && error.contains("a is not paused"), "{code} {error}");
    write(&ledger, park("b", "u2", "")).await;
    output_of(&world, &["pause", "b"]);
    let out = output_of(&world, &["resume", "b"]);
    assert!(out.starts_with("b is resumed, but stays parked") && out.contains("(rejected)"), "{out}");
}

async fn a_record_that_is_not_parked_is_exit_code_1(world: World) {
    drop(world.open().await);
    for arguments in [
        &["show", "nobody"][..],
        &["release", "nobody"],
        &["discard", "nobody", "--why", "x"],
        &["export", "nobody"],
        &["list", "--record", "nobody"],
    ] {
        let (code, _, error) = lanekeeper(&world, arguments);
        assert!(code == 1 && error.contains("nobody has no parked updates"), "{arguments:?}: {error}");
    }
}

async fn the_config_of_another_exchange_is_refused(world: World) {
    let ledger = world.open().await;
    write(&ledger, park("a", "u1", "")).await;
    let exchange = "orders".to_owned();
    let place = TopologyPlace { cluster: Some("rabbit@a".to_owned()), vhost: "/".to_owned(), exchange };
    let topology = BoundTopology { identity: uuid::Uuid::from_u128(1), place };
    assert!(ledger.bind(None, &topology, uuid::Uuid::from_u128(2), None).await.unwrap());
    let (code, _, stderr) = lanekeeper(&world, &["release", "a"]);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("it belongs to the exchange orders of virtual host / on rabbit@a"), "{stderr}");
    assert_eq!(ledger.released(None, 10).await.unwrap(), [], "nothing goes out");
}

#[test]
fn a_ledger_that_is_none_missing_or_away_has_an_exit_code_of_its_own() {
    let check = |url: &str, code_expected, part: &str| {
        let (code, _, error) = with_url(url, &["parked", "list"]);
        assert!(code == code_expected && error.contains(part), "{url}: {code} {error}");
    };
    check("none", 2, "is \"none\"");
    for pausing in [&["parked", "pause", "a"][..], &["target", "pause", "crm"], &["target", "resume", "crm"]]
    {
        let (code, _, error) = with_url("none", pausing);
        assert!(code == 2 && error.contains("ledger.url is \"none\""), "{pausing:?}: {code} {error}");
    }
    check("sqlite://missing/ledger.db", 4, "there is no ledger");
    check("postgres://u:s3cret@127.0.0.1:1/d", 4, "does not answer");
    let world = World::file();
    let LedgerPlace::Sqlite(path) = &world.place else { panic!("a file") };
    std::fs::write(path, "not a database, but long enough to be looked at".repeat(50)).unwrap();
    check(&format!("sqlite://{}", path.display()), 4, "cannot open the ledger");
}

#[test]
fn a_target_is_paused_and_resumed_by_the_name_that_the_config_has() {
    let world = World::file();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("lanekeeper.toml");
    let target = "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nmethod = \"PUT\"\nurl = \"http://127.0.0.1:1/{record_key}\"\n";
    std::fs::write(&config, target).unwrap();
    drop(tokio::runtime::Runtime::new().unwrap().block_on(world.open()));
    let target = |arguments: &[&str]| {
        with_url(&url(&world), &[&["target"], arguments, &["--config", config.to_str().unwrap()]].concat())
    };
    let (code, _, error) = target(&["pause", "cmr"]);
    assert!(code == 2 && error.contains("the config has no target \"cmr\"; it has crm"), "{code} {error}");
    let (code, out, error) = target(&["pause", "crm", "--who", "grace", "--why", "upgrade"]);
    assert!(code == 0 && out.starts_with("crm is paused: within 2 s"), "{code} {error}");
    let (code, _, error) = target(&["pause", "crm"]);
    assert!(code == 1 && error.ends_with("by grace: upgrade\n"), "{code} {error}");
    let (code, out, _) = target(&["resume", "crm"]);
    assert!(code == 0 && out.starts_with("crm is resumed"), "{code} {out}");
    let (code, _, error) = target(&["resume", "crm"]);
    assert!(code == 1 && error.contains("crm is not paused"), "{code} {error}");
}
