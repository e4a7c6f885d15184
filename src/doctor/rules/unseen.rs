//! What could not be checked, and what follows from that.

use super::super::codes::Code;
use super::super::facts::{ManagementCause, ManagementFault, Observed, Queue};
use super::super::finding::{Finding, Unseen};
use super::super::fix::{Fix, quoted};
use super::broker::{KHEPRI_REORDERS, partitions};
use super::case::{Case, listed};
use crate::config::{ACK_TIMEOUT, Config, format_duration};
use lanekeeper_broker::{MESSAGE_SIZE_TRIED_MAX, MessageSize};

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let user = match &case.observed.management {
        Ok(management) => &management.user,
        Err(fault) => &fault.user,
    };
    let tag = |tag: &str| Fix::Run(format!("rabbitmqctl set_user_tags {} {tag}", quoted(user)));
    match &case.observed.management {
        Err(fault) => {
            let what = fault_of_management(fault, case.observed.broker.cluster.as_deref());
            let fix = match &fault.cause {
                ManagementCause::Unreachable(_) => vec![
                    Fix::Run("rabbitmq-plugins enable rabbitmq_management".to_owned()),
                    Fix::Do("or, if it is elsewhere (also as --management URL):".to_owned()),
                    elsewhere(),
                ],
                ManagementCause::Refused(_) => vec![
                    tag("monitoring"),
                    Fix::Do("or use another user (also as --management URL):".to_owned()),
                    elsewhere(),
                ],
                ManagementCause::OtherCluster(_) | ManagementCause::NotUnderstood(_) => vec![elsewhere()],
            };
            vec![Finding::new(Code::ManagementNotSeen, what, fix)]
        }
        Ok(management) => {
            let khepri_matters = khepri_matters(case);
            let hidden = [
                (management.khepri.is_err() && khepri_matters, "the metadata store"),
                (management.nodes.is_err(), "nodes"),
                (management.alarms.is_err(), "alarms"),
            ];
            let hidden: Vec<&str> = hidden.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
            if hidden.is_empty() {
                return Vec::new();
            }
            let what = format!("the management API does not show {} to user {user}", listed(&hidden));
            let needed =
                if management.khepri.is_err() && khepri_matters { "administrator" } else { "monitoring" };
            vec![Finding::new(Code::ManagementSeenInPart, what, vec![tag(needed)])]
        }
    }
}

/// Where to say where the management API is.
pub fn elsewhere() -> Fix {
    Fix::Config("broker.management_url = \"http://USER:PASSWORD@HOST:15672\"".to_owned())
}

/// Why the management API showed nothing, as a sentence. `cluster`: the name of the broker's.
pub fn fault_of_management(fault: &ManagementFault, cluster: Option<&str>) -> String {
    let ManagementFault { url, user, cause } = fault;
    match cause {
        ManagementCause::Unreachable(why) => format!("the management API is not reachable at {url}: {why}"),
        ManagementCause::Refused(words) => {
            format!("the management API at {url} refuses user {user}: {words}")
        }
        ManagementCause::OtherCluster(theirs) => format!(
            "the management API at {url} belongs to another cluster, {theirs:?}; the broker's is {:?}",
            cluster.unwrap_or_default()
        ),
        ManagementCause::NotUnderstood(why) => {
            format!("what answers at {url} is not RabbitMQ's management API: {why}")
        }
    }
}

/// Whether Khepri, as the metadata store, would move record keys.
fn khepri_matters(case: &Case<'_>) -> bool {
    let can_be = case.observed.version().is_none_or(|version| KHEPRI_REORDERS.contains(&version));
    can_be && partitions(case) > 1
}

