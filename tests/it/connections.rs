//! Targets that are odd below their answers: connections that hang, addresses that swallow packets, TLS that ends without a
//! farewell, odd heads. Nothing is parked or lost, and delivery goes on in time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::{
    Authority, BuiltReceiver, Dispatcher, World, assert_flawless, command_knowing, updates,
};

/// How long a test waits at most for what must not take as long as the times of its target.
const IN_TIME: Duration = Duration::from_secs(45);
/// The times of the target, far longer.
const TIMES: &str = "connect_timeout = \"120s\"\ntimeout = \"120s\"\n";

/// A world with a ledger whose target is at this address, and the file with its config.
async fn world_with_target(name: &str, url: &str) -> (World, PathBuf) {
    let world = World::new(name).await;
    let config = world.config(&(world.ledger() + "updates.partitions = 1"));
    let (config, _) = config.split_once("[[target]]").expect("it has one");
    let target = format!(
        "[[target]]\nname = \"one\"\ntypes = [\"*\"]\nurl = \"{url}/records/{{record_key}}\"\n{TIMES}"
    );
    let path = world.write_config(&(config.to_owned() + &target));
    (world, path)
}

/// A receiver of https with these options, whose certificate is of this authority.
fn https_receiver(authority: &Authority, options: &[&str]) -> BuiltReceiver {
    let [certificate, key] =
        authority.issue("localhost").write(authority, "server").map(|file| file.display().to_string());
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    BuiltReceiver::start(&[&tls, options].concat())
}

async fn assert_nothing_parked(dispatcher: &Dispatcher) {
    let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
    assert!(parked < 0.5, "{parked} parked");
}

/// A connection of HTTP/2 that hangs takes all requests that come to it, for as long as each one's timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_is_left_long_before_the_timeout() {
    let authority = Authority::new("ours");
    let hangs = ["--hang-connections-after", "10", "--hang-for", "5m"];
    let receiver = https_receiver(&authority, &hangs);
    let (world, config) = world_with_target("hangs", &format!("https://localhost:{}", receiver.port())).await;
    let dispatcher = Dispatcher::start_trusting(&config, &authority.file());
    dispatcher.ready().await;
    world.publish(updates(5, 2)).await;
    assert_flawless(&receiver.applied(10).await, 10);
    let since = Instant::now();
    world.publish(updates(5, 6).skip(10)).await;
    // The head of a request can arrive just before its connection hangs: for the receiver it is in progress until then.
    let counts = receiver.applied(30).await.counts;
    let wrong = (counts.reorders, counts.gaps, counts.outdated, counts.duplicates);
    assert_eq!(wrong, (0, 0, 0, 0), "{counts}");
    assert!(since.elapsed() < IN_TIME, "{:?}", since.elapsed());
    let attempts = dispatcher.metric("lanekeeper_attempts_total").await;
    assert!(attempts > 30.5, "{attempts} attempts: those on the connection were made again");
    assert_nothing_parked(&dispatcher).await;
}

/// The system gives 127.0.0.1 first: its own address is the nearest one.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_the_target_that_swallows_packets_delays_nothing_for_long() {
    let mut receiver = BuiltReceiver::start(&["--listen", "127.0.0.9:0", "--silent", "127.0.0.1:0"]);
    assert_eq!(receiver.line(), format!("silent at 127.0.0.1:{}", receiver.port()));
    let (world, config) = world_with_target("silent", &format!("http://api.test:{}", receiver.port())).await;
    let names = world.dir.path().join("hosts");
    std::fs::write(&names, "127.0.0.1 localhost api.test\n127.0.0.9 api.test\n").expect("it can be written");
    let mut command = command_knowing(&names);
    command.args(["run", "--config"]).arg(&config);
    let dispatcher = Dispatcher::start_command(command);
    dispatcher.ready().await;
    let since = Instant::now();
    world.publish(updates(10, 3)).await;
    assert_flawless(&receiver.applied(30).await, 30);
    assert!(since.elapsed() < IN_TIME, "{:?}", since.elapsed());
    assert_nothing_parked(&dispatcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_odd_heads_that_end_without_a_farewell_apply_at_once() {
    let authority = Authority::new("ours");
    let odd = ["--answer-end", "close-without-notify", "--folded-field", "--extra-fields", "900"];
    let receiver = https_receiver(&authority, &odd);
    let (world, config) =
        world_with_target("farewell", &format!("https://localhost:{}", receiver.port())).await;
    let dispatcher = Dispatcher::start_trusting(&config, &authority.file());
    dispatcher.ready().await;
    let since = Instant::now();
    world.publish(updates(10, 5)).await;
    let report = receiver.applied(50).await;
    assert_flawless(&report, 50);
    assert_eq!(report.counts.requests, 50, "each attempt was believed");
    assert!(since.elapsed() < IN_TIME, "{:?}", since.elapsed());
    assert_nothing_parked(&dispatcher).await;
}
