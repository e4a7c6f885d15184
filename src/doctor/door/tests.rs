//! Rules of a door on facts in the form that the broker gives them, and how it all reads.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::listening::{Listening, Occupant, PortState};
use super::rules::{judge, unseen};
use super::{ObservedDoor, Subject};
use crate::config::{Config, Environment, Purpose, load};
use crate::doctor::Examination;
use crate::doctor::facts::{
    Alarm, Binding, DestinationKind, ExchangeManagement, ManagementCause, ManagementFault, SeenExchange,
};
use crate::doctor::management_answers as answers;
use lanekeeper_broker::{ExchangeProbe, ExchangePublishing, MessageSize};

const CLIENT: &str = "[[ingest.client]]\nname = \"crm\"\ntokens = [\"0123456789abcdef-crm\"]\n";

/// A config for a door alone. `lines` are of `[ingest]`.
fn config(lines: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door.toml");
    std::fs::write(&path, format!("broker.url = \"amqp://door:s3cret@mq\"\n[ingest]\n{lines}\n{CLIENT}"))
        .unwrap();
    let loaded = load(Some(&path), &Environment::default(), Purpose::Examine);
    let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(loaded.purpose, Purpose::Ingest);
    loaded.config
}

fn sound() -> ObservedDoor {
    let config = config("");
    let free = |address| (address, PortState::Free);
    ObservedDoor {
        broker: ExchangeProbe {
            address: "mq:5672".into(),
            version: Some("4.0.5".into()),
            cluster: Some("rabbit@a".into()),
            publishing: ExchangePublishing::Taken,
        },
        management: Ok(ExchangeManagement {
            url: "http://mq:15672".into(),
            user: "ops".into(),
            exchange: Ok(SeenExchange {
                kind: "fanout".into(),
                durable: true,
                auto_delete: false,
                internal: false,
            }),
            bindings: Ok(vec![Binding {
                source: "updates".into(),
                destination: "updates.ingress".into(),
                to: DestinationKind::Exchange,
                properties_key: "~".into(),
            }]),
            alarms: Ok(Vec::new()),
        }),
        reports: ExchangePublishing::Taken,
        vhost: "/".into(),
        message_size: MessageSize::Takes(config.updates.body_bytes_max),
        address: config.ingest.listen,
        listening: Listening {
            ingest: config.ingest.listen.map(free),
            admin: config.admin.listen.map(free),
            at_admin: Occupant::Unknown,
        },
    }
}

fn seen(observed: &mut ObservedDoor) -> &mut ExchangeManagement {
    observed.management.as_mut().expect("it is seen")
}

#[track_caller]
fn check(change: impl FnOnce(&mut ObservedDoor), expected: &[&str]) {
    check_with("", change, expected);
}

#[track_caller]
fn check_with(lines: &str, change: impl FnOnce(&mut ObservedDoor), expected: &[&str]) {
    let mut observed = sound();
    change(&mut observed);
    let findings = judge(&observed, &config(lines));
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code.code()).collect();
    assert_eq!(codes, expected, "{findings:#?}");
}

#[test]
fn what_a_door_does_not_use_is_not_judged() {
    check(|_| {}, &[]);
    let version = |version: &'static str, expected: &[&str]| {
        check(|observed| observed.broker.version = Some(version.to_owned()), expected);
    };
    version("3.9.29", &["LK103"]);
    // Queues and the metadata store are judged with the config of `lanekeeper run`.
    version("4.3.0", &[]);
    version("of mine", &[]);
    check(|observed| observed.broker.version = None, &[]);
}

#[test]
fn what_keeps_updates_out_is_an_error() {
    let publishing = |publishing: ExchangePublishing, expected: &[&str]| {
        check(|observed| observed.broker.publishing = publishing, expected);
    };
    publishing(ExchangePublishing::NotPermitted("refused".to_owned()), &["LK108"]);
    publishing(ExchangePublishing::Missing, &["LK201"]);
    publishing(ExchangePublishing::Internal, &["LK203"]);
    publishing(ExchangePublishing::Blocked, &["LK105"]);
    publishing(ExchangePublishing::Silent, &["LK105"]);
    let refused = || ExchangePublishing::NotPermitted("refused".to_owned());
    check(|observed| observed.reports = refused(), &["LK605"]);
    check(|observed| observed.reports = ExchangePublishing::Missing, &[]);
    let both = |observed: &mut ObservedDoor| {
        observed.broker.publishing = refused();
        observed.reports = refused();
    };
    check(both, &["LK108"]);
    let alarm = Alarm { node: "rabbit@a".into(), resource: "disk space".into() };
    check(|observed| seen(observed).alarms = Ok(vec![alarm]), &["LK105"]);
    check(|observed| observed.message_size = MessageSize::Refuses { tried: 9, max: Some(8) }, &["LK130"]);
}

