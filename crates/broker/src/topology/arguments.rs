//! The arguments of the queues and exchanges that this program declares. docs/wire.md has the table.

use lapin::types::{AMQPValue, FieldTable};

use crate::names::Names;

/// Far above what any order of restarts brings about. −1 loses every unsettled update on RabbitMQ 3.10 and the default
/// of 4.0, 20, drops updates after 21 deliveries; both measured.
pub const DELIVERY_LIMIT: i32 = 1_000_000;

/// What the stream of members keeps: some hundred thousand notes. Readers want those of the last seconds.
const MEMBERS_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Its old notes go segment by segment.
const MEMBERS_SEGMENT_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// Where an exchange sends what none of its bindings takes.
pub(crate) const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// Of the exchange that publishers know.
pub(crate) fn public_arguments(names: &Names) -> FieldTable {
    let mut arguments = FieldTable::default();
    insert_text(&mut arguments, ALTERNATE_EXCHANGE, &names.ingress());
    arguments
}

/// Of the exchange with exactly one binding.
pub(crate) fn ingress_arguments(names: &Names) -> FieldTable {
    let mut arguments = FieldTable::default();
    insert_text(&mut arguments, ALTERNATE_EXCHANGE, &names.handoff());
    arguments
}

/// Of the exchange that probes are published to. Nothing is bound to it, so that all goes to the ingress.
pub(crate) fn probe_arguments(names: &Names) -> FieldTable {
    let mut arguments = FieldTable::default();
    insert_text(&mut arguments, ALTERNATE_EXCHANGE, &names.ingress());
    arguments
}

/// Of the stream with the layout document.
pub(crate) fn stream_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    insert_text(&mut arguments, "x-queue-type", "stream");
    arguments
}

/// Of the stream of members.
pub(crate) fn members_arguments() -> FieldTable {
    let mut arguments = stream_arguments();
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MEMBERS_BYTES_MAX));
    let segment_bytes_max = AMQPValue::LongLongInt(MEMBERS_SEGMENT_BYTES_MAX);
    arguments.insert("x-stream-max-segment-size-bytes".into(), segment_bytes_max);
    arguments
}

/// Of the dead-letter queue.
pub(crate) fn quorum_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    insert_text(&mut arguments, "x-queue-type", "quorum");
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    insert_text(&mut arguments, "x-overflow", "reject-publish");
    arguments
}

/// Of a partition's queue. Its dead-letter exchange is the last net, at least once; Lanekeeper publishes its dead letters
/// itself.
pub(crate) fn partition_arguments(names: &Names) -> FieldTable {
    let mut arguments = quorum_arguments();
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    insert_text(&mut arguments, "x-dead-letter-exchange", &names.dead());
    insert_text(&mut arguments, "x-dead-letter-strategy", "at-least-once");
    arguments
}

fn insert_text(arguments: &mut FieldTable, name: &str, value: &str) {
    arguments.insert(name.into(), AMQPValue::LongString(value.into()));
}
