//! What a record waits for, as the built program says it: `lanekeeper why` and `lanekeeper status`, beside processes that run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lanekeeper_lab::receiver::{FailingRecord, ReceiverSettings};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value as Json, json};

use crate::harness::{Broker, Dispatcher, Output, Signal, World, http, lanekeeper, until};
use crate::refusals::set_alarm;

/// The longest time that an answer may take: two seconds, and a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(4);
const READ_TOKEN: &str = "0123456789abcdef-read";

fn replica(world: &World, name: &str, extra: &str) -> (Dispatcher, PathBuf) {
    let config = world
        .config(extra)
        .replace(&format!("instance.name = \"{}\"", world.exchange), &format!("instance.name = \"{name}\""));
    let path = world.dir.path().join(format!("{name}.toml"));
    std::fs::write(&path, config).expect("the config can be written");
    (Dispatcher::start(&path), path)
}

async fn run(arguments: Vec<String>) -> Output {
    let running = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        lanekeeper(&arguments, &[], b"")
    };
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(running).await.expect("it does not panic");
    assert!(began.elapsed() < ANSWER_MAX, "{:?}: {}", began.elapsed(), output.stdout);
    output
}

async fn ask(config: &Path, what: &[&str]) -> Json {
    let config = config.to_str().expect("temporary directories have plain names");
    let arguments = [what, &["--json", "--config", config]].concat();
    let output = run(arguments.into_iter().map(ToOwned::to_owned).collect()).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or_else(|fault| panic!("{fault}: {}", output.stdout))
}

/// Asks until the record waits for this.
async fn waits_for(config: &Path, record: &str, code: &str) -> Json {
    until(&format!("{record} waits for {code}"), || async {
        let report = ask(config, &["why", record]).await;
        if report["wait"]["cause"]["code"] == code { Ok(report) } else { Err(report["wait"].to_string()) }
    })
    .await
}

/// Connections of this process to the broker, as the AMQP client has a thread for each.
fn connection_threads(process: &Dispatcher) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin-io-loop")).count()
}

