//! The broker itself: version, plugins, metadata store, alarms, permissions.

use super::super::codes::Code;
use super::super::facts::{Alarm, Observed, Version};
use super::super::finding::Finding;
use super::super::fix::{Fix, quoted};
use super::case::Case;
use lanekeeper_broker::{HASH_EXCHANGE_TYPE, ObjectState, Publishing};
use lanekeeper_core::layout::Layout;

/// The first version with everything that the topology needs; also the oldest one that is tested.
const OLDEST: Version = Version(3, 10, 0);
/// In these versions a queue with a single active consumer can stop delivering for good (rabbitmq-server issue 17317).
const WEDGE: std::ops::RangeInclusive<Version> = Version(4, 3, 0)..=Version(4, 3, 5);
/// In these versions Khepri can be the metadata store, and does not keep the order of a hash exchange's bindings.
pub const KHEPRI_REORDERS: std::ops::Range<Version> = Version(3, 13, 0)..Version(4, 3, 0);

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let rules = [version, khepri, alarms, permissions];
    rules.into_iter().flat_map(|rule| rule(case)).collect()
}

fn version(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !case.observed.broker.hash_exchange {
        let enable = Fix::Run("rabbitmq-plugins enable rabbitmq_sharding".to_owned());
        let what = format!("the broker does not know the exchange type {HASH_EXCHANGE_TYPE}");
        let nodes = Fix::Do("on every node; the plugin ships with RabbitMQ".to_owned());
        findings.push(Finding::new(Code::HashExchangeMissing, what, vec![enable, nodes]));
    }
    let Some(version) = case.observed.version() else { return findings };
    let version_text = case.observed.broker.version.as_deref().unwrap_or_default();
    findings.extend(too_old(version_text));
    if WEDGE.contains(&version) {
        let what = format!(
            "the broker is RabbitMQ {version_text}; in 4.3.0 to 4.3.5 a queue with a single active consumer can stop delivering forever"
        );
        findings.push(Finding::new(Code::QueueCanWedge, what, vec![upgrade("4.3.6")]));
    }
    findings
}

/// A version older than all that were tested.
pub fn too_old(version: &str) -> Option<Finding> {
    let what = format!("the broker is RabbitMQ {version}; Lanekeeper needs 3.10 or later");
    let is_old = Version::parse(version).is_some_and(|version| version < OLDEST);
    is_old.then(|| Finding::new(Code::BrokerTooOld, what, vec![upgrade("3.10")]))
}

fn upgrade(to: &str) -> Fix {
    Fix::Do(format!("upgrade RabbitMQ to {to} or later"))
}

fn khepri(case: &Case<'_>) -> Vec<Finding> {
    khepri_with(case, partitions(case), "there are").into_iter().collect()
}

/// Judges so many partitions. `there_are` says whether they exist or are to be made.
pub fn khepri_with(case: &Case<'_>, partitions: u16, there_are: &str) -> Option<Finding> {
    let Ok(management) = &case.observed.management else { return None };
    let reorders = case.observed.version().is_some_and(|version| KHEPRI_REORDERS.contains(&version));
    if !reorders || partitions == 1 || management.khepri != Ok(true) {
        return None;
    }
    let what = format!(
        "the metadata store is Khepri on RabbitMQ {}, and {there_are} {partitions} partitions",
        case.observed.broker.version.as_deref().unwrap_or_default()
    );
    let exchange = case.names.public();
    let mut fix = vec![upgrade("4.3")];
    fix.push(match case.observed.layout() {
        None | Some(Layout { partitions: 1, .. }) => Fix::Config("updates.partitions = 1".to_owned()),
        Some(_) => Fix::Do(format!(
            "or, since Khepri cannot be turned off again: drain the queues of {exchange}, and start again with \
             updates.partitions = 1 and another updates.exchange"
        )),
    });
    Some(Finding::new(Code::KhepriReordersKeys, what, fix))
}