/// What a person has to check by hand.
pub fn unseen(observed: &Observed, config: &Config) -> Vec<Unseen> {
    let case = Case::new(observed, config);
    let mut unseen = Vec::new();
    let mut push = |what: &str, means: String, look: &str| unseen.push(Unseen::new(what, &means, look));
    let vhost = quoted(&observed.vhost);
    let khepri = "rabbitmqctl list_feature_flags";
    let khepri_means = "if it is Khepri, a restart of the broker moves record keys to other partitions";
    match &observed.management {
        Err(_) => {
            push(
                "policies",
                "a policy with a TTL, a length limit or a low delivery limit would lose updates".to_owned(),
                &format!(
                    "rabbitmqctl list_policies --vhost {vhost} && rabbitmqctl list_operator_policies --vhost {vhost}"
                ),
            );
            push(
                "bindings",
                "an extra or missing binding would duplicate, lose or reorder updates".to_owned(),
                &format!("rabbitmqctl list_bindings --vhost {vhost}"),
            );
            push(
                "consumers of the partitions",
                "a program that is not Lanekeeper could take updates".to_owned(),
                &format!("rabbitmqctl list_consumers --vhost {vhost}"),
            );
            push(
                "copies of the queues",
                "if one more node fails, a queue could stop".to_owned(),
                "rabbitmqctl cluster_status",
            );
            if khepri_matters(&case) {
                push("the metadata store", khepri_means.to_owned(), khepri);
            }
        }
        Ok(management) => {
            if let (Err(words), true) = (&management.khepri, khepri_matters(&case)) {
                push("the metadata store", format!("{khepri_means} ({words})"), khepri);
            }
            if let Err(words) = &management.nodes {
                let means = format!("copies of queues were checked, but not the nodes themselves ({words})");
                push("nodes of the cluster", means, "rabbitmqctl cluster_status");
            }
            if let Err(words) = &management.alarms {
                let means =
                    format!("only a test publish over AMQP shows if an alarm blocks publishes ({words})");
                push("alarms by node", means, "rabbitmq-diagnostics alarms");
            }
            let unknown = management.queues.iter().filter(|(_, queue)| queue.effective_policy.is_none());
            let unknown: Vec<&str> = unknown.map(|(name, _)| name.as_str()).collect();
            if !unknown.is_empty() {
                let means = "the broker shows the policies of a new queue after some seconds: run `doctor` again then";
                push(&format!("policies of {}", listed(&unknown)), means.to_owned(), "");
            }
        }
    }
    let has_timeout = |queue: &Queue| queue.consumers.iter().any(|consumer| consumer.timeout_ms.is_some());
    if !observed.management.as_ref().is_ok_and(|management| management.queues.values().any(has_timeout)) {
        let means = format!(
            "no API shows it before RabbitMQ 4.0, and from 4.0 on only if a partition has a consumer; the default of {} is assumed",
            format_duration(ACK_TIMEOUT)
        );
        push(
            "the broker's acknowledgement timeout (consumer_timeout)",
            means,
            "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'",
        );
    }
    unseen.extend(size_unseen(&observed.message_size, config));
    unseen
}

/// The largest message, if it is not known, or not up to `updates.body_bytes_max`.
pub fn size_unseen(size: &MessageSize, config: &Config) -> Option<Unseen> {
    match size {
        MessageSize::Unknown(why) => Some(Unseen::new(
            "the largest message that the broker takes (max_message_size)",
            &format!("a lower limit than updates.body_bytes_max refuses updates ({why})"),
            MAX_MESSAGE_SIZE,
        )),
        MessageSize::Takes(tried) if *tried < config.updates.body_bytes_max => Some(Unseen::new(
            "messages as large as updates.body_bytes_max",
            &format!("the broker takes {MESSAGE_SIZE_TRIED_MAX} bytes; more was not tried"),
            MAX_MESSAGE_SIZE,
        )),
        MessageSize::Takes(_) | MessageSize::Refuses { .. } => None,
    }
}

const MAX_MESSAGE_SIZE: &str = "rabbitmqctl eval 'application:get_env(rabbit, max_message_size).'";
