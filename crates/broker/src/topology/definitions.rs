//! The first layout as definitions that RabbitMQ imports, alike in everything to what `lanekeeper run` declares.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value as Json, json};

use super::arguments::{
    ingress_arguments, partition_arguments, public_arguments, quorum_arguments, stream_arguments,
};
use crate::names::{HASH_EXCHANGE_TYPE, Names};
use lanekeeper_core::layout::{LayoutNumber, Shape};

/// Definitions for `POST /api/definitions` or `rabbitmqctl import_definitions`. The layout document is not among them: it
/// is a message, and the first dispatcher writes it.
#[must_use]
pub fn definitions(names: &Names, shape: Shape, vhost: &str) -> Json {
    let layout = shape.numbered(LayoutNumber(1));
    let exchange = |name: &str, kind: &str, internal: bool, arguments: FieldTable| {
        json!({"name": name, "vhost": vhost, "type": kind, "durable": true, "auto_delete": false,
               "internal": internal, "arguments": table(&arguments)})
    };
    let queue = |name: &str, arguments: FieldTable| json!({"name": name, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": table(&arguments)});
    let binding = |source: &str, destination: &str, kind: &str| {
        json!({"source": source, "vhost": vhost, "destination": destination, "destination_type": kind,
               "routing_key": "", "arguments": {}})
    };
    let none = FieldTable::default;
    let (public, ingress, handoff, dead) = (names.public(), names.ingress(), names.handoff(), names.dead());
    let hash = names.layout(layout.number);
    let partitions: Vec<String> =
        layout.partitions().map(|partition| names.partition(layout.number, partition)).collect();
    let exchanges = [
        exchange(public, "fanout", false, public_arguments(names)),
        exchange(&ingress, "fanout", true, ingress_arguments(names)),
        exchange(&handoff, "fanout", true, none()),
        exchange(&dead, "fanout", false, none()),
        exchange(&hash, HASH_EXCHANGE_TYPE, false, none()),
    ];
    let others = [queue(&dead, quorum_arguments()), queue(&names.topology(), stream_arguments())];
    let of_partitions = partitions.iter().map(|name| queue(name, partition_arguments(names)));
    let bindings = [
        binding(public, &ingress, "exchange"),
        binding(&ingress, &hash, "exchange"),
        binding(&dead, &dead, "queue"),
    ];
    let to_partitions = partitions.iter().map(|name| binding(&hash, name, "queue"));
    json!({
        "exchanges": exchanges,
        "queues": others.into_iter().chain(of_partitions).collect::<Vec<_>>(),
        "bindings": bindings.into_iter().chain(to_partitions).collect::<Vec<_>>(),
    })
}

fn table(arguments: &FieldTable) -> Map<String, Json> {
    let value = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => Json::from(text.to_string()),
        AMQPValue::Boolean(flag) => Json::from(*flag),
        AMQPValue::LongInt(number) => Json::from(*number),
        other => unreachable!("no argument of the topology is {other:?}"),
    };
    arguments.inner().iter().map(|(name, of)| (name.to_string(), value(of))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_and_every_binding_is_among_the_definitions() {
        let shape = Shape { partitions: 3, prefetch: 100 };
        let definitions = definitions(&Names::new("updates"), shape, "/");
        let count = |list: &str| definitions[list].as_array().expect("a list").len();
        assert_eq!((count("exchanges"), count("queues"), count("bindings")), (5, 5, 6));
        let queue = &definitions["queues"][4];
        assert_eq!(queue["name"], "updates.l1.p002");
        assert_eq!(queue["arguments"]["x-delivery-limit"], 1_000_000);
        assert_eq!(queue["arguments"]["x-single-active-consumer"], true);
    }
}
