//! Policies that apply to queues of the topology, merged with operator policies.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::super::codes::Code;
use super::super::facts::{Management, PolicyKind, PolicyName, Queue};
use super::super::finding::Finding;
use super::super::fix::{Fix, clear_policy, quoted};
use super::case::{Case, listed};
use lanekeeper_broker::{DELIVERY_LIMIT, Role};

/// A queue with its name.
type Named<'a> = (&'a str, &'a Queue);

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Ok(management) = &case.observed.management else { return Vec::new() };
    // One finding per setting, however many queues it applies to.
    let mut dangers: BTreeMap<(Code, &str, String), Vec<Named<'_>>> = BTreeMap::new();
    for object in &case.observed.broker.objects {
        let Some(queue) = management.queues.get(&object.name).filter(|_| object.role.is_queue()) else {
            continue;
        };
        for (key, value) in queue.effective_policy.iter().flatten() {
            if let Some(code) = danger(object.role, key, value) {
                dangers.entry((code, key, value.to_string())).or_default().push((&object.name, queue));
            }
        }
    }
    dangers
        .into_iter()
        .map(|((code, key, value), queues)| {
            let set_by = set_by(management, key, &queues);
            let names: Vec<&str> = queues.iter().map(|(name, _)| *name).collect();
            let by: Vec<String> = set_by.iter().map(policy_name).collect();
            let by = if by.is_empty() { "a policy".to_owned() } else { by.join(" and ") };
            let what = format!("{by} sets {key} = {value} on {}", listed(&names));
            Finding::new(code, what, clear(case, key, &set_by))
        })
        .collect()
}

/// The danger of a setting for a queue of this role; `None`: it does no harm.
fn danger(role: Role, key: &str, value: &Json) -> Option<Code> {
    if role == Role::Document {
        return matches!(key, "max-age" | "max-length-bytes").then_some(Code::DocumentShortLived);
    }
    match key {
        // The lower one of policy and argument applies.
        "delivery-limit" => value
            .as_i64()
            .is_none_or(|limit| limit < DELIVERY_LIMIT.into())
            .then_some(Code::DeliveryLimitLowered),
        "message-ttl" => Some(Code::MessageTtl),
        "max-length" | "max-length-bytes" => Some(Code::LengthLimited),
        "expires" => Some(Code::QueueExpires),
        "overflow" => (value != "reject-publish").then_some(Code::OverflowDiffers),
        "federation-upstream" | "federation-upstream-set" => Some(Code::Federated),
        key if key.starts_with("delayed-retry") => (value != "disabled").then_some(Code::DelayedRetry),
        _ => None,
    }
}

/// Removes these policies. If it is not known which policies set the key, a person has to look.
pub fn clear(case: &Case<'_>, key: &str, set_by: &[PolicyName]) -> Vec<Fix> {
    let vhost = &case.observed.vhost;
    if !set_by.is_empty() {
        return set_by.iter().map(|policy| clear_policy(vhost, policy)).collect();
    }
    vec![
        Fix::Run(format!("rabbitmqctl list_policies --vhost {}", quoted(vhost))),
        Fix::Run(format!("rabbitmqctl list_operator_policies --vhost {}", quoted(vhost))),
        Fix::Do(format!("remove {key} from the policy that sets it")),
    ]
}

/// The policies of these queues that set the key.
pub fn set_by(management: &Management, key: &str, queues: &[Named<'_>]) -> Vec<PolicyName> {
    let mut found = Vec::new();
    for (_, queue) in queues {
        let applied =
            [(PolicyKind::Policy, &queue.policy), (PolicyKind::OperatorPolicy, &queue.operator_policy)];
        for (kind, name) in applied {
            let Some(name) = name.clone() else { continue };
            let policy = PolicyName { kind, name };
            let has = management.policies.get(&policy).is_some_and(|definition| definition.contains_key(key));
            if has && !found.contains(&policy) {
                found.push(policy);
            }
        }
    }
    found
}

fn policy_name(policy: &PolicyName) -> String {
    match policy.kind {
        PolicyKind::Policy => format!("policy {:?}", policy.name),
        PolicyKind::OperatorPolicy => format!("operator policy {:?}", policy.name),
    }
}