#[test]
fn the_exchange_is_as_run_declares_it() {
    let differs = |change: fn(&mut SeenExchange), expected: &[&str]| {
        check(|observed| change(seen(observed).exchange.as_mut().unwrap()), expected);
    };
    differs(|exchange| exchange.kind = "topic".into(), &["LK203"]);
    differs(|exchange| exchange.durable = false, &["LK203"]);
    differs(|exchange| exchange.auto_delete = true, &["LK203"]);
    check(|observed| seen(observed).bindings = Ok(Vec::new()), &["LK205"]);
    let elsewhere = |observed: &mut ObservedDoor| {
        seen(observed).bindings.as_mut().unwrap()[0].destination = "audit".into();
    };
    check(elsewhere, &["LK205"]);
    let answer =
        json!({"type": "fanout", "durable": true, "auto_delete": false, "internal": false, "arguments": {}});
    assert_eq!(Ok(answers::exchange(&answer)), seen(&mut sound()).exchange);
}

/// What was not seen is listed, and is no danger.
#[test]
fn a_user_that_sees_nothing_at_the_management_api_is_no_danger() {
    let listed = |change: &dyn Fn(&mut ObservedDoor), expected: usize| {
        check(change, &["LK903"]);
        let mut observed = sound();
        change(&mut observed);
        let unseen = unseen(&observed, &config(""));
        assert_eq!(unseen.len(), expected + 1, "{unseen:#?}");
    };
    let fault = |cause: ManagementCause| {
        move |observed: &mut ObservedDoor| {
            let (url, user) = ("http://mq:15672".to_owned(), "door".to_owned());
            observed.management = Err(ManagementFault { url, user, cause: cause.clone() });
        }
    };
    listed(&fault(ManagementCause::Refused("Not management user".into())), 3);
    listed(&fault(ManagementCause::Unreachable("connection refused".into())), 3);
    listed(&fault(ManagementCause::OtherCluster("rabbit@b".into())), 3);
    listed(&|observed| seen(observed).alarms = Err("Not monitor user".into()), 1);
    // What is not there has no type.
    let missing = |observed: &mut ObservedDoor| {
        observed.broker.publishing = ExchangePublishing::Missing;
        seen(observed).exchange = Err("the broker does not have this API".into());
        seen(observed).bindings = Err("the broker does not have this API".into());
    };
    check(missing, &["LK201"]);
}

#[test]
fn an_address_is_judged_by_who_has_it() {
    use PortState::{Free, NotPermitted, OfAnotherHost, Taken};
    let at = |[ingest, admin]: [PortState; 2], at_admin: Occupant, expected: &[&str]| {
        let change = |observed: &mut ObservedDoor| {
            let listening = &mut observed.listening;
            listening.ingest.as_mut().unwrap().1 = ingest;
            listening.admin.as_mut().unwrap().1 = admin;
            listening.at_admin = at_admin;
        };
        check(change, expected);
    };
    at([Taken, Taken], Occupant::Door, &[]);
    at([Taken, Free], Occupant::Unknown, &["LK601"]);
    at([Free, Taken], Occupant::Door, &["LK601"]);
    at([Free, Taken], Occupant::Dispatcher, &["LK601"]);
    at([Taken, Taken], Occupant::Dispatcher, &["LK601", "LK601"]);
    at([Taken, Taken], Occupant::Other("it answers 200".into()), &["LK601", "LK601"]);
    // A door that starts answers neither yes nor no.
    at([Taken, Taken], Occupant::NotReady, &[]);
    at([OfAnotherHost, Free], Occupant::Unknown, &["LK601"]);
    at([Free, NotPermitted], Occupant::Unknown, &["LK601"]);
    at([PortState::Refused("odd".into()), Free], Occupant::Unknown, &["LK601"]);
    let alone = |observed: &mut ObservedDoor| {
        observed.listening.ingest.as_mut().unwrap().1 = Taken;
        observed.listening.admin = None;
    };
    check(alone, &[]);
    check_with("listen = \"127.0.0.1:9419\"", |_| {}, &["LK601"]);
    check_with("listen = \"0.0.0.0:9480\"\ninsecure = true", |_| {}, &["LK604"]);
}

