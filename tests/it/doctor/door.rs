//! A config for a door alone: what a publisher needs, and nothing else.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use lanekeeper_lab::receiver::ReceiverSettings;
use lanekeeper_lab::testbed::program;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeUnbindOptions};
use lapin::types::FieldTable;
use reqwest::StatusCode;
use serde_json::Value as Json;
use tokio::net::TcpSocket;

use super::{Doctor, NOWHERE, PARTITIONS, codes_of, made, what};
use crate::harness::{Authority, Broker, Dispatcher, World, assert_flawless, http, lanekeeper_command};

const TOKEN: &str = "0123456789abcdef-crm";
const ANY_ADMIN: &str = "admin.listen = \"127.0.0.1:0\"\n";
const PASSWORD: &str = "hunter2";

/// A user of the broker that may write to some exchanges, and nothing else. Gone with the value.
struct Publisher<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Publisher<'a> {
    /// Named after the world's exchange. `write`: a regular expression.
    fn new(world: &'a World, write: &str) -> Self {
        let name = format!("{}-door", world.exchange);
        world.broker.ctl(&["add_user", &name, PASSWORD]);
        world.broker.ctl(&["set_permissions", &name, "^$", write, "^$"]);
        Self { world, name }
    }

    fn url(&self) -> String {
        self.world.broker.url().replace("guest:guest@", &format!("{}:{PASSWORD}@", self.name))
    }

    /// A config for a door alone. `ingest` is TOML of `[ingest]`.
    fn config(&self, ingest: &str) -> String {
        let (url, exchange) = (self.url(), &self.world.exchange);
        let listen = if ingest.contains("listen = ") { "" } else { "listen = \"127.0.0.1:0\"\n" };
        format!(
            "instance.name = \"{exchange}\"\nbroker.url = \"{url}\"\nupdates.exchange = \"{exchange}\"\n\
             {ANY_ADMIN}[ingest]\n{listen}{ingest}\n\
             [[ingest.client]]\nname = \"crm\"\ntokens = [\"{TOKEN}\"]\n"
        )
    }

    /// Judges this config, with the whole management API.
    fn doctor(&self, ingest: &str) -> Doctor<'a> {
        let mut doctor = Doctor::of(self.world);
        doctor.config = self.config(ingest);
        doctor
    }
}

impl Drop for Publisher<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.broker.ctl(&["delete_user", &self.name]);
        }
    }
}

/// A door with this config, and its address.
async fn door(world: &World, config: &str) -> (Dispatcher, String) {
    let path = world.dir.path().join("door.toml");
    std::fs::write(&path, config).expect("the config can be written");
    let mut command = program::command(Path::new(lanekeeper_command().get_program()));
    command.args(["ingest", "--config"]).arg(&path);
    let process = Dispatcher::start_command(command);
    let line = process.logged("updates are taken").await;
    let address = line.split_once("address=").and_then(|(_, rest)| rest.split(' ').next());
    let address = address.expect("the line has the address").to_owned();
    process.ready().await;
    (process, address)
}

/// The status of the answer to an update with this body; `None`: there was none.
async fn put(address: &str, body: String) -> Option<StatusCode> {
    let request = http().put(format!("http://{address}/updates/17/1")).bearer_auth(TOKEN).body(body);
    request.send().await.ok().map(|answer| answer.status())
}

fn unseen(report: &Json) -> Vec<&str> {
    let unseen = report["not_looked_at"].as_array().expect("a list");
    unseen.iter().filter_map(|unseen| unseen["what"].as_str()).collect()
}

