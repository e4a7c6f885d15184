//! Rules on facts in the form that the broker gives them: those that no RabbitMQ of the broker tests can be brought to,
//! and how it all reads.

mod outside;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::super::change::{Weight, weigh_all};
use super::super::facts::{
    Alarm, Binding, Consumer, DestinationKind, Management, ManagementCause, ManagementFault, Node, Observed,
    PolicyKind, PolicyName, Queue, Version,
};
use super::super::management_answers as answers;
use super::super::{Examination, Subject, judge, unseen};
use crate::config::{Config, Environment, Purpose, load};
use lanekeeper_broker::{Depth, Inspection, MessageSize, Names, Object, ObjectState, Publishing, Role};
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber, Shape};

const LAYOUT: Layout = Layout { number: LayoutNumber(1), partitions: 2, prefetch: 1000 };

fn config() -> Config {
    let environment: Environment = [("LANEKEEPER_UPDATES__PARTITIONS", "2")].into_iter().collect();
    load(None, &environment, Purpose::Publish).unwrap_or_else(|faults| panic!("{faults}")).config
}

fn binding(source: &str, destination: &str, to: DestinationKind) -> Binding {
    Binding { source: source.into(), destination: destination.into(), to, properties_key: "~".into() }
}

/// As `lanekeeper run` leaves it, on three nodes.
fn sound() -> Observed {
    let names = Names::new("updates");
    let object = |role, name: String| Object { name, role, state: ObjectState::AsDeclared(Depth::default()) };
    let mut objects = vec![
        object(Role::Public, names.public().to_owned()),
        object(Role::Ingress, names.ingress()),
        object(Role::Handoff, names.handoff()),
        object(Role::DeadExchange, names.dead()),
        object(Role::DeadQueue, names.dead()),
        object(Role::Document, names.topology()),
        object(Role::Layout, names.layout(LAYOUT.number)),
    ];
    let mut bindings = vec![
        binding("updates", "updates.ingress", DestinationKind::Exchange),
        binding("updates.ingress", "updates.l1", DestinationKind::Exchange),
        binding("updates.dead", "updates.dead", DestinationKind::Queue),
    ];
    for partition in [0, 1].map(PartitionNumber) {
        let queue = names.partition(LAYOUT.number, partition);
        bindings.push(binding("updates.l1", &queue, DestinationKind::Queue));
        objects.push(object(Role::Partition(partition), queue));
    }
    let nodes = || ["rabbit@a", "rabbit@b", "rabbit@c"].map(str::to_owned).to_vec();
    let queue =
        Queue { effective_policy: Some(Map::new()), members: nodes(), online: nodes(), ..Queue::default() };
    let queues = objects.iter().filter(|object| object.role.is_queue());
    let queues = queues.map(|object| (object.name.clone(), queue.clone())).collect();
    Observed {
        broker: Inspection {
            address: "mq:5672".into(),
            version: Some("4.3.6".into()),
            cluster: Some("rabbit@a".into()),
            hash_exchange: true,
            layout: Ok(Some(LAYOUT)),
            misfit: None,
            changing_to: None,
            draining: false,
            objects,
            publishing: Publishing::Taken,
        },
        management: Ok(Management {
            url: "http://mq:15672".into(),
            user: "ops".into(),
            queues,
            bindings,
            policies: [].into(),
            alarms: Ok(Vec::new()),
            nodes: Ok(nodes()
                .into_iter()
                .map(|name| Node { name, running: true, ..Node::default() })
                .collect()),
            quorum_copies: Ok(BTreeMap::new()),
            khepri: Ok(true),
        }),
        vhost: "/".into(),
        message_size: MessageSize::Takes(config().updates.body_bytes_max),
    }
}

pub(super) fn management(observed: &mut Observed) -> &mut Management {
    observed.management.as_mut().expect("it is seen")
}

#[track_caller]
pub(super) fn check(change: impl FnOnce(&mut Observed), expected: &[&str]) {
    let mut observed = sound();
    change(&mut observed);
    let findings = judge(&observed, &config());
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code.code()).collect();
    assert_eq!(codes, expected, "{findings:#?}");
}

#[test]
fn a_sound_broker_has_no_danger() {
    check(|_| {}, &[]);
}

