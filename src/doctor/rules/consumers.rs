//! Who consumes the partitions, and how long they may hold what they got.

use std::time::Duration;

use super::super::codes::Code;
use super::super::facts::{Consumer, Management};
use super::super::finding::Finding;
use super::super::remedy::{Remedy, disconnect};
use super::{Case, listed};
use crate::config::{ACK_TIMEOUT, held_at_most, told};
use crate::source::{Object, ObjectState};

/// How consumer tags of Lanekeeper begin.
const OUR_TAG: &str = "lanekeeper ";
/// The policy that lowers the acknowledgement timeout of a queue, in milliseconds.
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
    findings.extend(nobody(case));
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
    let what = format!("consumer {:?}{user}{connection} is not Lanekeeper's, and consumes {}", consumer.tag, object.name);
    let mut remedy = vec![Remedy::Do("stop the program that it belongs to".to_owned())];
    remedy.extend(disconnect(management, consumer));
    Some(Finding::new(Code::ForeignConsumer, what, remedy))
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
    let stop = Remedy::Do("end that dispatcher; one of this version takes the layout's prefetch".to_owned());
    Some(Finding::new(Code::PrefetchTooLow, what, vec![stop]))
}

fn nobody(case: &Case<'_>) -> Option<Finding> {
    let unconsumed = |object: &&Object| match &object.state {
        ObjectState::AsDeclared(depth) | ObjectState::Differs { depth, .. } => depth.consumers == 0 && depth.ready > 0,
        ObjectState::Missing | ObjectState::NotPermitted(_) => false,
    };
    let queues: Vec<&str> =
        case.observed.partitions().filter(unconsumed).map(|object| object.name.as_str()).collect();
    let run = Remedy::Run("lanekeeper run --config FILE".to_owned());
    (!queues.is_empty()).then(|| {
        let what = format!("updates wait and nobody consumes {}", listed(&queues));
        Finding::new(Code::NobodyConsumes, what, vec![run])
    })
}

/// The broker's own setting is in no API: what can be seen is what queues say, and what the default is.
fn ack_timeout(case: &Case<'_>) -> Option<Finding> {
    let needed = held_at_most(case.config);
    let of_queues = case.observed.partitions().filter_map(|object| {
        let queue = case.observed.queue(&object.name)?;
        let policy = queue.effective_policy.as_ref().and_then(|policy| policy.get(TIMEOUT_POLICY)?.as_u64());
        let least = policy.into_iter().chain(queue.consumer_timeout_ms).min()?;
        Some((Duration::from_millis(least), object.name.as_str()))
    });
    let (timeout, whose) = match of_queues.min() {
        Some((timeout, queue)) => (timeout, format!("of {queue}")),
        None => (ACK_TIMEOUT, "that RabbitMQ has by default (what the broker has is in no API)".to_owned()),
    };
    if timeout >= needed {
        return None;
    }
    let what = format!(
        "the acknowledgement timeout {whose} is {}, below what an update may be held: dispatch.held_max {} + \
         drain_timeout {} + a minute = {}",
        told(timeout),
        told(case.config.dispatch.held_max),
        told(case.config.dispatch.drain_timeout),
        told(needed)
    );
    let least = needed.as_millis();
    let mut remedy = Vec::new();
    let most = timeout.saturating_sub(needed - case.config.dispatch.held_max);
    if most >= Duration::from_secs(1) {
        remedy.push(Remedy::Config(format!("dispatch.held_max = \"{}s\"", most.as_secs())));
        remedy.push(Remedy::Do("or, on every node and in its rabbitmq.conf (consumer_timeout):".to_owned()));
    }
    remedy.push(Remedy::Run(format!("rabbitmqctl eval 'application:set_env(rabbit, consumer_timeout, {least}).'")));
    Some(Finding::new(Code::AckTimeoutTooShort, what, remedy))
}
