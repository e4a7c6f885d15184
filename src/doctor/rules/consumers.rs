//! Who consumes the partitions, and how long a consumer may hold a delivery.

use std::time::Duration;

use super::super::codes::Code;
use super::super::facts::{Consumer, Management, Queue};
use super::super::finding::Finding;
use super::super::fix::{Fix, disconnect};
use super::case::{Case, listed};
use super::policies::{clear, set_by};
use crate::config::{ACK_TIMEOUT, format_duration, held_at_most};
use lanekeeper_broker::{Object, ObjectState};

/// Prefix of Lanekeeper's consumer tags.
const OUR_TAG: &str = "lanekeeper ";
/// Key of a policy that sets a queue's acknowledgement timeout, in milliseconds.
const TIMEOUT_POLICY: &str = "consumer-timeout";

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(management) = &case.observed.management {
        for object in case.observed.partitions() {
            let consumers = management.queues.get(&object.name).map(|queue| queue.consumers.as_slice());
            for consumer in consumers.unwrap_or_default() {
                findings.extend(foreign(management, object, consumer));
                findings.extend(prefetch(case, object, consumer));
            }
        }
    }
    findings.extend(without_consumer(case));
    findings.extend(ack_timeout(case));
    findings
}

fn foreign(management: &Management, object: &Object, consumer: &Consumer) -> Option<Finding> {
    if consumer.tag.starts_with(OUR_TAG) {
        return None;
    }
    let user = consumer.user.as_deref().map(|user| format!(" of user {user}")).unwrap_or_default();
    let connection =
        consumer.connection.as_deref().map(|name| format!(", connection {name}")).unwrap_or_default();
    let what = format!(
        "consumer {:?}{user}{connection} is not Lanekeeper's and consumes {}",
        consumer.tag, object.name
    );
    let mut fix = vec![Fix::Do("stop the program that owns it".to_owned())];
    fix.extend(disconnect(management, consumer));
    Some(Finding::new(Code::ForeignConsumer, what, fix))
}

fn prefetch(case: &Case<'_>, object: &Object, consumer: &Consumer) -> Option<Finding> {
    let layout = case.observed.layout()?;
    let wanted = u64::from(layout.prefetch);
    let lower = consumer.prefetch > 0 && consumer.prefetch < wanted;
    let messages = case.observed.messages(object);
    if !lower || messages == 0 || !consumer.tag.starts_with(OUR_TAG) {
        return None;
    }
    let what = format!(
        "consumer {:?} of {} holds at most {}, below the layout's prefetch of {wanted}, and the queue has {messages} messages",
        consumer.tag, object.name, consumer.prefetch
    );
    let stop =
        Fix::Do("stop that dispatcher; a dispatcher of this version uses the layout's prefetch".to_owned());
    Some(Finding::new(Code::PrefetchTooLow, what, vec![stop]))
}

fn without_consumer(case: &Case<'_>) -> Option<Finding> {
    let unconsumed = |object: &&Object| match &object.state {
        ObjectState::AsDeclared(depth) | ObjectState::Differs { depth, .. } => {
            depth.consumers == 0 && depth.ready > 0
        }
        ObjectState::Missing | ObjectState::Unavailable(_) | ObjectState::NotPermitted(_) => false,
    };
    let queues: Vec<&str> =
        case.observed.partitions().filter(unconsumed).map(|object| object.name.as_str()).collect();
    let run = Fix::Run("lanekeeper run --config FILE".to_owned());
    // While a layout drains, the next one may have to wait for it.
    (!queues.is_empty() && !case.observed.broker.draining).then(|| {
        let what = format!("updates wait, but nobody consumes {}", listed(&queues));
        Finding::new(Code::NobodyConsumes, what, vec![run])
    })
}

/// The shortest acknowledgement timeout of a partition.
struct AckTimeout<'a> {
    lasts: Duration,
    /// Of what, in words.
    of: String,
    /// `None`: the broker's default is assumed.
    queue: Option<&'a str>,
}

/// From RabbitMQ 4.0 on the API shows the timeout of each consumer. Before, no API shows the broker's own setting, only
/// what policies and arguments of queues set.
fn shortest<'a>(case: &Case<'a>) -> AckTimeout<'a> {
    let of_queues = case.observed.partitions().filter_map(|object| {
        let queue = case.observed.queue(&object.name)?;
        let of_consumers = queue.consumers.iter().filter_map(|consumer| consumer.timeout_ms);
        let least = of_consumers.chain(policy_timeout(queue)).chain(queue.consumer_timeout_ms).min()?;
        Some((Duration::from_millis(least), object.name.as_str()))
    });
    match of_queues.min() {
        Some((lasts, queue)) => AckTimeout { lasts, of: format!("of {queue}"), queue: Some(queue) },
        None => AckTimeout {
            lasts: ACK_TIMEOUT,
            of: "that RabbitMQ has by default (no API shows this broker's)".to_owned(),
            queue: None,
        },
    }
}

fn policy_timeout(queue: &Queue) -> Option<u64> {
    queue.effective_policy.as_ref()?.get(TIMEOUT_POLICY)?.as_u64()
}

fn ack_timeout(case: &Case<'_>) -> Option<Finding> {
    let (AckTimeout { lasts, of, queue }, needed) = (shortest(case), held_at_most(case.config));
    if lasts >= needed {
        return None;
    }
    let dispatch = &case.config.dispatch;
    let what = format!(
        "the acknowledgement timeout {of} is {}, but an update may be held for dispatch.held_max {} + drain_timeout {} \
         + a minute = {}",
        format_duration(lasts),
        format_duration(dispatch.held_max),
        format_duration(dispatch.drain_timeout),
        format_duration(needed)
    );
    let by_policy = queue.and_then(|name| {
        let queue = case.observed.queue(name)?;
        (policy_timeout(queue).map(Duration::from_millis) == Some(lasts)).then_some((name, queue))
    });
    if let (Some(of_policy), Ok(management)) = (by_policy, &case.observed.management) {
        let fix = clear(case, TIMEOUT_POLICY, &set_by(management, TIMEOUT_POLICY, &[of_policy]));
        return Some(Finding::new(Code::AckTimeoutTooShort, what, fix));
    }
    let mut fix = Vec::new();
    let most = lasts.saturating_sub(needed.saturating_sub(dispatch.held_max));
    if most >= Duration::from_secs(1) {
        fix.push(Fix::Config(format!("dispatch.held_max = \"{}s\"", most.as_secs())));
        fix.push(Fix::Do("or, on every node (and as consumer_timeout in its rabbitmq.conf):".to_owned()));
    }
    let least = needed.as_millis();
    fix.push(Fix::Run(format!("rabbitmqctl eval 'application:set_env(rabbit, consumer_timeout, {least}).'")));
    Some(Finding::new(Code::AckTimeoutTooShort, what, fix))
}
