//! The deliveries of one channel that are not acked: when they came, which of them are settled, and what their dead letters
//! would need.
//!
//! For the dead letter, nothing is kept if the update says all that the delivery said; otherwise the delivery is kept as it
//! came. Most need nothing, and properties take more memory than most updates.

use std::collections::{HashMap, HashSet, VecDeque};

use lapin::BasicProperties;

use super::dead_letter::DeadLetter;
use crate::connection::Originals;
use lanekeeper_core::acks::{AckLimits, Acks};
use lanekeeper_core::message::DeliveryTag;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

/// The one record of what the broker has delivered on a channel.
#[derive(Debug)]
pub(super) struct UnsettledDeliveries {
    window: usize,
    acks: Acks,
    as_delivered: HashMap<DeliveryTag, Box<DeadLetter>>,
    /// Deliveries that only the broker can dead-letter: a part of them never reached this process, or they do not fit a dead
    /// letter of ours.
    incomplete: HashSet<DeliveryTag>,
    /// Those of them that are settled and not rejected yet.
    to_reject: VecDeque<DeliveryTag>,
}

impl UnsettledDeliveries {
    pub(super) fn new(window: usize, limits: AckLimits) -> Self {
        Self {
            window,
            acks: Acks::new(limits),
            as_delivered: HashMap::new(),
            incomplete: HashSet::new(),
            to_reject: VecDeque::new(),
        }
    }

    /// A delivery came. `Err`: the broker does not keep to what it promises, in words, and nothing that comes behind this can
    /// be trusted. It must hand over no more than the window (I6), and number deliveries without gaps.
    pub(super) fn received(&mut self, delivery: DeliveryTag, now: Tick) -> Result<(), String> {
        if self.acks.unsettled() >= self.window {
            return Err(too_many(self.window));
        }
        if !self.acks.is_next(delivery) {
            return Err(format!(
                "the broker delivered with the tag {}, which is not the next one",
                delivery.0
            ));
        }
        self.acks.delivered(delivery, now);
        Ok(())
    }

    /// The delivery is to be dead-lettered by the broker: when it is settled, it is rejected.
    pub(super) fn leave_to_the_broker(&mut self, delivery: DeliveryTag) {
        self.incomplete.insert(delivery);
    }

    /// Keeps what the dead letter of a delivery would need; `update`: it is one.
    pub(super) fn keep(&mut self, delivery: DeliveryTag, update: Option<&Update>, dead_letter: DeadLetter) {
        if update.is_none()
            || !is_plain(&dead_letter.properties)
            || dead_letter.originals != Originals::default()
        {
            self.as_delivered.insert(delivery, Box::new(dead_letter));
        }
    }

    /// The delivery is settled: it may be acked, or is to be rejected, and nobody asks for its dead letter any more.
    ///
    /// # Panics
    /// If it is not held: settled twice, or never delivered (I7).
    pub(super) fn settle(&mut self, delivery: DeliveryTag, now: Tick) {
        if self.incomplete.remove(&delivery) {
            self.to_reject.push_back(delivery);
        } else {
            self.acks.finished(delivery, now);
            self.as_delivered.remove(&delivery);
        }
    }

    /// The next delivery to reject. No ack that covers it is given out before [`Self::rejected`].
    pub(super) fn next_to_reject(&self) -> Option<DeliveryTag> {
        self.to_reject.front().copied()
    }

    /// What [`Self::next_to_reject`] gave is rejected.
    pub(super) fn rejected(&mut self) {
        let delivery = self.to_reject.pop_front().expect("one was to be rejected");
        self.acks.rejected(delivery);
    }

    /// Which acks go out, and when.
    pub(super) fn acks(&mut self) -> &mut Acks {
        &mut self.acks
    }

    pub(super) fn oldest_received_at(&self) -> Option<Tick> {
        self.acks.oldest_open()
    }

    pub(super) fn received_at(&self, delivery: DeliveryTag) -> Option<Tick> {
        self.acks.received_at(delivery)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.acks.has_begun()
    }

