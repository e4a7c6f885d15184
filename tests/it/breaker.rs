//! A target that fails for everyone is shut until it works again; records that are stuck do not shut it.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use tokio::time::Instant;

use crate::harness::{
    Dispatcher, Output, Proxy, ProxyMode, World, assert_flawless, http, lanekeeper, pace, until, updates,
};

/// Quick to trip, quick to probe; an update that fails for a second is exhausted.
const QUICK: &str = "updates.partitions = 2\nretry.delay_initial = \"100ms\"\nretry.delay_max = \"200ms\"\n\
    retry.elapsed_max = \"1s\"\nbreaker.attempts_min = 10\nbreaker.wait_initial = \"200ms\"\n\
    breaker.wait_max = \"500ms\"";

async fn asked(dispatcher: &Dispatcher, path: &str) -> String {
    let answer = http().get(format!("http://{}{path}", dispatcher.admin().await)).send().await;
    let answer = answer.expect("it answers").error_for_status().expect("status 200");
    answer.text().await.expect("it has a body")
}

/// The value of a metric, by the start of its line.
async fn metric(dispatcher: &Dispatcher, line: &str) -> f64 {
    let text = asked(dispatcher, "/metrics").await;
    let sum =
        text.lines().filter_map(|found| found.strip_prefix(line)?.rsplit(' ').next()?.parse::<f64>().ok());
    sum.sum()
}

async fn assert_metric(dispatcher: &Dispatcher, line: &str, expected: f64) {
    let value = metric(dispatcher, line).await;
    assert!((value - expected).abs() < f64::EPSILON, "{line}: {value}");
}

/// With a ledger: a hundred records that fail at once, for longer than `elapsed_max`, are no reason to park them.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_single_requests_and_no_update() {
    let mut world = World::new("outage").await;
    let proxy =
        Proxy::start(world.target.trim_start_matches("http://").to_owned()).await.expect("a port is free");
    world.target = format!("http://{}", proxy.address);
    let dispatcher = world.dispatcher(&(world.ledger() + QUICK)).await;
    proxy.set(ProxyMode::Refuse);
    world.publish(updates(100, 3)).await;
    dispatcher.logged("target shut").await;
    let found = asked(&dispatcher, "/readyz").await;
    assert!(found.starts_with("ready\nshut: receiver since 2"), "{found}");
    assert!(found.ends_with(")\n") && found.contains("Z (connection: "), "why: {found}");
    // What was in flight when it was shut has ended by then.
    until("nothing but probes", || async {
        match metric(&dispatcher, "lanekeeper_in_flight{").await {
            in_flight if in_flight <= 1.0 => Ok(()),
            in_flight => Err(format!("{in_flight} in flight")),
        }
    })
    .await;
    let (began, before) = (Instant::now(), metric(&dispatcher, "lanekeeper_attempts_total{").await);
    pace(Duration::from_secs(4)).await;
    let requests = metric(&dispatcher, "lanekeeper_attempts_total{").await - before;
    let most = began.elapsed().as_secs_f64() / 0.2 + 2.0;
    assert!((4.0..most).contains(&requests), "{requests} requests in 4 s of outage, at most {most}");
    proxy.set(ProxyMode::Forward);
    assert_flawless(&world.applied(300).await, 300);
    dispatcher.logged("target open again").await;
    assert_eq!(asked(&dispatcher, "/readyz").await, "ready\n");
    assert_metric(&dispatcher, "lanekeeper_circuit_state{", 0.0).await;
    assert_metric(&dispatcher, "lanekeeper_circuit_trips_total{", 1.0).await;
    assert_metric(&dispatcher, "lanekeeper_updates_dead_lettered_total{", 0.0).await;
    assert_metric(&dispatcher, "lanekeeper_updates_parked_total{", 0.0).await;
    let found = dispatcher.log().into_iter().filter(|line| line.contains("target shut")).count();
    assert_eq!(found, 1, "one line, however many attempts failed");
}

/// A world in which the first `records` records fail in this way.
async fn world_behind_a_gateway(name: &str, records: usize, fault: &str) -> World {
    let failing = |number| format!("record-{number}={fault}").parse().expect("a failing record");
    let fail_records = (0..records).map(failing).collect();
    World::with(name, ReceiverSettings { fail_records, ..ReceiverSettings::default() }).await
}

/// Every record gets 404 for some seconds, as from an ingress whose backend is away.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_looks_like_a_rejection_parks_fewer_records_than_records_min() {
    let world = world_behind_a_gateway("outage-404", 50, "gateway-404:4s").await;
    // Elapsed time that counted would exhaust them.
    let dispatcher = world.dispatcher(&(world.ledger() + QUICK)).await;
    world.publish(updates(50, 3)).await;
    let line = dispatcher.logged("target shut").await;
    for part in ["ERROR", "status 404", "update_id"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let found = asked(&dispatcher, "/readyz").await;
    assert!(found.contains("(status 404"), "{found}");
    assert_flawless(&world.applied(46 * 3).await, 46 * 3);
    dispatcher.logged("target open again").await;
    assert_metric(&dispatcher, "lanekeeper_updates_parked_total{reason=\"rejected\"}", 4.0).await;
    assert_metric(&dispatcher, "lanekeeper_updates_parked_total{reason=\"exhausted\"}", 0.0).await;
    assert_metric(&dispatcher, "lanekeeper_updates_dead_lettered_total{", 0.0).await;
}