#[test]
fn versions_and_metadata_stores_are_judged_together() {
    let on = |version: &'static str, khepri: bool, expected: &[&str]| {
        let change = |observed: &mut Observed| {
            observed.broker.version = Some(version.to_owned());
            management(observed).khepri = Ok(khepri);
            management(observed).nodes = Ok(Vec::new());
        };
        check(change, expected);
    };
    on("3.9.29", false, &["LK103"]);
    on("3.10.0", false, &[]);
    on("3.13.7", false, &[]);
    on("3.13.7", true, &["LK102"]);
    on("4.0.5", false, &[]);
    on("4.0.5", true, &["LK102"]);
    on("4.2.1", true, &["LK102"]);
    on("4.3.0-rc.1", true, &["LK104"]);
    on("4.3.0", true, &["LK104"]);
    on("4.3.5", true, &["LK104"]);
    on("4.3.6", true, &[]);
    on("5.0", true, &[]);
    on("of mine", true, &[]);
}

#[test]
fn khepri_is_safe_with_one_partition() {
    let one = |observed: &mut Observed| {
        observed.broker.version = Some("4.0.5".to_owned());
        observed.broker.layout = Ok(Some(Layout { partitions: 1, ..LAYOUT }));
        observed.broker.objects.pop();
        management(observed).bindings.pop();
    };
    check(one, &["LK502"]);
}

#[test]
fn a_queue_is_judged_by_the_copies_that_are_online() {
    let online = |nodes: usize, expected: &[&str]| {
        check(
            |observed| management(observed).queues.get_mut("updates.l1.p000").unwrap().online.truncate(nodes),
            expected,
        );
    };
    online(3, &[]);
    online(2, &["LK107"]);
    online(1, &["LK106"]);
    online(0, &["LK106"]);
    let unavailable = |observed: &mut Observed| {
        let queue = observed.broker.objects.last_mut().unwrap();
        queue.state = ObjectState::Unavailable("home node is down or inaccessible".to_owned());
    };
    check(unavailable, &["LK106"]);
}

#[test]
fn each_setting_of_a_policy_is_judged_by_what_it_does() {
    let sets = |queue: &str, definition: Json, expected: &[&str]| {
        let change = |observed: &mut Observed| {
            let Json::Object(definition) = definition else { panic!("a table") };
            let policy = PolicyName { kind: PolicyKind::Policy, name: "p".to_owned() };
            let seen = management(observed);
            let queue = seen.queues.get_mut(queue).unwrap();
            queue.policy = Some("p".to_owned());
            queue.effective_policy = Some(definition.clone());
            seen.policies.insert(policy, definition);
        };
        check(change, expected);
    };
    let partition = "updates.l1.p001";
    sets(partition, json!({"delivery-limit": 20}), &["LK301"]);
    sets(partition, json!({"delivery-limit": -1}), &["LK301"]);
    sets(partition, json!({"delivery-limit": 1_000_000}), &[]);
    sets(partition, json!({"message-ttl": 1}), &["LK302"]);
    sets(partition, json!({"max-length": 1, "max-length-bytes": 1}), &["LK303", "LK303"]);
    sets(partition, json!({"expires": 1}), &["LK304"]);
    sets(partition, json!({"overflow": "drop-head"}), &["LK305"]);
    sets(partition, json!({"overflow": "reject-publish"}), &[]);
    sets(partition, json!({"delayed-retry-type": "all", "delayed-retry-min": 5}), &["LK306", "LK306"]);
    sets(partition, json!({"delayed-retry-type": "disabled"}), &[]);
    sets(partition, json!({"federation-upstream-set": "all"}), &["LK307"]);
    sets(partition, json!({"consumer-timeout": 60_000}), &["LK402"]);
    sets(partition, json!({"consumer-timeout": 3_600_000}), &[]);
    sets(partition, json!({"queue-leader-locator": "balanced"}), &[]);
    sets("updates.dead", json!({"message-ttl": 1}), &["LK302"]);
    sets("updates.topology", json!({"max-age": "1D"}), &["LK308"]);
    sets("updates.topology", json!({"expires": 1}), &[]);
}