    /// The dead letter of a delivery that is not settled; `None`: the broker is to dead-letter it.
    pub(super) fn dead_letter(&self, delivery: DeliveryTag, update: Option<&Update>) -> Option<DeadLetter> {
        if self.incomplete.contains(&delivery) {
            return None;
        }
        match (self.as_delivered.get(&delivery), update) {
            (Some(dead_letter), _) => Some(DeadLetter::clone(dead_letter)),
            (None, Some(update)) => Some(DeadLetter::of(update)),
            (None, None) => unreachable!("what is no update is kept until it is settled"),
        }
    }
}

/// Why a channel is lost whose broker does not keep to the window.
pub(super) fn too_many(window: usize) -> String {
    format!("the broker delivered more than the prefetch of {window}")
}

/// Whether an update says all that a letter would have of these properties. Headers have more than one way to say the
/// same, so whatever has some is kept.
fn is_plain(properties: &BasicProperties) -> bool {
    properties.headers().as_ref().is_none_or(|headers| headers.inner().is_empty())
        && properties.priority().is_none()
        && properties.correlation_id().is_none()
        && properties.reply_to().is_none()
        && properties.expiration().is_none()
        && properties.user_id().is_none()
        && properties.app_id().is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use lapin::types::{AMQPValue, FieldTable};

    use super::*;
    use crate::connection::Alteration;
    use crate::deliveries::dead_letter::{FRAME_BYTES_MAX, with_reason};
    use crate::deliveries::decode::Decoder;
    use lanekeeper_core::layout::PartitionNumber;
    use lanekeeper_core::policy::DeadLetterReason;
    use lanekeeper_core::routes::{Routes, TargetId};

    const DELIVERY: DeliveryTag = DeliveryTag(1);

    fn unsettled() -> UnsettledDeliveries {
        UnsettledDeliveries::new(1, AckLimits::for_prefetch(1))
    }

    fn decoder() -> Decoder {
        let routes = Routes::new([("*".parse().expect("it is a pattern"), TargetId(0))]);
        Decoder { routes, require_id: false, body_bytes_max: 1024 }
    }

    fn came(properties: BasicProperties) -> (Arc<Update>, DeadLetter) {
        let body = Bytes::from_static(b"{}");
        let update = decoder()
            .decode("record-1", &properties, body.clone(), &Alteration::default())
            .expect("it is an update");
        (
            update,
            DeadLetter { routing_key: "record-1".into(), properties, body, originals: Originals::default() },
        )
    }

    fn full() -> Vec<BasicProperties> {
        let plain = BasicProperties::default;
        let mut headers = FieldTable::default();
        headers.insert("x-own".into(), AMQPValue::Boolean(true));
        let usual = plain()
            .with_message_id("id-1".into())
            .with_type("record.updated".into())
            .with_content_type("application/json".into())
            .with_content_encoding("gzip".into())
            .with_timestamp(1_700_000_000)
            .with_delivery_mode(2);
        vec![
            plain(),
            usual.clone(),
            usual.clone().with_delivery_mode(1),
            usual.clone().with_headers(FieldTable::default()),
            usual.clone().with_headers(headers),
            usual.clone().with_priority(3),
            usual.clone().with_correlation_id("c".into()),
            usual.clone().with_reply_to("r".into()),
            usual.clone().with_expiration("60000".into()),
            usual.clone().with_user_id("guest".into()),
            usual.clone().with_app_id("app".into()),
            usual.with_cluster_id("old".into()),
        ]
    }

    #[test]
    fn a_letter_is_the_same_whether_the_delivery_was_kept_or_not() {
        let mut kept_as_delivered = 0;
        for properties in full() {
            let (update, dead_letter) = came(properties);
            let mut unsettled = unsettled();
            unsettled.keep(DELIVERY, Some(&update), dead_letter.clone());
            kept_as_delivered += unsettled.as_delivered.len();
            let again = unsettled.dead_letter(DELIVERY, Some(&update)).expect("it is ours to publish");
            assert_eq!((&again.routing_key, &again.body), (&dead_letter.routing_key, &dead_letter.body));
            let sent = |dead_letter: &DeadLetter| {
                let reason = DeadLetterReason::IdReused;
                with_reason(dead_letter, PartitionNumber(0), &reason, FRAME_BYTES_MAX)
            };
            assert_eq!(sent(&again), sent(&dead_letter), "{:?}", dead_letter.properties);
        }
        assert_eq!(kept_as_delivered, 7, "all that is not plain, and nothing else");
    }

    #[test]
    fn what_is_no_update_is_kept_as_it_came() {
        let (_, dead_letter) = came(BasicProperties::default());
        let mut unsettled = unsettled();
        unsettled.keep(DELIVERY, None, dead_letter.clone());
        assert_eq!(unsettled.dead_letter(DELIVERY, None).map(|again| again.body), Some(dead_letter.body));
    }

    #[test]
    fn there_is_no_room_for_more_than_the_window() {
        let mut unsettled = unsettled();
        assert_eq!(unsettled.received(DELIVERY, Tick::ZERO), Ok(()));
        let refused = unsettled.received(DeliveryTag(2), Tick::ZERO);
        assert_eq!(refused, Err("the broker delivered more than the prefetch of 1".to_owned()));
        unsettled.settle(DELIVERY, Tick::ZERO);
        assert_eq!(unsettled.received(DeliveryTag(2), Tick::ZERO), Ok(()));
    }

    /// The channel is lost then; the process goes on.
    #[test]
    fn a_tag_that_is_not_the_next_one_is_refused() {
        for tag in [0, 2, u64::MAX] {
            assert!(unsettled().received(DeliveryTag(tag), Tick::ZERO).is_err(), "{tag}");
        }
        let mut unsettled = UnsettledDeliveries::new(9, AckLimits::for_prefetch(9));
        assert_eq!(unsettled.received(DELIVERY, Tick::ZERO), Ok(()));
        for tag in [1, 3] {
            assert!(unsettled.received(DeliveryTag(tag), Tick::ZERO).is_err(), "{tag}");
        }
    }

    #[test]
    fn what_a_dead_letter_would_need_goes_with_the_settlement() {
        let (_, dead_letter) = came(BasicProperties::default());
        let mut unsettled = unsettled();
        assert_eq!(unsettled.received(DELIVERY, Tick::ZERO), Ok(()));
        unsettled.keep(DELIVERY, None, dead_letter);
        unsettled.settle(DELIVERY, Tick::ZERO);
        assert!(unsettled.as_delivered.is_empty());
    }

    #[test]
    fn what_the_broker_is_to_dead_letter_is_rejected_when_it_is_settled_and_covered_by_no_ack_before() {
        let mut unsettled = UnsettledDeliveries::new(2, AckLimits::for_prefetch(2));
        let (first, second) = (DELIVERY, DeliveryTag(2));
        assert_eq!(
            (unsettled.received(first, Tick::ZERO), unsettled.received(second, Tick::ZERO)),
            (Ok(()), Ok(()))
        );
        unsettled.leave_to_the_broker(first);
        assert!(unsettled.dead_letter(first, None).is_none(), "no letter of ours");
        assert_eq!(unsettled.next_to_reject(), None);
        unsettled.settle(second, Tick::ZERO);
        unsettled.settle(first, Tick::ZERO);
        assert_eq!(unsettled.next_to_reject(), Some(first));
        assert!(unsettled.acks().flush().is_some_and(|ack| ack.tag == second && !ack.multiple));
        unsettled.rejected();
        assert_eq!((unsettled.next_to_reject(), unsettled.acks().flush()), (None, None));
        assert_eq!(unsettled.received(DeliveryTag(3), Tick::ZERO), Ok(()), "there is room again");
    }

    #[test]
    #[should_panic(expected = "I7")]
    fn a_delivery_is_settled_once() {
        let mut unsettled = unsettled();
        assert_eq!(unsettled.received(DELIVERY, Tick::ZERO), Ok(()));
        unsettled.settle(DELIVERY, Tick::ZERO);
        unsettled.settle(DELIVERY, Tick::ZERO);
    }
}
