//! A broker with several hosts, and a name with several addresses: whichever comes first may be dead or swallow packets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lanekeeper_lab::receiver::ReceiverSettings;

use crate::harness::{
    Authority, Broker, Postgres, SilentAddress, World, assert_flawless, command_knowing, forward, lanekeeper,
    updates,
};

/// What an address that swallows packets may cost, with what a command takes on a busy machine.
const SECONDS_MAX: Duration = Duration::from_secs(12);

fn loopback(last: u8, port: u16) -> SocketAddr {
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), port).into()
}

async fn silent() -> SilentAddress {
    SilentAddress::at(loopback(1, 0)).await.expect("a port is free")
}

fn port_of(url: &str) -> u16 {
    url::Url::parse(url).expect("the harness makes URLs").port().expect("with a port")
}

fn lines(records: usize, each: usize) -> String {
    updates(records, each).fold(String::new(), |lines, line| lines + &line.to_string() + "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_goes_on_with_the_next_host() {
    let world = World::with("hosts", ReceiverSettings::default()).await;
    let hole = silent().await;
    let (dead, swallowed) = (
        "amqp://guest:s3cret@127.0.0.1:1/%2f".to_owned(),
        format!("amqp://guest:s3cret@{}/%2f", hole.address),
    );
    let list = format!("{dead},{swallowed},{}", world.broker.url());
    let one = format!("url = \"{}\"", world.broker.url());
    let config = world.config("updates.partitions = 2");
    assert!(config.contains(&one), "{config}");
    let several = format!("url = [\"{swallowed}\", \"{dead}\", \"{}\"]", world.broker.url());
    let config = world.write_config(&config.replace(&one, &several));

    let began = Instant::now();
    let dispatcher = crate::harness::Dispatcher::start(&config);
    dispatcher.ready().await;
    assert!(began.elapsed() < SECONDS_MAX, "three connections, after {:?}", began.elapsed());

    let environment = || {
        vec![
            ("LANEKEEPER_BROKER__URL", list.clone()),
            ("LANEKEEPER_BROKER__MANAGEMENT_URL", world.broker.management_url().to_owned()),
            ("LANEKEEPER_UPDATES__EXCHANGE", world.exchange.clone()),
            ("LANEKEEPER_LEDGER__URL", "none".to_owned()),
        ]
    };
    let run = |command: &'static [&'static str], input: String| {
        let environment = environment();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            (lanekeeper(command, &environment, input.as_bytes()), began.elapsed())
        })
    };
    // In whichever order the hosts come.
    for round in 0..3 {
        let (published, took) = run(&["publish"], lines(10, 3)).await.unwrap();
        assert_eq!(published.code, Some(0), "{round}: {}", published.stderr);
        assert!(took < SECONDS_MAX, "{round}: {took:?}");
    }
    let (shown, _) = run(&["topology", "show"], String::new()).await.unwrap();
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let (examined, took) = run(&["doctor"], String::new()).await.unwrap();
    let address = format!("127.0.0.1:{}", port_of(world.broker.url()));
    assert!(examined.stdout.contains(&address), "{}{}", examined.stdout, examined.stderr);
    assert!(took < SECONDS_MAX, "four connections, after {took:?}");
    world.applied(30).await;

    let checked = tokio::task::spawn_blocking(move || {
        lanekeeper(&["check", "--config", config.to_str().unwrap()], &[], b"")
    });
    let checked = checked.await.unwrap();
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let shown = format!(
        "url            = [\"amqp://guest:***@{}/%2f\", \"amqp://guest:***@127.0.0.1:1/%2f\", ",
        hole.address
    );
    assert!(checked.stdout.contains(&shown) && !checked.stdout.contains("s3cret"), "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_name_is_tried() {
    let broker = Broker::shared();
    let world = World::with("addresses", ReceiverSettings::default()).await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.ready().await;
    // The system gives 127.0.0.1 first: its own address is the nearest one.
    let mut ports = Vec::new();
    let mut holes = Vec::new();
    for url in [broker.url(), broker.management_url()] {
        let hole = silent().await;
        ports.push(forward(loopback(9, hole.address.port()), loopback(1, port_of(url))).await.port());
        holes.push(hole);
    }
    let names = world.dir.path().join("hosts");
    std::fs::write(&names, "127.0.0.1 localhost broker.test\n127.0.0.9 broker.test\n")
        .expect("it can be written");
    let run = |arguments: &'static [&'static str], input: String| {
        let mut command = command_knowing(&names);
        command
            .args(arguments)
            .env("LANEKEEPER_BROKER__URL", format!("amqp://guest:guest@broker.test:{}/%2f", ports[0]))
            .env("LANEKEEPER_BROKER__MANAGEMENT_URL", format!("http://guest:guest@broker.test:{}", ports[1]))
            .env("LANEKEEPER_UPDATES__EXCHANGE", &world.exchange)
            .env("LANEKEEPER_LEDGER__URL", "none")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let mut child = command.spawn().expect("unshare (util-linux) can be run");
            let mut stdin = child.stdin.take().expect("it is piped");
            drop(std::io::Write::write_all(&mut stdin, input.as_bytes()));
            drop(stdin);
            let output = child.wait_with_output().expect("it ends");
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            (output.status.code(), text, began.elapsed())
        })
    };
    let (code, text, took) = run(&["publish"], lines(10, 3)).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(took < SECONDS_MAX, "{took:?}");
    assert_flawless(&world.applied(30).await, 30);
    let (_, text, took) = run(&["doctor"], String::new()).await.unwrap();
    assert!(text.contains("broker.test") && !text.contains("LK901"), "{text}");
    assert!(took < 2 * SECONDS_MAX, "once for AMQP and once for the management API: {took:?}");
}

/// Also if the certificate must have the name, which the client can be told only together with the address.
#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_the_ledgers_server_is_tried_and_its_certificate_is_checked() {
    let server = Postgres::start();
    let authority = Authority::new("ours");
    server.show(&authority.issue("db.test")).await;
    let hole = silent().await;
    let port = hole.address.port();
    forward(loopback(9, port), server.address().parse().expect("an address")).await;
    let dir = tempfile::tempdir().expect("a directory can be made");
    let names = dir.path().join("hosts");
    let text = "127.0.0.1 localhost db.test other.test\n127.0.0.9 db.test\n127.0.0.9 other.test\n";
    std::fs::write(&names, text).expect("it can be written");
    let list = async |host: &str, mode: &str| {
        let url = server.url().replace(server.address(), &format!("{host}:{port}"));
        let url = format!("{url}?{mode}&sslrootcert={}", authority.file().display());
        let mut command = command_knowing(&names);
        command.args(["parked", "list"]).env("LANEKEEPER_LEDGER__URL", url);
        let (output, took) = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            (command.output().expect("unshare (util-linux) can be run"), began.elapsed())
        })
        .await
        .expect("it does not panic");
        assert!(took < SECONDS_MAX, "{host} {mode}: {took:?}");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for mode in ["sslmode=verify-full", "sslmode=require", "sslmode=prefer"] {
        let (code, error) = list("db.test", mode).await;
        assert_eq!(code, Some(0), "{mode}: {error}");
    }
    let (code, error) = list("other.test", "sslmode=verify-full").await;
    assert_eq!(code, Some(4), "the certificate is of another name: {error}");
    assert!(error.contains("certificate"), "{error}");
}
