//! Tells by the broker's delivery counts if what a channel holds was taken back.
//!
//! The broker takes back what a consumer holds if it believes the consumer's node to be down. If the node was only cut off,
//! the consumer can become active again on the same channel, without a notice: what it holds is delivered again, and
//! its acks of the earlier deliveries settle nothing.
//!
//! A quorum queue counts how often it took back each update (`x-delivery-count`), and always takes back the oldest ones, so
//! that along a channel the count does not rise. If it rises, something was taken back in between.
//!
//! A count that does not rise proves nothing: another owner may have settled the updates that would show it. Then its claim
//! stands in the stream, before ours or behind it, and makes void what is held.

/// The deliveries of one channel.
#[derive(Debug, Default)]
pub struct DeliveryCountWatch {
    newest: Option<u64>,
}

impl DeliveryCountWatch {
    /// A delivery came that the broker had taken back so many times before: 0 if it is delivered for the first time. Returns
    /// true if what came before it on the channel is void.
    #[must_use]
    pub fn delivered(&mut self, count: u64) -> bool {
        self.newest.replace(count).is_some_and(|before| count > before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_rises_makes_void_what_came_before() {
        let check = |counts: &[u64], expected: Option<usize>| {
            let mut watch = DeliveryCountWatch::default();
            assert_eq!(counts.iter().position(|count| watch.delivered(*count)), expected, "{counts:?}");
        };
        check(&[0, 0, 0], None);
        check(&[3, 3, 1, 1, 0, 0], None);
        // A consumer that was cut off alone.
        check(&[0, 0, 0, 1, 1, 1], Some(3));
        check(&[2, 2, 1, 0, 3], Some(4));
        // Another consumer had them in between.
        check(&[1, 1, 4], Some(2));
    }
}