/// An address that the system gives to nobody else while the socket lives. A process of ours can listen there all the same.
fn free_address() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("it can be set");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
    let address = socket.local_addr().expect("it is bound").to_string();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_needs_to_write_to_its_two_exchanges_and_nothing_else() {
    let world = World::new("door-judged").await;
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    let publisher = Publisher::new(&world, "^door-judged$");
    let mut doctor = publisher.doctor("");
    let report = doctor.sees(&["LK605"]).await;
    assert_eq!(report["errors"], 0);
    let command =
        r"rabbitmqctl set_permissions --vhost / door-judged-door '^$' '^door-judged(\.doors)?$' '^$'";
    assert!(report["findings"][0]["remedy"][0]["run"] == command, "{report:#}");
    doctor.remove(&report, &["LK605"]);
    let report = doctor.sees(&[]).await;
    assert_eq!(report["for"], "ingest");
    assert_eq!(unseen(&report), ["what lies behind the exchange (queues, policies, consumers)"]);

    // As the door's own user, who sees nothing at the management API.
    let address = doctor.management.rsplit('@').next().unwrap().to_owned();
    doctor.management = format!("http://{address}");
    let report = doctor.examine();
    assert_eq!(codes_of(&report), ["LK903"]);
    assert!(what(&report, "LK903").contains("refuses user door-judged-door"), "{report:#}");
    let missed = unseen(&report).join("; ");
    for part in ["type of the exchange door-judged", "binding of the exchange door-judged", "alarms"] {
        assert!(missed.contains(part), "{missed}");
    }
    let text = doctor.call(&[]);
    assert!(text.stdout.starts_with("Judged as a config for a door alone"), "{}", text.stdout);
    assert_eq!(text.code, Some(0));

    // A door with this user takes an update, and what doctor has published is nowhere.
    let (mut process, address) = door(&world, &doctor.config).await;
    assert_eq!(put(&address, r#"{"sequence":1}"#.to_owned()).await, Some(StatusCode::ACCEPTED));
    assert_flawless(&world.applied(1).await, 1);
    let channel = world.channel().await;
    assert_eq!(world.waiting(&channel, "dead").await, 0);
    process.terminate();
    assert_eq!(process.ended().await, Some(0));

    // With a target it is a config for `lanekeeper run`.
    doctor.config =
        world.config(PARTITIONS) + "[[ingest.client]]\nname = \"crm\"\ntokens = [\"0123456789abcdef\"]\n";
    doctor.management = world.broker.management_url().to_owned();
    assert_eq!(doctor.sees(&[]).await["for"], "run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_may_not_write_is_an_error_with_the_command_that_lets_it() {
    let world = made("door-kept-out").await;
    let publisher = Publisher::new(&world, "^another$");
    let doctor = publisher.doctor("");
    let report = doctor.sees(&["LK108"]).await;
    assert!(what(&report, "LK108").contains("refused for user 'door-kept-out-door'"), "{report:#}");
    let command =
        r"rabbitmqctl set_permissions --vhost / door-kept-out-door '^$' '^door-kept-out(\.doors)?$' '^$'";
    assert!(report["findings"][0]["remedy"][0]["run"] == command, "{report:#}");

    // What it costs.
    let (mut process, address) = door(&world, &doctor.config).await;
    assert_ne!(put(&address, "{}".to_owned()).await, Some(StatusCode::ACCEPTED));
    assert_eq!(process.ended().await, Some(3));

    doctor.remove(&report, &["LK108"]);
    doctor.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_missing_different_or_not_bound_is_seen() {
    let world = World::new("door-early").await;
    let publisher = Publisher::new(&world, r"^door-early(\.doors)?$");
    let mut doctor = publisher.doctor("");
    let report = doctor.sees(&["LK201"]).await;
    assert!(what(&report, "LK201").contains("door-early is not there yet"), "{report:#}");
    assert_eq!(report["errors"], 0);

    let channel = world.channel().await;
    let declare = async |kind: ExchangeKind, internal: bool| {
        let options = ExchangeDeclareOptions { durable: true, internal, ..ExchangeDeclareOptions::default() };
        let declaring = channel.exchange_declare("door-early".into(), kind, options, FieldTable::default());
        declaring.await.expect("it can be declared");
    };
    for (kind, internal, expected) in [
        (ExchangeKind::Direct, false, "has type = direct, but it must be fanout"),
        (ExchangeKind::Fanout, true, "has internal = true, but it must be false"),
    ] {
        declare(kind, internal).await;
        let report = doctor.sees(&["LK203"]).await;
        assert!(what(&report, "LK203").contains(expected), "{report:#}");
        doctor.remove(&report, &["LK203"]);
        doctor.sees(&["LK201"]).await;
    }
    // That it is internal shows without the management API, too.
    declare(ExchangeKind::Fanout, true).await;
    let management = std::mem::replace(&mut doctor.management, NOWHERE.to_owned());
    assert_eq!(codes_of(&doctor.examine()), ["LK203", "LK903"]);
    doctor.management = management;
    doctor.remove(&doctor.sees(&["LK203"]).await, &["LK203"]);

    let mut dispatcher = world.dispatcher(PARTITIONS).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    doctor.sees(&[]).await;
    let (options, none) = (ExchangeUnbindOptions::default(), FieldTable::default());
    channel
        .exchange_unbind("door-early.ingress".into(), "door-early".into(), "".into(), options, none)
        .await
        .unwrap();
    let report = doctor.sees(&["LK205"]).await;
    assert_eq!(what(&report, "LK205"), "missing bindings: door-early to door-early.ingress");
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    doctor.sees(&[]).await;
}

/// A node of its own: an alarm is the whole broker's.
#[tokio::test(flavor = "multi_thread")]
async fn alarms_and_a_limit_of_messages_are_seen_with_the_rights_of_a_publisher() {
    let broker = Arc::new(Broker::start_with("max_message_size = 1000000\n", &[]));
    let world = World::on(Arc::clone(&broker), "updates", ReceiverSettings::default()).await;
    let _dispatcher = world.dispatcher(PARTITIONS).await;
    let publisher = Publisher::new(&world, r"^updates(\.doors)?$");
    let mut doctor = publisher.doctor("");
    let report = doctor.sees(&["LK130"]).await;
    assert!(what(&report, "LK130").contains("over 1000000 bytes (max_message_size)"), "{report:#}");
    // What it costs.
    let (mut process, address) = door(&world, &doctor.config).await;
    assert_ne!(put(&address, "x".repeat(1_000_001)).await, Some(StatusCode::ACCEPTED));
    assert_eq!(process.ended().await, Some(3));
    doctor.config = format!("updates.body_bytes_max = 1_000_000\n{}", doctor.config);
    doctor.sees(&[]).await;

    broker.ctl(&["set_vm_memory_high_watermark", "0.0000001"]);
    let alarmed = doctor.sees(&["LK105"]).await;
    assert!(what(&alarmed, "LK105").contains("raised the memory alarm"), "{alarmed:#}");
    let management = std::mem::replace(&mut doctor.management, NOWHERE.to_owned());
    let report = doctor.examine();
    assert_eq!(codes_of(&report), ["LK105", "LK903"]);
    assert_eq!(what(&report, "LK105"), "the broker takes no publishes: memory or disk alarm");
    doctor.management = management;
    doctor.remove(&alarmed, &["LK105"]);
    doctor.sees(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_tokens_are_judged() {
    let world = made("door-shown").await;
    let publisher = Publisher::new(&world, r"^door-shown(\.doors)?$");
    let authority = Authority::new("doors");
    let with_tls = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        publisher.doctor(&format!(
            "tls = {{ certificate = \"file:{certificate}\", key = \"file:{key}\", client_ca = \"file:{}\" }}",
            authority.file().display()
        ))
    };
    let [good, good_key] = authority.issue("door.example").write(&authority, "good");
    let [old, old_key] = authority.issue_expired("door.example").write(&authority, "old");
    with_tls(&good, &good_key).sees(&[]).await;
    let report = with_tls(&old, &old_key).sees(&["LK602"]).await;
    assert!(what(&report, "LK602").contains("has expired at 2020-01-01"), "{report:#}");

    // What `check` refuses, and with its words.
    let refused = |doctor: &Doctor<'_>, part: &str| {
        let output = doctor.call(&[]);
        assert_eq!(output.code, Some(2), "{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains(part), "{}", output.stderr);
    };
    refused(&with_tls(&good, &old_key), "ingest.tls.key");
    refused(&with_tls(&good, &old_key), "does not belong to the certificate");
    refused(&with_tls(Path::new("/nowhere/door.pem"), &good_key), "/nowhere/door.pem");
    let mut short = publisher.doctor("");
    short.config = short.config.replace(TOKEN, "short");
    refused(&short, "shorter than 16 characters");
    refused(&publisher.doctor("listen = \"0.0.0.0:0\""), "without TLS");
    let report = publisher.doctor("listen = \"0.0.0.0:0\"\ninsecure = true").sees(&["LK604"]).await;
    assert_eq!(report["errors"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_others_have_are_errors_and_a_door_that_runs_is_none() {
    let world = made("door-placed").await;
    let publisher = Publisher::new(&world, r"^door-placed(\.doors)?$");
    let ([(_a, admin), (_b, ingest)], (_c, unused)) = ([free_address(), free_address()], free_address());
    let at = |admin: &str, ingest: &str| {
        let mut doctor = publisher.doctor(&format!("listen = \"{ingest}\""));
        doctor.config = doctor.config.replace(ANY_ADMIN, &format!("admin.listen = \"{admin}\"\n"));
        doctor
    };
    at(&admin, &ingest).sees(&[]).await;
    let report = at(&admin, &admin).sees(&["LK601"]).await;
    assert!(what(&report, "LK601").contains("are the same address"), "{report:#}");

    let other = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = other.local_addr().expect("it is bound").to_string();
    let report = at(&admin, &taken).sees(&["LK601"]).await;
    let expected = format!("ingest.listen = {taken} is taken: another program listens there");
    assert_eq!(what(&report, "LK601"), expected);
    // Without an admin.listen, it can be the door itself.
    let report = at("", &taken).sees(&[]).await;
    assert!(unseen(&report).join("").contains("who listens at ingest.listen"), "{report:#}");
    let report = at(&admin, "192.0.2.1:9480").call(&[]); // of TEST-NET-1 (RFC 5737); without TLS
    assert_eq!(report.code, Some(2));

    let (mut process, _) = door(&world, &at(&admin, &ingest).config).await;
    at(&admin, &ingest).sees(&[]).await;
    let text = at(&admin, &ingest).call(&[]).stdout;
    assert!(text.contains(&format!("door at {ingest}, which runs")), "{text}");
    let report = at(&admin, &unused).sees(&["LK601"]).await;
    assert!(what(&report, "LK601").ends_with("another door listens there"), "{report:#}");
    process.terminate();
    assert_eq!(process.ended().await, Some(0));

    let dispatcher = world.dispatcher(PARTITIONS).await;
    let of_run = dispatcher.admin().await;
    let of_run = of_run.trim_start_matches("http://");
    let report = at(of_run, &ingest).sees(&["LK601"]).await;
    assert!(what(&report, "LK601").ends_with("a `lanekeeper run` listens there"), "{report:#}");
}