/// Partitions of the current layout, or of the one that the first start would create.
pub fn partitions(case: &Case<'_>) -> u16 {
    case.observed.layout().map_or(case.config.updates.partitions.get(), |layout| layout.partitions)
}

fn alarms(case: &Case<'_>) -> Vec<Finding> {
    let alarms = match &case.observed.management {
        Ok(management) => management.alarms.as_deref().unwrap_or_default(),
        Err(_) => &[],
    };
    let what = match case.observed.broker.publishing {
        Publishing::Blocked => Some(BLOCKED),
        Publishing::Unconfirmed => Some("the broker did not confirm a publish within seconds"),
        Publishing::Taken | Publishing::NotPermitted(_) => None,
    };
    blocked_by(alarms, what)
}

/// What the test publish showed.
pub const BLOCKED: &str = "the broker takes no publishes: memory or disk alarm";

/// These alarms; if there is none, what the test publish showed.
pub fn blocked_by(alarms: &[Alarm], publish: Option<&str>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = alarms
        .iter()
        .map(|alarm| {
            let (node, resource) = (&alarm.node, &alarm.resource);
            let run = |command: &str| {
                Fix::Run(command.replace("rabbitmqctl", &format!("rabbitmqctl --node {}", quoted(node))))
            };
            let step = |text: &str| Fix::Do(text.to_owned());
            let fix = if resource.starts_with("disk") {
                vec![
                    step("free disk space for the node's data directory; or, if the limit is too high, lower it:"),
                    run("rabbitmqctl set_disk_free_limit 2GB"),
                ]
            } else {
                vec![
                    step(
                        "let dispatchers empty the queues, which fill the memory; or, if the limit is too low, raise it:",
                    ),
                    run("rabbitmqctl set_vm_memory_high_watermark 0.4"),
                ]
            };
            let what = format!("node {node} raised the {resource} alarm: the broker takes no publishes");
            Finding::new(Code::PublishingBlocked, what, fix)
        })
        .collect();
    if let Some(what) = publish.filter(|_| findings.is_empty()) {
        let look = Fix::Run("rabbitmq-diagnostics alarms".to_owned());
        findings.push(Finding::new(Code::PublishingBlocked, what, vec![look]));
    }
    findings
}

/// Permissions that `lanekeeper run` lacks. The broker's words name user and object.
fn permissions(case: &Case<'_>) -> Vec<Finding> {
    let Observed { broker, vhost, .. } = case.observed;
    let refused = broker.objects.iter().filter_map(|object| match &object.state {
        ObjectState::NotPermitted(words) => Some(words),
        _ => None,
    });
    let publishing = match &broker.publishing {
        Publishing::NotPermitted(words) => Some(words),
        _ => None,
    };
    let refused: Vec<&String> = refused.chain(publishing).collect();
    let Some(first) = refused.first() else { return Vec::new() };
    let more = match refused.len() {
        1 => String::new(),
        many => format!(" (and {} more refusals)", many - 1),
    };
    let what = format!("the broker refuses something that `lanekeeper run` must do: {first}{more}");
    let exchange = expression(case.names.public());
    let ours = format!(r"^{exchange}(\..*)?$");
    let write = format!(r"^({exchange}(\..*)?|amq\.default)$");
    let grant = |user: String| set_permissions(vhost, &user, [&ours, &write, &ours]);
    let fixes = case.config.broker.users().into_iter().map(grant).collect();
    vec![Finding::new(Code::NotPermitted, what, fixes)]
}

/// Gives a user the permissions configure, write and read on what these expressions match, instead of those it has.
pub fn set_permissions(vhost: &str, user: &str, expressions: [&str; 3]) -> Fix {
    let [configure, write, read] = expressions.map(quoted);
    let (vhost, user) = (quoted(vhost), quoted(user));
    Fix::Run(format!("rabbitmqctl set_permissions --vhost {vhost} {user} {configure} {write} {read}"))
}

/// A regular expression that matches only this name.
pub fn expression(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, c| {
        if r"\.+*?()|[]{}^$".contains(c) {
            text.push('\\');
        }
        text.push(c);
        text
    })
}