#[test]
fn a_certificate_is_judged_by_the_time_that_it_has_left() {
    let day = Duration::from_secs(24 * 3600);
    let check_days = |days: u32, expected: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["door.example".to_owned()]).unwrap();
        params.not_after = (SystemTime::now() + day * days - day * 10).into();
        let files: BTreeMap<&str, String> =
            [("pem", params.self_signed(&key).unwrap().pem()), ("key", key.serialize_pem())].into();
        let path = |end: &str| directory.path().join(format!("door.{end}"));
        for (end, text) in &files {
            std::fs::write(path(end), text).unwrap();
        }
        let lines = format!(
            "listen = \"0.0.0.0:9480\"\ntls = {{ certificate = \"file:{}\", key = \"file:{}\" }}",
            path("pem").display(),
            path("key").display()
        );
        check_with(&lines, |_| {}, expected);
    };
    check_days(9, &["LK602"]);
    check_days(11, &["LK603"]);
    check_days(30, &[]);
}

#[test]
fn it_reads_as_what_why_and_the_command() {
    let (mut observed, config) = (sound(), config(""));
    observed.broker.publishing = ExchangePublishing::NotPermitted(
        "ACCESS_REFUSED - access to exchange 'updates' in vhost '/' refused for user 'door'".to_owned(),
    );
    observed.management = Err(ManagementFault {
        url: "http://mq:15672".to_owned(),
        user: "door".to_owned(),
        cause: ManagementCause::Refused("Not management user".to_owned()),
    });
    observed.listening.admin.as_mut().unwrap().1 = PortState::Taken;
    observed.listening.at_admin = Occupant::Dispatcher;
    let (findings, unseen) = (judge(&observed, &config), unseen(&observed, &config));
    let examination = Examination { subject: Subject::Door(Box::new(observed)), findings, unseen };
    assert_eq!(examination.json("updates")["for"], "ingest");
    insta::assert_snapshot!(examination.text("updates"), @r#"
    Judged as a config for a door alone (`lanekeeper ingest`): it has [[ingest.client]] or
    [[ingest.hook]], and no [[target]].

    RabbitMQ 4.0.5 at mq:5672, virtual host /, exchange updates, door at 127.0.0.1:9480

    error LK108  the broker refuses what `lanekeeper ingest` must do, which is to write to its exchange:
                 ACCESS_REFUSED - access to exchange 'updates' in vhost '/' refused for user 'door'
        cost:  `lanekeeper run` exits at the start, or cannot dead-letter updates; `lanekeeper ingest`
               exits with the first update that it takes
        fix:   $ rabbitmqctl set_permissions --vhost / door '^$' '^updates(\.doors)?$' '^$'
               which is all that a door needs; it replaces what the user may do in this virtual host, so
               add to it what other programs do with this user

    error LK601  admin.listen = 127.0.0.1:9419 is taken: a `lanekeeper run` listens there
        cost:  `lanekeeper ingest` exits at its start: nobody can send it updates
        fix:   give each process on a host an admin.listen of its own:
               config: admin.listen = "127.0.0.1:PORT"

    info LK903  the management API at http://mq:15672 refuses user door: Not management user
        cost:  the things listed below were not checked; a door itself needs no right at the management
               API
        fix:   a door's user needs no tag; to have it checked, name a user that has the tag monitoring:
               $ lanekeeper doctor --config FILE --management http://USER:PASSWORD@HOST:15672

    Not looked at
    - what lies behind the exchange (queues, policies, consumers): a fault there can lose or reorder
      what the door has published; the config of `lanekeeper run` has it judged.
      $ lanekeeper doctor --config CONFIG_OF_RUN
    - the type of the exchange updates: another type than fanout, which another program has declared,
      loses updates.
      $ rabbitmqctl list_exchanges --vhost / name type durable auto_delete internal
    - the binding of the exchange updates to updates.ingress: without it, the broker returns each
      update, and a door answers 503.
      $ rabbitmqctl list_bindings --vhost / source_name destination_name
    - alarms by node: only a test publish over AMQP shows if an alarm blocks publishes.
      $ rabbitmq-diagnostics alarms

    2 errors, no warnings. See docs/doctor.md for the codes.
    "#);
}
