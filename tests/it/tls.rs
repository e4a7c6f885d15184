//! TLS both ways: to a broker and to targets whose certificates an authority of our own has issued. What is wrong with a
//! certificate is said in words that name what to do.

use hyper::Version;
use lapin::Channel;
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;

use lanekeeper_lab::receiver::ReceiverSettings;

use crate::harness::{
    Authority, Broker, Dispatcher, HttpsTarget, World, assert_flawless, lanekeeper, until, updates,
};

const UNTRUSTED: &str = "issued by an authority that this machine does not trust";
const OTHER_HOST: &str = "not for the host name in the URL";
const EXPIRED: &str = "the certificate has expired";

/// A port that is free now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_flow_over_amqps_and_a_refused_certificate_says_what_to_do() {
    let [authority, other, namesake] = ["ours", "other", "ours"].map(Authority::new);
    let port = free_port();
    let issued = authority.issue("localhost");
    let settings = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = tls/ca.pem\n\
         ssl_options.certfile = tls/cert.pem\nssl_options.keyfile = tls/key.pem\n\
         ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n"
    );
    let files = [
        ("tls/ca.pem", authority.pem()),
        ("tls/cert.pem", &issued.pem()),
        ("tls/key.pem", &issued.key_pem()),
    ];
    let broker = std::sync::Arc::new(Broker::start_with(&settings, &files));
    let world = World::on(broker, "amqps", ReceiverSettings::default()).await;
    let url = |host: &str| format!("amqps://guest:guest@{host}:{port}/%2f");
    let config = world.config("updates.partitions = 2").replace(world.broker.url(), &url("localhost"));
    let dispatcher = Dispatcher::start_trusting(&world.write_config(&config), &authority.file());
    dispatcher.ready().await;

    let run = |command: &'static [&'static str], host: &str, authority: &Authority| {
        let environment = [
            ("LANEKEEPER_BROKER__URL", url(host)),
            ("LANEKEEPER_UPDATES__EXCHANGE", world.exchange.clone()),
            ("LANEKEEPER_LEDGER__URL", "none".to_owned()),
            ("SSL_CERT_FILE", authority.file().display().to_string()),
        ];
        let input = updates(10, 3).fold(String::new(), |lines, line| lines + &line.to_string() + "\n");
        tokio::task::spawn_blocking(move || lanekeeper(command, &environment, input.as_bytes()))
    };
    let published = run(&["publish"], "localhost", &authority).await.unwrap();
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    assert_flawless(&world.applied(30).await, 30);

    let refused = async |host: &str, authority: &Authority, says: &str| {
        for command in [&["publish"][..], &["topology", "show"], &["doctor"]] {
            let output = run(command, host, authority).await.unwrap();
            assert_eq!(output.code, Some(3), "{command:?}: {}", output.stderr);
            let expected = format!("broker {host}:{port}: the certificate");
            assert!(output.stderr.contains(&expected), "{command:?}: {}", output.stderr);
            assert!(output.stderr.contains(says), "{command:?}: {}", output.stderr);
        }
    };
    refused("localhost", &other, UNTRUSTED).await;
    refused("localhost", &namesake, UNTRUSTED).await;
    refused("127.0.0.1", &authority, OTHER_HOST).await;

    let expired = authority.issue_expired("localhost");
    let tls = world.broker.dir().join("tls");
    std::fs::write(tls.join("cert.pem"), expired.pem()).expect("it can be written");
    std::fs::write(tls.join("key.pem"), expired.key_pem()).expect("it can be written");
    world.broker.ctl(&["eval", "ssl:clear_pem_cache()."]);
    refused("localhost", &authority, EXPIRED).await;
    let mut second = Dispatcher::start_trusting(&world.write_config(&config), &authority.file());
    assert_eq!(second.ended().await, Some(3));
    second.logged(EXPIRED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_speaks_no_tls_is_told_from_a_broker_that_is_not_there() {
    let world = World::new("no-tls").await;
    let port =
        world.broker.url().split(':').nth(3).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let environment = [("LANEKEEPER_BROKER__URL", format!("amqps://guest:guest@localhost:{port}/%2f"))];
    let running = move || lanekeeper(&["topology", "show"], &environment, b"");
    let output = tokio::task::spawn_blocking(running).await.unwrap();
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(
        output.stderr.contains("TLS failed; amqps:// must name the port of a TLS listener"),
        "{}",
        output.stderr
    );
}

/// The reason in the next dead letter.
async fn detail(world: &World, channel: &Channel) -> String {
    let letter = until("a dead letter", || async {
        let queue = format!("{}.dead", world.exchange);
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
        got.map_err(|error| error.to_string())?.ok_or_else(|| "the queue is empty".to_owned())
    })
    .await;
    let headers = letter.delivery.properties.headers().clone().unwrap_or_default();
    match headers.inner().get("lanekeeper-detail") {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_flow_to_https_targets_and_a_refused_certificate_says_what_to_do() {
    let [authority, other, namesake] = ["ours", "other", "ours"].map(Authority::new);
    let bad = [
        (other.issue("localhost"), UNTRUSTED),
        (namesake.issue("localhost"), UNTRUSTED),
        (authority.issue("elsewhere.example"), OTHER_HOST),
        (authority.issue_expired("localhost"), EXPIRED),
    ];
    let good = authority.issue("localhost");
    let world = World::new("https").await;
    let one = HttpsTarget::start(b"http/1.1", &good).await;
    let two = HttpsTarget::start(b"h2", &good).await;
    let target = |name: &str, port: u16| {
        format!(
            "[[target]]\nname = \"{name}\"\ntypes = [\"{name}\"]\nmethod = \"PUT\"\ntimeout = \"5s\"\n\
             url = \"https://localhost:{port}/records/{{record_key}}\"\n"
        )
    };
    let config = world.config("updates.partitions = 1\nretry.attempts_max = 1");
    let (config, _) = config.split_once("[[target]]").expect("it has one");
    let config = [config, &target("one", one.port), &target("two", two.port)].concat();
    let dispatcher = Dispatcher::start_trusting(&world.write_config(&config), &authority.file());
    dispatcher.ready().await;
    let channel = world.channel().await;
    for (name, server, version) in [("one", &one, Version::HTTP_11), ("two", &two, Version::HTTP_2)] {
        for (issued, says) in &bad {
            server.show(issued);
            world.publish([serde_json::json!({"key": "bad", "type": name, "body": {}})]).await;
            let detail = detail(&world, &channel).await;
            assert!(detail.contains(says), "{name}: {detail}");
        }
        assert_eq!(server.seen(), [], "nothing was sent to a server that is not the one");
        server.show(&good);
        world.publish([serde_json::json!({"key": "good", "type": name, "body": {}})]).await;
        until("the request", || async {
            match server.seen().as_slice() {
                [] => Err("no request".to_owned()),
                seen => {
                    let _: () = assert_eq!(seen, [(version, "/records/good".to_owned())]);
                    Ok(())
                }
            }
        })
        .await;
    }
}
