//! Connecting: names with several addresses, of which one is silent, and the times that bound it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper::config::{IfMatch, TargetConfig};
use lanekeeper::http::client::{HttpTargets, Names};
use lanekeeper::http::{Attempt, Target};
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_lab::receiver::SilentAddress;
use tokio::net::TcpListener;

use crate::server::{Server, answer};
use crate::{TEST_TIMEOUT, attempt_of, target, targets, update};

pub async fn silent_address() -> SilentAddress {
    SilentAddress::at(([127, 0, 0, 1], 0).into()).await.unwrap()
}

/// Targets at the name `two.example`, which has these addresses.
fn at_name(configs: &[TargetConfig], addresses: &[SocketAddr]) -> HttpTargets {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let addresses = addresses.to_vec();
    let names: Names = Arc::new(move |name: &str| (name == "two.example").then(|| addresses.clone()));
    HttpTargets::with_names(configs, &names).unwrap()
}

fn named(connect_timeout: Duration, timeout: Duration) -> TargetConfig {
    let mut config = target(([127, 0, 0, 1], 1).into());
    config.url = UrlTemplate::parse("http://two.example/customers/{record_key}").unwrap();
    (config.connect_timeout, config.timeout) = (connect_timeout, timeout);
    config
}

fn to(index: usize) -> Attempt {
    let mut update = update("k");
    update.target = TargetId(index);
    attempt_of(update)
}

fn assert_timed_out(outcome: &Outcome) {
    match outcome {
        Outcome::Retryable { failure, .. } => assert_eq!(failure.cause, Cause::Timeout, "{failure:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_times_of_one_target_do_not_change_those_of_another() {
    let silent = silent_address().await;
    let server = Server::answering(answer("204 No Content", "", ""), true).await;
    let quick = named(Duration::from_millis(600), Duration::from_secs(5));
    let slow = TargetConfig { name: "slow".into(), ..named(TEST_TIMEOUT * 2, TEST_TIMEOUT * 3) };
    let both = at_name(&[quick, slow], &[silent.address, server.address]);
    for round in 0..5 {
        let since = Instant::now();
        assert_eq!(both.attempt(to(0)).await, Outcome::Applied, "round {round}");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
    assert_eq!(server.connections(), 5, "each attempt had to connect");
}

#[tokio::test]
async fn the_timeout_of_a_request_begins_when_it_has_a_connection() {
    let silent = silent_address().await;
    let server = Server::answering(answer("204 No Content", "", ""), true).await;
    let others = [silent_address().await, silent_address().await];
    let config = named(Duration::from_secs(5), Duration::from_millis(600));
    let addresses = [silent.address, others[0].address, others[1].address, server.address];
    let targets = at_name(&[config], &addresses);
    let since = Instant::now();
    assert_eq!(targets.attempt(to(0)).await, Outcome::Applied);
    assert!(since.elapsed() >= Duration::from_millis(700), "three addresses were tried first");
}

/// RFC 8305 recommends a quarter of a second.
#[tokio::test]
async fn an_address_that_swallows_packets_costs_a_quarter_of_a_second() {
    let silent = silent_address().await;
    let server = Server::answering(answer("204 No Content", "", ""), true).await;
    let check = async |addresses: &[SocketAddr], silent_first: u32| {
        let targets = at_name(&[named(TEST_TIMEOUT, TEST_TIMEOUT)], addresses);
        let since = Instant::now();
        assert_eq!(targets.attempt(to(0)).await, Outcome::Applied);
        let head_starts = Duration::from_millis(250) * silent_first;
        let slow_machine = Duration::from_secs(2);
        assert!(
            (head_starts..head_starts + slow_machine).contains(&since.elapsed()),
            "{:?}",
            since.elapsed()
        );
    };
    check(&[silent.address, server.address], 1).await;
    check(&[server.address, silent.address], 0).await;
    // One family after the other: IPv6 is preferred here, and has nobody who answers.
    let refusing: SocketAddr = "[::1]:1".parse().unwrap();
    check(&[refusing, silent.address, server.address], 1).await;
}

#[tokio::test]
async fn in_a_short_time_each_address_has_its_turn() {
    let silent = [silent_address().await, silent_address().await, silent_address().await];
    let server = Server::answering(answer("204 No Content", "", ""), true).await;
    let addresses = [silent[0].address, silent[1].address, silent[2].address, server.address];
    let targets = at_name(&[named(Duration::from_millis(700), TEST_TIMEOUT)], &addresses);
    assert_eq!(targets.attempt(to(0)).await, Outcome::Applied);
}

#[tokio::test]
async fn connecting_ends_within_its_own_time() {
    let silent = silent_address().await;
    let connect_timeout = Duration::from_millis(400);
    let targets = at_name(&[named(connect_timeout, TEST_TIMEOUT)], &[silent.address, silent.address]);
    let since = Instant::now();
    assert_timed_out(&targets.attempt(to(0)).await);
    assert!((connect_timeout..TEST_TIMEOUT / 4).contains(&since.elapsed()), "{:?}", since.elapsed());
}

/// The kernel repeats a lost SYN after a second.
#[tokio::test]
async fn a_short_timeout_does_not_shorten_connecting() {
    let silent = silent_address().await;
    let connect_timeout = Duration::from_millis(1_500);
    let targets = at_name(&[named(connect_timeout, Duration::from_millis(100))], &[silent.address]);
    let since = Instant::now();
    assert_timed_out(&targets.attempt(to(0)).await);
    assert!(since.elapsed() >= connect_timeout, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_handshake_that_nobody_answers_ends_within_the_time_to_connect() {
    // The kernel accepts; nobody reads the ClientHello.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = target(listener.local_addr().unwrap());
    config.url = UrlTemplate::parse(&config.url.to_string().replace("http:", "https:")).unwrap();
    config.connect_timeout = Duration::from_millis(400);
    let since = Instant::now();
    assert_timed_out(&crate::attempt(config).await);
    assert!(since.elapsed() < TEST_TIMEOUT / 4, "{:?}", since.elapsed());
}

#[tokio::test]
async fn the_requests_of_an_attempt_have_one_timeout_together() {
    let timeout = Duration::from_secs(1);
    let server = Server::start(move |mut connection| async move {
        connection.request().await;
        // The answer to the GET takes more than half of the time, and there is none to the update.
        let _ = tokio::time::timeout(timeout * 3 / 5, connection.closed()).await;
        connection.send(answer("200 OK", "etag: \"v1\"\r\n", "").as_bytes()).await;
        connection.closed().await;
    })
    .await;
    let mut config = target(server.address);
    (config.timeout, config.if_match) = (timeout, IfMatch::Auto);
    let since = Instant::now();
    assert_timed_out(&targets(config).unwrap().attempt(attempt_of(update("k"))).await);
    assert!((timeout..timeout * 3 / 2).contains(&since.elapsed()), "{:?}", since.elapsed());
}
