//! How often the broker has delivered a message before, and which one it is. [`lanekeeper_core::delivery_count`] says what
//! that tells.

use std::hash::{DefaultHasher, Hash, Hasher};

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};

/// Header of a quorum queue's redeliveries (RabbitMQ 3.10.8 and 4.0.5, measured): it counts them, also those after the node of
/// a consumer was cut off.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// How often the broker took the message back; `None`: it does not say so, or the properties could not be read.
pub(super) fn times_taken_back(redelivered: bool, properties: &BasicProperties) -> Option<u64> {
    if redelivered { delivery_count(properties) } else { Some(0) }
}

fn delivery_count(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(DELIVERY_COUNT)? {
        AMQPValue::LongLongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::ShortInt(count) => u64::try_from(*count).ok(),
        AMQPValue::ShortShortInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => Some(u64::from(*count)),
        AMQPValue::ShortUInt(count) => Some(u64::from(*count)),
        AMQPValue::ShortShortUInt(count) => Some(u64::from(*count)),
        _ => None,
    }
}

/// The same for each delivery of a message. Headers are left out: the broker changes them.
pub(super) fn content_of(delivery: &Delivery) -> u64 {
    let mut hasher = DefaultHasher::new();
    delivery.routing_key.as_str().hash(&mut hasher);
    delivery.properties.message_id().as_ref().map(ShortString::as_str).hash(&mut hasher);
    delivery.data.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldTable;

    #[test]
    fn what_was_never_delivered_was_never_taken_back() {
        let count = |redelivered, count: Option<AMQPValue>| {
            let mut headers = FieldTable::default();
            if let Some(count) = count {
                headers.insert(DELIVERY_COUNT.into(), count);
            }
            times_taken_back(redelivered, &BasicProperties::default().with_headers(headers))
        };
        assert_eq!(count(false, None), Some(0));
        assert_eq!(count(false, Some(AMQPValue::LongLongInt(7))), Some(0), "a publisher's header");
        assert_eq!(count(true, Some(AMQPValue::LongLongInt(2))), Some(2));
        assert_eq!(count(true, Some(AMQPValue::LongLongInt(-2))), None);
        assert_eq!(count(true, Some(AMQPValue::LongString("2".into()))), None);
        assert_eq!(count(true, None), None);
    }
}
