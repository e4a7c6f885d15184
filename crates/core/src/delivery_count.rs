//! Tells by the broker's delivery counts if what a channel holds was taken back.
//!
//! The broker takes back what a consumer holds if it believes the consumer's node to be down. If the node was only cut off,
//! the consumer can become active again on the same channel, without a notice: what it holds is delivered again, and
//! its acks of the earlier deliveries settle nothing.
//!
//! A quorum queue counts how often it took back each update (`x-delivery-count`). What it takes back on the same channel
//! comes again with a higher count.
//!
//! As long as nothing was settled on the channel, all that was delivered is held, so the first update that comes again is
//! one of those that were delivered: it is recognized by its content. A count that rises without that proves nothing:
//! another consumer has given the update back late, behind newer ones (RabbitMQ 3.10.8 and 4.0.5, measured). A process that
//! left for such an update would return what it holds in the same order, and so would the next one, without end.
//!
//! Once something was settled, contents are not compared any more: then any count above the lowest one of the channel makes
//! void what is held. That may be wrong, but each owner settles something before, so it has an end.
//!
//! Counts that do not rise prove nothing: another owner may have settled the updates that would show it. Then its claim
//! stands in the stream, before ours or behind it, and makes void what is held.

use std::collections::HashMap;

/// The deliveries of one channel.
#[derive(Debug, Default)]
pub struct DeliveryCountWatch {
    lowest: Option<u64>,
    /// Of each content that was delivered, the lowest count. No more than the window holds, since nothing is settled.
    delivered: HashMap<u64, u64>,
    has_settled: bool,
}

impl DeliveryCountWatch {
    /// A delivery came that the broker had taken back so many times before: 0 if it is delivered for the first time.
    /// `content`: a hash of what does not change between deliveries. Returns true if what came before it on the channel is
    /// void.
    #[must_use]
    pub fn delivered(&mut self, count: u64, content: impl FnOnce() -> u64) -> bool {
        let lowest = *self.lowest.insert(self.lowest.unwrap_or(count).min(count));
        if self.has_settled {
            return count > lowest;
        }
        let before = self.delivered.entry(content()).or_insert(count);
        let comes_again = count > *before;
        *before = count.min(*before);
        comes_again
    }

    /// Something that was delivered on the channel is about to be settled.
    pub fn settles(&mut self) {
        self.has_settled = true;
        self.delivered = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of the first of these counts and contents that makes void what came before.
    fn first_void(watch: &mut DeliveryCountWatch, deliveries: &[(u64, u64)]) -> Option<usize> {
        deliveries.iter().position(|(count, content)| watch.delivered(*count, || *content))
    }

    #[test]
    fn once_something_was_settled_a_count_above_the_lowest_makes_void_what_came_before() {
        let check = |counts: &[u64], expected: Option<usize>| {
            let mut watch = DeliveryCountWatch::default();
            watch.settles();
            let place =
                counts.iter().position(|count| watch.delivered(*count, || unreachable!("not looked at")));
            assert_eq!(place, expected, "{counts:?}");
        };
        check(&[0, 0, 0], None);
        check(&[3, 3, 1, 1, 0, 0], None);
        // A consumer that was cut off alone.
        check(&[0, 0, 0, 1, 1, 1], Some(3));
        check(&[2, 2, 1, 0, 3], Some(4));
        // Another consumer had them in between.
        check(&[1, 1, 4], Some(2));
    }

    #[test]
    fn until_then_only_what_comes_again_makes_void_what_came_before() {
        let check = |deliveries: &[(u64, u64)], expected| {
            let place = first_void(&mut DeliveryCountWatch::default(), deliveries);
            assert_eq!(place, expected, "{deliveries:?}");
        };
        check(&[(0, 1), (0, 2), (1, 1)], Some(2));
        check(&[(1, 1), (0, 2), (2, 1)], Some(2));
        // Somebody gave the third back late, and then all were taken back.
        check(&[(0, 1), (0, 2), (1, 3), (0, 4)], None);
        check(&[(0, 1), (0, 2), (1, 3), (1, 1)], Some(3));
        // Two of the same content.
        check(&[(0, 1), (0, 1)], None);
        check(&[(1, 1), (0, 1), (0, 2)], None);
        check(&[(1, 1), (0, 1), (2, 1)], Some(2));
    }

    #[test]
    fn a_count_from_before_the_first_settlement_is_remembered() {
        let mut watch = DeliveryCountWatch::default();
        assert_eq!(first_void(&mut watch, &[(0, 1), (0, 2)]), None);
        watch.settles();
        assert_eq!(first_void(&mut watch, &[(1, 2)]), Some(0));
        // Also if the latest one was given back late by somebody else, so that its count is no lower.
        let mut watch = DeliveryCountWatch::default();
        assert_eq!(first_void(&mut watch, &[(1, 1), (1, 2), (2, 3)]), None);
        watch.settles();
        assert_eq!(first_void(&mut watch, &[(2, 2)]), Some(0));
    }
}