#[test]
fn an_argument_of_a_queue_can_shorten_the_acknowledgement_timeout() {
    check(
        |observed| {
            management(observed).queues.get_mut("updates.l1.p000").unwrap().consumer_timeout_ms =
                Some(60_000);
        },
        &["LK402"],
    );
    // RabbitMQ 4.0 shows the effective timeout of each consumer.
    let consumer = |observed: &mut Observed, timeout| {
        let tag = "lanekeeper a p000".to_owned();
        let consumer = Consumer { tag, prefetch: 1000, timeout_ms: Some(timeout), ..Consumer::default() };
        management(observed).queues.get_mut("updates.l1.p000").unwrap().consumers.push(consumer);
    };
    check(|observed| consumer(observed, 60_000), &["LK402"]);
    check(|observed| consumer(observed, 1_800_000), &[]);
    let mut config = config();
    config.dispatch.held_max = Duration::from_secs(29 * 60);
    let findings = judge(&sound(), &config);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].code.code(), "LK402");
}

#[test]
fn a_broker_that_is_seen_in_part_is_judged_in_part() {
    check(|observed| management(observed).nodes = Err("Not monitor user".into()), &["LK902"]);
    // On a version that keeps the order of bindings, or cannot have Khepri, it does not matter.
    check(|observed| management(observed).khepri = Err("Not administrator user".into()), &["LK110"]);
    let hidden = |observed: &mut Observed| {
        observed.broker.version = Some("4.1.0".into());
        management(observed).khepri = Err("Not administrator user".into());
    };
    check(hidden, &["LK110", "LK902"]);
    check(|observed| observed.broker.publishing = Publishing::Unconfirmed, &["LK105"]);
    check(|observed| observed.broker.layout = Ok(None), &["LK201"]);
    check(|observed| observed.broker.layout = Err("the layout document cannot be read".into()), &["LK211"]);
}

/// Excerpts of what RabbitMQ 3.10.8 and 4.0.5 answer.
#[test]
fn answers_of_the_management_api_become_facts() {
    let queue = answers::queue(&json!({
        "type": "quorum",
        "messages": 3,
        "policy": null,
        "operator_policy": "ops",
        "effective_policy_definition": [],
        "arguments": {"x-queue-type": "quorum", "x-consumer-timeout": 5000},
        "consumer_details": [{"consumer_tag": "lanekeeper vm p000", "prefetch_count": 1000,
            "channel_details": {"connection_name": "127.0.0.1:1 -> 127.0.0.1:2", "user": "guest"}},
            {"consumer_tag": "late", "prefetch_count": 0, "channel_details": []}],
        "members": ["rabbit@a", "rabbit@b"],
        "online": ["rabbit@a"],
        "leader": "rabbit@a",
    }));
    assert_eq!((queue.messages, queue.consumer_timeout_ms), (3, Some(5000)));
    assert_eq!(queue.effective_policy, Some(Map::new()));
    assert_eq!((queue.policy, queue.operator_policy.as_deref()), (None, Some("ops")));
    assert_eq!(queue.consumers[0].connection.as_deref(), Some("127.0.0.1:1 -> 127.0.0.1:2"));
    assert_eq!(queue.consumers[1].connection, None);
    assert_eq!((queue.members.len(), queue.online.len()), (2, 1));
    assert_eq!(queue.leader.as_deref(), Some("rabbit@a"));
    assert_eq!(answers::queue(&json!({})), Queue::default());
    let flag =
        |state| json!([{"name": "khepri_db", "state": state}, {"name": "quorum_queue", "state": "enabled"}]);
    assert!(answers::khepri(&flag("enabled")) && !answers::khepri(&flag("disabled")));
    let failed = json!({"status": "failed", "alarms": [{"node": "rabbit@a", "resource": "disk space"}]});
    assert_eq!(answers::alarms(&failed), [Alarm { node: "rabbit@a".into(), resource: "disk space".into() }]);
    assert_eq!(answers::alarms(&json!({"status": "ok"})), []);
    let nodes = json!([{"name": "a", "running": true, "partitions": ["c"], "fd_total": 1024}, {"name": "b", "running": false}]);
    let node = |name: &str, running, partitions: &[&str]| Node {
        name: name.to_owned(),
        running,
        partitions: partitions.iter().map(|name| (*name).to_owned()).collect(),
        files_max: (name == "a").then_some(1024),
    };
    assert_eq!(answers::nodes(&nodes), [node("a", true, &["c"]), node("b", false, &[])]);
    assert_eq!(
        answers::bindings(&json!([{"source": "", "destination": "q", "destination_type": "queue"}])),
        []
    );
    assert_eq!(Version::parse("3.12.0+beta.1"), Some(Version(3, 12, 0)));
    assert_eq!(Version::parse("latest"), None);
}

