//! The config and its secrets change while the process runs: nothing is lost, parked or out of order.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::harness::{
    Authority, Dispatcher, Door, HttpsTarget, Issued, Postgres, Signal, StandIn, World, assert_flawless,
    lanekeeper_command, pace, until, updates,
};

/// Replaces a file in one step, as secret managers do.
fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, content).expect("the directory is ours");
    std::fs::rename(next, path).expect("the directory is ours");
}

async fn assert_nothing_parked(dispatcher: &Dispatcher) {
    for metric in ["lanekeeper_updates_parked_total", "lanekeeper_updates_dead_lettered_total"] {
        let count = dispatcher.metric(metric).await;
        assert!(count < 0.5, "{metric} {count}");
    }
}

/// Publishes in the background, a part each tenth of a second.
async fn publish_steadily(world: &World, lines: Vec<Value>, each: usize) {
    for part in lines.chunks(each) {
        world.publish(part.to_vec()).await;
        pace(Duration::from_millis(100)).await;
    }
}

async fn applied_last(dispatcher: &Dispatcher, key: &str) {
    until(&format!("{key} in force"), || async {
        let log = dispatcher.log();
        let last = log.iter().rev().find(|line| line.contains("is in force"));
        match last {
            Some(line) if line.contains(key) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_replaced_under_load_is_used_at_once() {
    let world = World::new("rotated-token").await;
    let (door, address) = Door::before(&world.target).await;
    let (bearer, header) = (world.dir.path().join("bearer"), world.dir.path().join("header"));
    replace(&bearer, "one\n");
    replace(&header, "Bearer two\n");
    door.accept(&["Bearer one", "Bearer two"]);
    let extra =
        world.ledger() + "updates.partitions = 4\nbreaker.wait_max = \"2s\"\nretry.delay_max = \"2s\"\n";
    let first = world.config(&extra).replace(&world.target, &format!("http://{address}"));
    let config = first.replace("types = [\"*\"]", "types = [\"record.updated\"]")
        + "[target.auth]\nbearer = \"file:bearer\"\n\
           [[target]]\nname = \"other\"\ntypes = [\"*\"]\nmethod = \"PUT\"\n"
        + &format!(
            "url = \"http://{address}/records/{{record_key}}\"\nheaders = {{ authorization = \"file:header\" }}\n"
        );
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    let mut lines: Vec<Value> = updates(40, 30).collect();
    for line in &mut lines {
        if line["key"].as_str().is_some_and(|key| key.ends_with('3')) {
            line["type"] = "other".into();
        }
    }
    let rotating = async {
        for number in 3..8 {
            pace(Duration::from_millis(700)).await;
            // The old tokens are worth nothing from this moment on, and the file comes later.
            let (one, two) = (format!("Bearer {number}"), format!("Bearer b{number}"));
            door.accept(&[&one, &two]);
            pace(Duration::from_millis(100)).await;
            replace(&bearer, &format!("{number}\n"));
            replace(&header, &two);
        }
    };
    tokio::join!(publish_steadily(&world, lines, 40), rotating);
    assert_flawless(&world.applied(1200).await, 1200);
    assert!(door.refused() > 0, "an old token was seen to be refused");
    assert_nothing_parked(&dispatcher).await;
    applied_last(&dispatcher, "target[").await;
    let log = dispatcher.log().concat();
    assert!(!log.contains("Bearer") && !log.contains("b7"), "no token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_applied_whole_or_not_at_all() {
    let world = World::new("reloaded").await;
    let config = world.config("updates.partitions = 4\n");
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(20, 2)).await;
    world.applied(40).await;
    let admin = dispatcher.admin().await;
    let path = world.dir.path().join("lanekeeper.toml");
    let checked = || {
        let mut command: Command = lanekeeper_command();
        command.arg("check").arg("--against-running").arg("--config").arg(&path);
        command.env("LANEKEEPER_ADMIN__LISTEN", &admin);
        let output = command.output().expect("the binary starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("it prints text"))
    };
    assert_eq!(checked().0, Some(0), "{}", checked().1);

    // A fault: the one before stays.
    world.write_config(&config.replace("method = \"PUT\"", "method = \"put\""));
    let (code, text) = checked();
    assert!(code == Some(2) && text.contains("target[0].method"), "{code:?} {text}");
    dispatcher.signal(Signal::HUP);
    let line = dispatcher.logged("the changed config is not applied").await;
    assert!(line.contains("target[0].method"), "{line}");
    assert!(dispatcher.metric("lanekeeper_config_last_reload_successful").await < 0.5);

    // A change that needs a restart, and one that does not: neither is applied.
    let restart = config.replace(
        "updates.partitions = 4",
        "updates.partitions = 4\nbroker.heartbeat = \"7s\"\nretry.jitter = 0.1",
    );
    world.write_config(&restart);
    let (code, text) = checked();
    assert_eq!(code, Some(10), "{text}");
    for part in ["broker.heartbeat", "after a restart", "retry.jitter", "SIGHUP applies none of them"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    dispatcher.signal(Signal::HUP);
    dispatcher.logged("only a restart applies broker.heartbeat").await;

    // What requests depend on.
    world.write_config(&(config.clone() + "headers = { x-tenant = \"7\" }\n"));
    dispatcher.signal(Signal::HUP);
    applied_last(&dispatcher, "target[0].headers").await;
    assert!(dispatcher.metric("lanekeeper_config_last_reload_successful").await > 0.5);
    world.publish(updates(20, 3).filter(|line| line["body"]["sequence"] == 3).collect::<Vec<_>>()).await;
    world.applied(60).await;

    // What partitions depend on, while updates flow: another target takes what the first had before.
    let second = config.replace("types = [\"*\"]", "types = [\"nothing\"]")
        + &format!(
            "[[target]]\nname = \"second\"\ntypes = [\"*\"]\nurl = \"{}/records/{{record_key}}\"\n",
            world.target
        );
    world.write_config(&second);
    let more = updates(20, 60).filter(|line| line["body"]["sequence"].as_u64() > Some(3)).collect();
    let reloading = async {
        pace(Duration::from_millis(400)).await;
        dispatcher.signal(Signal::HUP);
    };
    tokio::join!(publish_steadily(&world, more, 40), reloading);
    applied_last(&dispatcher, "target[1].name").await;
    assert_flawless(&world.applied(1200).await, 1200);
    dispatcher.ready().await;
    let delivered = dispatcher.metrics().await;
    assert!(delivered.contains("lanekeeper_updates_delivered_total{target=\"second\"}"), "{delivered}");
    assert_nothing_parked(&dispatcher).await;
    assert_eq!(checked().0, Some(0), "{}", checked().1);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_takes_in_a_config_loses_nothing() {
    let world = World::with(
        "reload-killed",
        ReceiverSettings { latency: Duration::from_millis(20), ..ReceiverSettings::default() },
    )
    .await;
    let config = world.config(&(world.ledger() + "updates.partitions = 4\n"));
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(40, 25)).await;
    for round in 0..4 {
        let jitter = format!("updates.partitions = 4\nretry.jitter = 0.{round}1\n");
        world.write_config(&config.replace("updates.partitions = 4\n", &jitter));
        dispatcher.signal(Signal::HUP);
        if round % 2 == 0 {
            dispatcher.logged("then all partitions are attached again").await;
        }
        dispatcher.kill();
        dispatcher = Dispatcher::start(&world.dir.path().join("lanekeeper.toml"));
        dispatcher.ready().await;
    }
    let report = world.applied(1000).await;
    assert_eq!(
        (report.counts.gaps, report.counts.reorders, report.counts.overlaps),
        (0, 0, 0),
        "{}",
        report.counts
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_broker_and_ledger_are_used_when_a_connection_is_opened() {
    let postgres = Postgres::start();
    let world = World::new("rotated-passwords").await;
    world.broker.ctl(&["add_user", "rotated", "one"]);
    world.broker.ctl(&["set_permissions", "rotated", ".*", ".*", ".*"]);
    let (broker, ledger) = (world.dir.path().join("broker"), world.dir.path().join("ledger"));
    let broker_url = |password: &str| {
        let (_, host) = world.broker.url().split_once('@').expect("the harness makes URLs");
        format!("amqp://rotated:{password}@{host}")
    };
    let ledger_url =
        |password: &str| format!("postgres://rotated:{password}@{}/postgres", postgres.address());
    postgres.execute("CREATE ROLE rotated SUPERUSER LOGIN PASSWORD 'one'").await;
    replace(&broker, &broker_url("one"));
    replace(&ledger, &ledger_url("one"));
    let config = world.config("ledger.url = \"file:ledger\"\nupdates.partitions = 4\n");
    let config = config.replace(&format!("\"{}\"", world.broker.url()), "\"file:broker\"");
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(20, 5)).await;
    world.applied(100).await;

    let lines: Vec<Value> =
        updates(20, 40).filter(|line| line["body"]["sequence"].as_u64() > Some(5)).collect();
    let rotating = async {
        pace(Duration::from_millis(300)).await;
        world.broker.ctl(&["change_password", "rotated", "two"]);
        postgres.execute("ALTER ROLE rotated PASSWORD 'two'").await;
        world.broker.ctl(&["close_all_user_connections", "rotated", "rotation"]);
        postgres
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'")
            .await;
        dispatcher.logged("access refused").await;
        replace(&broker, &broker_url("two"));
        replace(&ledger, &ledger_url("two"));
        applied_last(&dispatcher, "ledger.url").await;
    };
    tokio::join!(publish_steadily(&world, lines, 40), rotating);
    assert_flawless(&world.applied(800).await, 800);
    assert_nothing_parked(&dispatcher).await;
    dispatcher.ready().await;
}

/// A receiver knows the new secret before we do, as a person who changes it sees to; the old one ends later. The same for who
/// has issued our certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_secret_and_a_certificate_are_changed_under_load() {
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let (world, old, new) = (World::new("rotated-keys").await, Authority::new("old"), Authority::new("new"));
    let known = Arc::new(Mutex::new(vec![OLD]));
    let known_there = Arc::clone(&known);
    let partner = StandIn::start(move |request| {
        let known = known_there.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_good = |secret: &&str| {
            Webhook::new(secret).is_ok_and(|webhook| webhook.verify(&request.body, &request.headers).is_ok())
        };
        (if known.iter().any(is_good) { 200 } else { 401 }, "{}".to_owned())
    })
    .await;
    let of_server = old.issue("localhost");
    let api = HttpsTarget::start_demanding(b"h2", &of_server, &old).await;
    // Certificate and key in one file: they change in one step.
    let both = |issued: Issued| issued.pem() + &issued.key_pem();
    let (secret, client) = (world.dir.path().join("webhook"), world.dir.path().join("client"));
    replace(&secret, OLD);
    replace(&client, &both(old.issue("lanekeeper")));
    replace(&world.dir.path().join("ca"), old.pem());
    let config = world.config(
        &(world.ledger() + "updates.partitions = 4\nbreaker.wait_max = \"2s\"\nretry.delay_max = \"2s\"\n"),
    );
    let (common, _) = config.split_once("[[target]]").expect("it has one");
    let config = format!(
        "{common}[[target]]\nname = \"partner\"\ntypes = [\"record.updated\"]\nurl = \"http://{}/records/{{record_key}}\"\n\
         [target.signature]\nstandard_webhooks = \"file:webhook\"\n\
         [[target]]\nname = \"api\"\ntypes = [\"*\"]\nurl = \"https://localhost:{}/records/{{record_key}}\"\n\
         connection_age_max = \"1s\"\n\
         [target.tls]\nca = \"file:ca\"\ncertificate = \"file:client\"\nkey = \"file:client\"\n",
        partner.address(),
        api.port
    );
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    let mut lines: Vec<Value> = updates(40, 30).collect();
    for line in &mut lines {
        let number = line["key"].as_str().and_then(|key| key.strip_prefix("record-")?.parse::<u32>().ok());
        if number.is_some_and(|number| number >= 20) {
            line["type"] = "other".into();
        }
    }
    let rotating = async {
        pace(Duration::from_millis(500)).await;
        replace(&secret, &format!("{OLD}\n{NEW}\n"));
        applied_last(&dispatcher, "standard_webhooks").await;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = vec![NEW];
        replace(&secret, NEW);
        replace(&client, &both(new.issue("lanekeeper")));
        applied_last(&dispatcher, "certificate").await;
        api.demand(&of_server, &new);
    };
    let lines_of_the_end = lines.split_off(1000);
    tokio::join!(publish_steadily(&world, lines, 40), rotating);
    world.publish(lines_of_the_end).await;
    until("all requests", || async {
        let applied = partner.seen().len() + api.seen().len();
        if applied >= 1200 { Ok(()) } else { Err(format!("{applied} requests")) }
    })
    .await;
    until("all settled", || async {
        let delivered = dispatcher.metric("lanekeeper_updates_delivered_total").await;
        if delivered > 1199.5 { Ok(()) } else { Err(format!("{delivered} delivered")) }
    })
    .await;
    assert_nothing_parked(&dispatcher).await;
}

/// A stop comes while channels are opened: a consumer that nobody reads would stay the active one of its queue, and nothing would come out of it.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_that_follow_each_other_at_once_leave_no_consumer_behind() {
    let world = World::new("reloaded-often").await;
    let config = world.config("updates.partitions = 8\nretry.jitter = 0.1\n");
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    for round in 1..=40 {
        world.write_config(&config.replace("retry.jitter = 0.1", &format!("retry.jitter = 0.2{round:02}1")));
        dispatcher.signal(Signal::HUP);
        until("the config in force", || async {
            let in_force = dispatcher.log().iter().filter(|line| line.contains("is in force")).count();
            if in_force == round { Ok(()) } else { Err(format!("{in_force} of {round}")) }
        })
        .await;
    }
    dispatcher.ready().await;
    until("one consumer for each partition", || async {
        let consumers = world.broker.ctl(&["list_consumers", "queue_name", "--silent"]);
        let of_partitions = consumers.lines().filter(|queue| queue.contains(".l1.p")).count();
        if of_partitions == 8 { Ok(()) } else { Err(consumers) }
    })
    .await;
    world.publish(updates(40, 5)).await;
    assert_flawless(&world.applied(200).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_comes_while_a_config_is_taken_in_attaches_nothing_again() {
    let world = World::with(
        "reload-stopped",
        ReceiverSettings {
            fail_records: vec!["record-0=hang:300s".parse().expect("a failing record")],
            hang_for: Duration::from_secs(300),
            ..ReceiverSettings::default()
        },
    )
    .await;
    let config = world.config("updates.partitions = 2\nretry.jitter = 0.1\n");
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(1, 1)).await;
    until("a request that hangs", || async {
        let in_flight = dispatcher.metric("lanekeeper_in_flight").await;
        if in_flight > 0.5 { Ok(()) } else { Err(in_flight.to_string()) }
    })
    .await;
    world.write_config(&config.replace("retry.jitter = 0.1", "retry.jitter = 0.2"));
    dispatcher.signal(Signal::HUP);
    dispatcher.logged("then all partitions are attached again").await;
    dispatcher.terminate();
    dispatcher.logged("stopping: attempts in flight are finished").await;
    assert_eq!(dispatcher.ended().await, Some(0));
    let log = dispatcher.log();
    let attached = log.iter().filter(|line| line.contains("partition attached")).count();
    assert_eq!(attached, 2, "{log:#?}");
    assert!(log.iter().any(|line| line.contains("the process stops")), "{log:#?}");
}