/// Waits until so many updates are parked since they were rejected, and no more.
async fn rejected_and_parked(dispatcher: &Dispatcher, updates: f64) {
    until(&format!("{updates} parked"), || async {
        match metric(dispatcher, "lanekeeper_updates_parked_total{reason=\"rejected\"}").await {
            parked if parked >= updates => Ok(()),
            parked => Err(format!("{parked} parked")),
        }
    })
    .await;
    assert_metric(dispatcher, "lanekeeper_updates_parked_total{reason=\"rejected\"}", updates).await;
}

/// `lanekeeper target believe`, beside the dispatcher.
async fn believe(world: &World, arguments: &'static [&'static str]) -> Output {
    let config = world.dir.path().join("lanekeeper.toml").display().to_string();
    let running = move || {
        let command = ["target", "believe", "--config", &config];
        lanekeeper(&[&command[..], arguments].concat(), &[], b"")
    };
    tokio::task::spawn_blocking(running).await.expect("it does not panic")
}

/// The target answers 404 for every record, and means it.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_a_person_believes_opens_and_what_it_rejects_is_parked() {
    let world = world_behind_a_gateway("believed", 20, "gateway-404").await;
    let config = world.config(&(world.ledger() + QUICK));
    world.write_config(&config);
    let early = believe(&world, &["receiver"]).await;
    assert_eq!(early.code, Some(3), "no process has ever run: {}", early.stderr);
    assert!(early.stderr.contains("there is no layout"), "{}", early.stderr);
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(20, 3)).await;
    dispatcher.logged("target shut").await;
    rejected_and_parked(&dispatcher, 4.0).await;
    let unknown = believe(&world, &["reciever"]).await;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("no target \"reciever\"") && unknown.stderr.contains("it has receiver"));
    assert!(!dispatcher.log().iter().any(|line| line.contains("target open again")));

    let believed = believe(&world, &["receiver", "--for", "10m"]).await;
    assert_eq!(believed.code, Some(0), "{}", believed.stderr);
    assert!(
        believed.stdout.starts_with("rejections of receiver are believed until 2"),
        "{}",
        believed.stdout
    );
    let line = dispatcher.logged("rejections of this target are believed").await;
    assert!(line.contains("INFO") && line.contains("receiver") && line.contains("until"), "{line}");
    dispatcher.logged("target open again").await;
    rejected_and_parked(&dispatcher, 20.0).await;
    assert_metric(&dispatcher, "lanekeeper_circuit_state{", 0.0).await;
    assert_metric(&dispatcher, "lanekeeper_circuit_trips_total{", 1.0).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));

    // A process that starts within that time knows it, too.
    let later = world.start(&config);
    later.logged("rejections of this target are believed").await;
    later.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_rejected_is_parked_while_others_are_applied() {
    let world = world_behind_a_gateway("rejections", 8, "gateway-404").await;
    let dispatcher = world.dispatcher(&(world.ledger() + QUICK)).await;
    world.publish(updates(200, 2)).await;
    world.applied(192 * 2).await;
    // The target is asked again about those that were doubted.
    world.publish(updates(200, 12).skip(400)).await;
    world.applied(192 * 12).await;
    rejected_and_parked(&dispatcher, 8.0).await;
    assert_metric(&dispatcher, "lanekeeper_updates_parked_total{reason=\"exhausted\"}", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_target_is_shut_in_strict_mode_too() {
    let mut world = World::new("outage-strict").await;
    let proxy =
        Proxy::start(world.target.trim_start_matches("http://").to_owned()).await.expect("a port is free");
    world.target = format!("http://{}", proxy.address);
    // Two partitions with one attempt at a time each: two records fail at once. Their first attempts, of a second each,
    // count; the outage lasts longer than what is left.
    let quick = QUICK.replace("attempts_min = 10", "attempts_min = 2").replace("\"1s\"", "\"3s\"");
    let extra = format!("{quick}\ndispatch.in_flight_max = 1\nbreaker.records_min = 2");
    let dispatcher = world.dispatcher(&extra).await;
    proxy.set(ProxyMode::Silent);
    world.publish(updates(20, 3)).await;
    dispatcher.logged("target shut").await;
    pace(Duration::from_secs(5)).await;
    proxy.set(ProxyMode::Forward);
    assert_flawless(&world.applied(60).await, 60);
    assert_metric(&dispatcher, "lanekeeper_updates_dead_lettered_total{", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_stuck_does_not_shut_its_target() {
    let fail_records = vec!["record-0=503:3s".parse().expect("a failing record")];
    let settings = ReceiverSettings { fail_records, ..ReceiverSettings::default() };
    let world = World::with("stuck-alone", settings).await;
    let dispatcher = world.dispatcher(&QUICK.replace("\"1s\"", "\"1m\"")).await;
    // For three seconds nobody else sends anything: every attempt that ends fails.
    world.publish(updates(1, 3)).await;
    assert_flawless(&world.applied(3).await, 3);
    assert!(metric(&dispatcher, "lanekeeper_attempts_total{").await > 13.0, "enough failed to shut it");
    assert_metric(&dispatcher, "lanekeeper_circuit_trips_total{", 0.0).await;
}