fn report(observed: Observed) -> String {
    let config = config();
    let (findings, unseen) = (judge(&observed, &config), unseen(&observed, &config));
    Examination { subject: Subject::Run(Box::new(observed)), findings, unseen }.text("updates")
}

#[test]
fn dangers_read_as_what_why_and_the_command() {
    let mut observed = sound();
    observed.broker.version = Some("4.0.5".to_owned());
    for object in &mut observed.broker.objects {
        if object.role == Role::DeadQueue {
            object.state = ObjectState::AsDeclared(Depth { ready: 3, consumers: 0 });
        }
    }
    let seen = management(&mut observed);
    seen.bindings.push(binding("updates.ingress", "audit", DestinationKind::Queue));
    let definition = Map::from_iter([("message-ttl".to_owned(), json!(60_000))]);
    for queue in ["updates.l1.p000", "updates.l1.p001"] {
        let queue = seen.queues.get_mut(queue).unwrap();
        queue.policy = Some("house rules".to_owned());
        queue.effective_policy = Some(definition.clone());
    }
    let name = PolicyName { kind: PolicyKind::Policy, name: "house rules".to_owned() };
    seen.policies.insert(name, definition);
    insta::assert_snapshot!(report(observed), @r#"
    RabbitMQ 4.0.5 at mq:5672, virtual host /, exchange updates, layout 1 with 2 partitions

    error LK102  the metadata store is Khepri on RabbitMQ 4.0.5, and there are 2 partitions
        cost:  a restart of the broker sends almost every record key to another partition: two
               partitions then work on one record, and its updates overtake each other
        fix:   upgrade RabbitMQ to 4.3 or later
               or, since Khepri cannot be turned off again: drain the queues of updates, and start again
               with updates.partitions = 1 and another updates.exchange

    error LK206  exchange updates.ingress is bound to queue audit, in addition to the layout's
                 updates.l1
        cost:  every update also goes to the second destination, and is applied twice if that is another
               layout; while the layout changes, updates are confirmed and lost
        fix:   $ curl --user ops --request DELETE 'http://mq:15672/api/bindings/%2F/e/updates.ingress/q/audit/~'

    error LK302  policy "house rules" sets message-ttl = 60000 on updates.l1.p000, updates.l1.p001
        cost:  the broker drops or dead-letters updates that wait longer, for example while their target
               is down
        fix:   $ rabbitmqctl clear_policy --vhost / 'house rules'

    warning LK501  3 updates are in the dead-letter queue updates.dead
        cost:  the target has not applied these updates, and their records went on without them
        fix:   examine them and publish them again (docs/operating.md, "The dead-letter queue"); or, to
               delete them all:
               $ rabbitmqctl purge_queue --vhost / updates.dead

    Not looked at
    - the broker's acknowledgement timeout (consumer_timeout): no API shows it before RabbitMQ 4.0, and
      from 4.0 on only if a partition has a consumer; the default of 30m is assumed.
      $ rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'

    3 errors, 1 warning. See docs/doctor.md for the codes.
    "#);
}

#[test]
fn what_was_not_looked_at_is_said() {
    let mut observed = sound();
    observed.management = Err(ManagementFault {
        url: "http://mq:15672".to_owned(),
        user: "ops".to_owned(),
        cause: ManagementCause::Unreachable("connection refused".to_owned()),
    });
    insta::assert_snapshot!(report(observed), @r#"
    RabbitMQ 4.3.6 at mq:5672, virtual host /, exchange updates, layout 1 with 2 partitions

    warning LK901  the management API is not reachable at http://mq:15672: connection refused
        cost:  policies, bindings, foreign consumers and the metadata store were not checked, and most
               dangers are there
        fix:   $ rabbitmq-plugins enable rabbitmq_management
               or, if it is elsewhere (also as --management URL):
               config: broker.management_url = "http://USER:PASSWORD@HOST:15672"

    Not looked at
    - policies: a policy with a TTL, a length limit or a low delivery limit would lose updates.
      $ rabbitmqctl list_policies --vhost / && rabbitmqctl list_operator_policies --vhost /
    - bindings: an extra or missing binding would duplicate, lose or reorder updates.
      $ rabbitmqctl list_bindings --vhost /
    - consumers of the partitions: a program that is not Lanekeeper could take updates.
      $ rabbitmqctl list_consumers --vhost /
    - copies of the queues: if one more node fails, a queue could stop.
      $ rabbitmqctl cluster_status
    - the broker's acknowledgement timeout (consumer_timeout): no API shows it before RabbitMQ 4.0, and
      from 4.0 on only if a partition has a consumer; the default of 30m is assumed.
      $ rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'

    No errors, 1 warning. See docs/doctor.md for the codes.
    "#);
}

#[test]
fn what_a_change_of_the_layout_does_meanwhile_is_no_danger() {
    let changing = |binding_of_handoff: &str, to: Option<Layout>, expected: &[&str]| {
        let change = |observed: &mut Observed| {
            observed.broker.changing_to = to;
            let seen = management(observed);
            seen.bindings.retain(|binding| binding.source != "updates.ingress");
            seen.bindings.push(binding("updates.handoff", binding_of_handoff, DestinationKind::Exchange));
        };
        check(change, expected);
    };
    let next = Layout { number: LayoutNumber(2), ..LAYOUT };
    changing("updates.l2", Some(next), &[]);
    changing("updates.l3", Some(next), &["LK207"]);
    changing("updates.l2", None, &["LK205", "LK207"]);
}

/// The dangers of a change to so many partitions: code and weight.
#[track_caller]
pub(super) fn check_change(change: impl FnOnce(&mut Observed), partitions: u16, expected: &[(&str, Weight)]) {
    let (mut observed, config) = (sound(), config());
    change(&mut observed);
    let findings = judge(&observed, &config);
    let to = Shape { partitions, prefetch: LAYOUT.prefetch };
    let dangers = weigh_all(&observed, findings, &config, to);
    let actual: Vec<_> = dangers.iter().map(|danger| (danger.finding.code.code(), danger.weight)).collect();
    assert_eq!(actual, expected, "{dangers:#?}");
}

#[test]
fn what_a_change_could_meet_is_weighed() {
    use Weight::{Forbids, Risks, Unseen};
    check_change(|_| {}, 5, &[]);
    let audit = |observed: &mut Observed| {
        management(observed).bindings.push(binding("updates.ingress", "audit", DestinationKind::Queue));
    };
    check_change(audit, 5, &[("LK206", Forbids)]);
    let alarm = |observed: &mut Observed| observed.broker.publishing = Publishing::Blocked;
    check_change(alarm, 5, &[("LK105", Forbids)]);
    let gone = |role: Role| {
        move |observed: &mut Observed| {
            let objects = &mut observed.broker.objects;
            let object = objects.iter_mut().find(|object| object.role == role).expect("it is there");
            object.state = ObjectState::Missing;
        }
    };
    // The way out of a layout that has lost a queue is open, for a person.
    check_change(gone(Role::Partition(PartitionNumber(1))), 5, &[("LK202", Risks)]);
    check_change(gone(Role::Handoff), 5, &[("LK202", Forbids)]);
    let unseen = |observed: &mut Observed| {
        observed.management = Err(ManagementFault {
            url: "http://mq:15672".to_owned(),
            user: "ops".to_owned(),
            cause: ManagementCause::Unreachable("connection refused".to_owned()),
        });
    };
    let older = |observed: &mut Observed| observed.broker.misfit = Some("it is older".to_owned());
    check_change(older, 5, &[("LK116", Forbids)]);
    check_change(unseen, 5, &[("LK901", Unseen)]);
}

#[test]
fn a_change_to_several_partitions_is_held_to_what_the_metadata_store_can() {
    let on_khepri = |partitions: u16| {
        move |observed: &mut Observed| {
            observed.broker.version = Some("4.0.5".to_owned());
            observed.broker.layout = Ok(Some(Layout { partitions, ..LAYOUT }));
        }
    };
    let check_weights = |from: u16, to: u16, expected: &[(&str, Weight)]| {
        let mut observed = sound();
        on_khepri(from)(&mut observed);
        let (findings, config) = (judge(&observed, &config()), config());
        let shape = Shape { partitions: to, prefetch: LAYOUT.prefetch };
        let dangers = weigh_all(&observed, findings, &config, shape);
        let found = dangers.iter().filter(|danger| danger.finding.code.code() == "LK102");
        let actual: Vec<_> = found.map(|danger| (danger.finding.code.code(), danger.weight)).collect();
        assert_eq!(actual, expected, "{from} to {to}");
    };
    check_weights(1, 4, &[("LK102", Weight::Forbids)]);
    check_weights(4, 8, &[("LK102", Weight::Risks)]);
    check_weights(4, 1, &[]);
}
