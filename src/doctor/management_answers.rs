//! Parses the management API's answers. Pure. A missing member is not an error: versions differ in what they show.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::facts::{
    Alarm, Binding, Consumer, DestinationKind, Node, PolicyKind, PolicyName, Queue, SeenExchange,
};

/// `GET /api/queues/VHOST/NAME`.
pub fn queue(answer: &Json) -> Queue {
    let timeout = answer["arguments"]["x-consumer-timeout"].as_u64();
    Queue {
        kind: text(&answer["type"]),
        messages: answer["messages"].as_u64().unwrap_or_default(),
        consumers: list(&answer["consumer_details"]).map(consumer).collect(),
        policy: text(&answer["policy"]),
        operator_policy: text(&answer["operator_policy"]),
        effective_policy: definition(&answer["effective_policy_definition"]),
        consumer_timeout_ms: timeout,
        members: list(&answer["members"]).filter_map(text).collect(),
        online: list(&answer["online"]).filter_map(text).collect(),
        leader: text(&answer["leader"]).filter(|leader| !leader.is_empty()),
    }
}

fn consumer(answer: &Json) -> Consumer {
    let channel = &answer["channel_details"];
    Consumer {
        tag: text(&answer["consumer_tag"]).unwrap_or_default(),
        prefetch: answer["prefetch_count"].as_u64().unwrap_or_default(),
        timeout_ms: answer["consumer_timeout"].as_u64(),
        connection: text(&channel["connection_name"]),
        user: text(&channel["user"]),
    }
}

/// `GET /api/exchanges/VHOST/NAME`.
pub fn exchange(answer: &Json) -> SeenExchange {
    SeenExchange {
        kind: text(&answer["type"]).unwrap_or_default(),
        durable: answer["durable"] != false,
        auto_delete: answer["auto_delete"] == true,
        internal: answer["internal"] == true,
    }
}

/// A list of bindings, without those of the default exchange: every queue has one.
pub fn bindings(answer: &Json) -> Vec<Binding> {
    let bindings = list(answer).filter_map(|answer| {
        Some(Binding {
            source: text(&answer["source"]).filter(|source| !source.is_empty())?,
            destination: text(&answer["destination"])?,
            to: if answer["destination_type"] == "exchange" {
                DestinationKind::Exchange
            } else {
                DestinationKind::Queue
            },
            properties_key: text(&answer["properties_key"]).unwrap_or_else(|| "~".to_owned()),
        })
    });
    bindings.collect()
}

/// `GET /api/policies/VHOST` or `/api/operator-policies/VHOST`.
pub fn policies(answer: &Json, kind: PolicyKind) -> BTreeMap<PolicyName, Map<String, Json>> {
    let policies = list(answer).filter_map(|answer| {
        let name = PolicyName { kind, name: text(&answer["name"])? };
        Some((name, definition(&answer["definition"])?))
    });
    policies.collect()
}

/// `GET /api/health/checks/alarms`.
pub fn alarms(answer: &Json) -> Vec<Alarm> {
    let alarms = list(&answer["alarms"])
        .filter_map(|alarm| Some(Alarm { node: text(&alarm["node"])?, resource: text(&alarm["resource"])? }));
    alarms.collect()
}

/// `GET /api/nodes`. A node that is not reached has no `partitions`.
pub fn nodes(answer: &Json) -> Vec<Node> {
    let nodes = list(answer).filter_map(|node| {
        Some(Node {
            name: text(&node["name"])?,
            running: node["running"] != false,
            partitions: list(&node["partitions"]).filter_map(text).collect(),
            files_max: node["fd_total"].as_u64().filter(|files| *files > 0),
        })
    });
    nodes.collect()
}

/// `GET /api/queues?columns=type,members`: how many copies of quorum queues each node has.
pub fn quorum_copies(answer: &Json) -> BTreeMap<String, u64> {
    let mut copies = BTreeMap::new();
    for queue in list(answer).filter(|queue| queue["type"] == "quorum") {
        for node in list(&queue["members"]).filter_map(text) {
            *copies.entry(node).or_default() += 1;
        }
    }
    copies
}

/// `GET /api/feature-flags`.
pub fn khepri(answer: &Json) -> bool {
    list(answer).any(|flag| flag["name"] == "khepri_db" && flag["state"] == "enabled")
}

/// The words of a refusal.
pub fn reason(answer: &Json) -> String {
    text(&answer["reason"]).or_else(|| text(&answer["error"])).unwrap_or_else(|| "refused".to_owned())
}

fn list(answer: &Json) -> impl Iterator<Item = &Json> {
    answer.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn text(answer: &Json) -> Option<String> {
    answer.as_str().map(str::to_owned)
}

/// Erlang has one notation for an empty table and an empty list, so some answers show `[]`.
fn definition(answer: &Json) -> Option<Map<String, Json>> {
    match answer {
        Json::Object(definition) => Some(definition.clone()),
        Json::Array(_) => Some(Map::new()),
        _ => None,
    }
}