/// `GET /api/records/KEY` of this process.
async fn by_api(process: &Dispatcher, record: &str) -> Json {
    let url = format!("http://{}/api/records/{record}", process.admin().await);
    let request = http().get(&url).header("authorization", format!("Bearer {READ_TOKEN}"));
    let answer = request.send().await.expect("it answers");
    assert!(answer.status().is_success(), "{}", answer.status());
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

fn failing(records: &[&str]) -> ReceiverSettings {
    let fail_records = records.iter().map(|of| of.parse::<FailingRecord>().expect("a failing record"));
    ReceiverSettings {
        fail_records: fail_records.collect(),
        hang_for: Duration::from_secs(600),
        ..ReceiverSettings::default()
    }
}

fn update(record: &str, number: u32) -> Json {
    json!({"key": record, "id": format!("{record}-{number}"), "type": "record.updated", "body": {"sequence": number}})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_says_what_a_record_of_any_owner_waits_for() {
    let records = ["retried=503", "parked=422", "hangs=hang"];
    let world = World::with("why", failing(&records)).await;
    let extra = format!(
        "{}updates.partitions = 6\nretry.delay_initial = \"5m\"\nretry.delay_max = \"5m\"\nbreaker.enabled = false\nadmin.read_token \
         = \"{READ_TOKEN}\"\n",
        world.ledger()
    );
    // At once, so that the broker gives partitions to several of them.
    let replicas = ["one", "two", "three"].map(|name| replica(&world, name, &extra));
    for (replica, _) in &replicas {
        replica.ready().await;
    }
    let (_, config) = &replicas[0];
    for number in 1..=3 {
        world.publish(["retried", "parked", "hangs", "fine"].map(|record| update(record, number))).await;
    }
    for (_, config) in &replicas {
        let retried = waits_for(config, "retried", "retry").await;
        assert_eq!(retried["wait"]["cause"]["attempts"], 1);
        let sentence = retried["wait"]["sentence"].as_str().expect("a sentence");
        assert!(sentence.starts_with("Attempt 1 at target receiver failed (status 503"), "{sentence}");
        let lane = &retried["lanes"][0];
        assert_eq!((&lane["update_id"], &lane["behind"]), (&json!("retried-1"), &json!(2)));
        assert_eq!(lane["past_attempts"][0]["status"], 503);
        let (now, at) = (retried["at_ms"].as_i64(), retried["wait"]["ends_at_ms"].as_i64());
        let wait = at.zip(now).map(|(at, now)| at - now);
        assert!(wait.is_some_and(|wait| (100_000..=360_000).contains(&wait)), "{retried}");

        let parked = waits_for(config, "parked", "parked").await;
        assert_eq!(parked["wait"]["needs_person"], true);
        assert_eq!(
            (&parked["ledger"]["parked_updates"], &parked["ledger"]["head_id"]),
            (&json!(3), &json!("parked-1"))
        );

        let fine = waits_for(config, "fine", "nothing").await;
        assert_eq!(fine["ledger"]["last_id"], "fine-3");
        assert_eq!(fine["silent"], json!([]));
        let never = waits_for(config, "never published", "nothing").await;
        assert_eq!(never["lanes"], json!([]));
    }
    for (replica, _) in &replicas {
        for (record, code) in [("retried", "retry"), ("parked", "parked"), ("fine", "nothing")] {
            let report = by_api(replica, record).await;
            assert_eq!(report["wait"]["cause"]["code"], code, "{report}");
            assert_eq!((&report["silent"], &report["fault"]), (&json!([]), &Json::Null), "{report}");
        }
    }
    // The owner that answers is the one that the partition's row names.
    let hangs = ask(config, &["why", "hangs"]).await;
    let code = &hangs["wait"]["cause"]["code"];
    assert!(*code == "in_flight" || *code == "retry", "{hangs}");
    assert!(hangs["owner"].is_string(), "{hangs}");
    let text =
        run(vec!["why".into(), "retried".into(), "--config".into(), config.display().to_string()]).await;
    assert!(
        text.stdout.starts_with("retried [retry]: Attempt 1 at target receiver failed"),
        "{}",
        text.stdout
    );
    nothing_is_left_behind(&world, &["retried", "parked", "hangs", "fine", "never published"]).await;
}

/// No message of the stream of members names a record, and no queue of answers is left.
async fn nothing_is_left_behind(world: &World, records: &[&str]) {
    let channel = world.channel().await;
    channel.basic_qos(100, BasicQosOptions::default()).await.expect("a prefetch");
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let stream = format!("{}.members", world.exchange);
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(stream.as_str().into(), "".into(), options, arguments);
    let mut consumer = consuming.await.expect("the stream can be read");
    let mut questions = Vec::new();
    // The last question stands before a note that comes later.
    let mut notes_after = 0;
    while notes_after < 2 {
        let delivery = consumer.next().await.expect("it goes on").expect("a message");
        delivery.ack(BasicAckOptions::default()).await.expect("credit");
        let text = String::from_utf8_lossy(&delivery.data).into_owned();
        for record in records {
            assert!(!text.contains(record), "{text}");
        }
        let message: Json = serde_json::from_str(&text).expect("JSON");
        match message["kind"].as_str() {
            Some("inquiry") => {
                questions.push(message["inquiry"]["reply_to"].as_str().expect("a queue").to_owned());
                notes_after = 0;
            }
            Some("note") if !questions.is_empty() => notes_after += 1,
            _ => {}
        }
    }
    let newest = questions.pop().expect("somebody has asked");
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looking = channel.queue_declare(newest.as_str().into(), passive, FieldTable::default()).await;
    assert!(looking.is_err(), "{newest} is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_stopped_or_killed_is_named_and_keeps_nobody_waiting() {
    let world = World::with("why-silent", failing(&["retried=503"])).await;
    let extra = format!(
        "{}updates.partitions = 2\nretry.delay_initial = \"5m\"\nretry.delay_max = \"5m\"\n",
        world.ledger()
    );
    let (mut owner, config) = replica(&world, "owner", &extra);
    owner.ready().await;
    world.publish([update("retried", 1)]).await;
    waits_for(&config, "retried", "retry").await;
    owner.signal(Signal::STOP);
    let silent = waits_for(&config, "retried", "owner_silent").await;
    assert_eq!(silent["silent"], json!(["owner"]));
    assert_eq!(silent["wait"]["cause"]["owner"], "owner");
    let status = ask(&config, &["status"]).await;
    assert_eq!(status["verdict"]["must_act"], true);
    assert_eq!(status["silent"], json!(["owner"]));
    owner.signal(Signal::CONT);
    waits_for(&config, "retried", "retry").await;
    // Killed in the middle of answers: each question ends in time, whatever it finds.
    let (other, _) = replica(&world, "other", &extra);
    other.ready().await;
    let asking = {
        let config = config.clone();
        tokio::spawn(async move {
            let mut codes = Vec::new();
            for _ in 0..12 {
                let report = ask(&config, &["why", "retried"]).await;
                codes.push(report["wait"]["cause"]["code"].as_str().expect("a code").to_owned());
            }
            codes
        })
    };
    owner.kill();
    let codes = asking.await.expect("it does not panic");
    assert!(!codes.contains(&"nothing".to_owned()), "it waits all the time: {codes:?}");
    waits_for(&config, "retried", "retry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_an_alarm_the_processes_are_asked_by_their_admin_ports() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", failing(&["retried=503"])).await;
    let extra = format!(
        "{}updates.partitions = 4\nretry.delay_initial = \"5m\"\nretry.delay_max = \"5m\"\nbreaker.enabled = false\nadmin.read_token \
         = \"{READ_TOKEN}\"\n",
        world.ledger()
    );
    let mut replicas = ["one", "two", "three"].map(|name| replica(&world, name, &extra));
    for (replica, _) in &replicas {
        replica.ready().await;
    }
    let config = replicas[0].1.clone();
    world.publish([update("retried", 1), update("retried", 2), update("fine", 1)]).await;
    let before = waits_for(&config, "retried", "retry").await;
    waits_for(&config, "fine", "nothing").await;
    set_alarm(&broker, true).await;
    until("the broker to take no publishes", || async {
        let report = ask(&config, &["why", "retried"]).await;
        if report["fault"].is_string() { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    for (_, config) in &replicas {
        let report = ask(config, &["why", "retried"]).await;
        assert_eq!(report["wait"]["cause"]["code"], "retry", "{report}");
        assert_eq!((&report["lanes"][0]["behind"], &report["owner"]), (&json!(1), &before["owner"]));
        let fault = report["fault"].as_str().expect("it is said how they were asked");
        assert!(fault.ends_with("the processes were asked by their admin ports"), "{fault}");
        assert_eq!(ask(config, &["why", "fine"]).await["wait"]["cause"]["code"], "nothing");
    }
    // A question leaves no connection behind that the broker has blocked, and no thread of it.
    let (asking, _) = &replicas[0];
    let before_asking = connection_threads(asking);
    for _ in 0..12 {
        assert_eq!(by_api(asking, "retried").await["wait"]["cause"]["code"], "retry");
    }
    until("the connections of questions to be gone", || async {
        let now = connection_threads(asking);
        if now <= before_asking + 1 { Ok(()) } else { Err(format!("{now}, and {before_asking} before")) }
    })
    .await;
    let status = ask(&config, &["status"]).await;
    assert_eq!(status["processes"].as_array().map(Vec::len), Some(3), "{status}");
    assert_eq!(status["verdict"]["must_act"], true);
    // One that is gone is named, and what it may hold is not said to be nothing.
    let is_owner = |config: &Path| {
        config.file_stem().is_some_and(|name| name == before["owner"].as_str().unwrap_or("?"))
    };
    let (owner, _) = replicas.iter_mut().find(|(_, config)| is_owner(config)).expect("one of them owns it");
    owner.kill();
    let (_, other) = replicas.iter().find(|(_, config)| !is_owner(config)).expect("there are others");
    let report = ask(other, &["why", "fine"]).await;
    assert_eq!(report["silent"], json!([before["owner"]]), "{report}");
    set_alarm(&broker, false).await;
    waits_for(other, "retried", "retry").await;
    nothing_is_left_behind(&world, &["retried", "fine"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_first_if_a_person_must_act_and_on_what() {
    let world = World::with("status", failing(&["parked=422"])).await;
    let extra = format!("{}updates.partitions = 2\n", world.ledger());
    let (mut process, config) = replica(&world, "one", &extra);
    process.ready().await;
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let shown = || async {
        let arguments = ["status", "--config", config.to_str().expect("a plain name")];
        run(arguments.map(ToOwned::to_owned).to_vec()).await.stdout
    };
    until("nobody must act", || async {
        let text = shown().await;
        if text.starts_with("No person must act. Nothing waits.") { Ok(()) } else { Err(text) }
    })
    .await;
    world.publish([update("parked", 1)]).await;
    until("a parked record is shown", || async {
        let text = shown().await;
        if text.contains("1 record is parked") && text.starts_with("A person must act") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let widest = shown().await.lines().skip(2).map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|widest| widest < 300), "{widest:?}");
    process.terminate();
    assert_eq!(process.ended().await, Some(0));
    let text = shown().await;
    assert!(first_line(&text).contains("No process dispatches: start `lanekeeper run`."), "{text}");
    world.publish([update("late", 1)]).await;
    let report = waits_for(&config, "late", "no_consumer").await;
    assert_eq!(report["wait"]["cause"]["ready"], 1);
    // A port where nobody listens.
    let unreachable = std::fs::read_to_string(&config).expect("it was written");
    let unreachable = unreachable.replace(world.broker.url(), "amqp://127.0.0.1:1/%2f");
    std::fs::write(&config, unreachable).expect("it can be written");
    let output = run(vec!["status".into(), "--config".into(), config.display().to_string()]).await;
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
}
