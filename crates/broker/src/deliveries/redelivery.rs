//! Notices that the broker delivers again on a channel what it has delivered on it before.
//!
//! If the node of a consumer is cut off, the rest of the cluster takes its deliveries back, and makes it eligible again once
//! the node is back, without telling it: deliveries that it still holds come again, under new tags, and acks of the old ones
//! settle nothing (RabbitMQ 3.10.8, measured).

use lapin::BasicProperties;
use lapin::types::AMQPValue;

/// How often quorum queues have delivered a message before. Missing in the first delivery.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The deliveries of one channel. A queue is delivered from its beginning, so that a message was never delivered less often
/// than one behind it: along a channel, the counts do not grow.
#[derive(Debug, Default)]
pub(super) struct RedeliveryWatch {
    /// Of the newest delivery.
    count: Option<u64>,
}

impl RedeliveryWatch {
    /// A delivery came. Returns true if it, or one before it, was delivered on this channel before.
    pub(super) fn came_again(&mut self, redelivered: bool, properties: &BasicProperties) -> bool {
        let count = match (redelivered, delivery_count(properties)) {
            (false, _) => 0,
            (true, Some(count)) => count.max(1),
            // Unreadable, for example.
            (true, None) => self.count.unwrap_or(1).max(1),
        };
        let again = self.count.is_some_and(|before| count > before);
        self.count = Some(count);
        again
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldTable;

    /// Deliveries by their counts: 0 is a first delivery, `None` a redelivery that does not say how often. Returns which of
    /// them shows that something came again.
    fn check(counts: &[Option<i64>]) -> Option<usize> {
        let mut watch = RedeliveryWatch::default();
        counts.iter().position(|count| {
            let mut headers = FieldTable::default();
            if let Some(count @ 1..) = count {
                headers.insert(DELIVERY_COUNT.into(), AMQPValue::LongLongInt(*count));
            }
            let properties = BasicProperties::default().with_headers(headers);
            watch.came_again(*count != Some(0), &properties)
        })
    }

    #[test]
    fn what_was_delivered_to_others_comes_first() {
        assert_eq!(check(&[Some(2), Some(2), Some(1), Some(0), Some(0)]), None);
        assert_eq!(check(&[None, None, Some(0)]), None);
        assert_eq!(check(&[Some(3), None, Some(2)]), None);
    }

    #[test]
    fn a_redelivery_behind_a_first_delivery_came_again() {
        assert_eq!(check(&[Some(0), Some(0), Some(1)]), Some(2));
        assert_eq!(check(&[Some(2), Some(0), None]), Some(2));
    }

    #[test]
    fn a_redelivery_that_was_delivered_more_often_than_the_one_before_it_came_again() {
        assert_eq!(check(&[Some(1), Some(1), Some(2)]), Some(2));
    }
}
