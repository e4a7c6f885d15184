//! Markers: messages at the end of the queues of a layout that drains. [`lanekeeper_core::drain`] says what they prove.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::witness_round::WITNESS;
use crate::channel::confirm_channel::{Message, PublishOutcome};
use crate::channel::confirmed_publisher::ConfirmedPublisher;
use crate::error::SourceError;
use crate::link::Link;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::drain::LATE_PUBLISH_MAX;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, PartitionNumber};

/// AMQP `type` of a marker.
const MARKER: &str = "lanekeeper.marker";
const RETRY_DELAY: Duration = Duration::from_secs(5);
const PUBLISHING: &str = "putting markers into the queues of the layout that drains";

/// A message of Lanekeeper's own that is no witness of the layout in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InternalMessage {
    /// A marker of this queue, or of a version whose markers do not say of which queue they are.
    Marker,
    /// A marker of another queue, or a witness of another layout: somebody has moved or published it here.
    Stray,
}

/// Recognizes markers, and witnesses that [`super::Witnesses::recognize`] did not. `None`: the delivery is none of these.
/// What publishers send comes through another exchange, so that no update can look like one.
pub(crate) fn internal_message(delivery: &Delivery, names: &Names, queue: &str) -> Option<InternalMessage> {
    let Delivery { exchange, properties, .. } = delivery;
    let exchange = exchange.as_str();
    if !exchange.is_empty() && !names.is_layout(exchange) {
        return None;
    }
    let of_queue = properties.message_id().as_ref().map(ShortString::as_str);
    match properties.kind().as_ref().map(ShortString::as_str)? {
        MARKER if exchange.is_empty() && of_queue.is_none_or(|of| of == queue) => {
            Some(InternalMessage::Marker)
        }
        MARKER | WITNESS => Some(InternalMessage::Stray),
        _ => None,
    }
}

/// Of a message that is one.
pub(super) fn marker_properties() -> BasicProperties {
    BasicProperties::default().with_type(MARKER.into())
}

/// Puts markers into the queues of a layout that drains, once. Stops when it is dropped.
#[derive(Debug)]
pub struct Markers(#[expect(dead_code, reason = "held, not used")] AbortOnDropHandle<()>);

impl Markers {
    /// To be called once this process has read that the layout drains. It waits first, for what is still being published to
    /// the layout.
    ///
    /// Every process does this, and does it again after each start: one marker a queue suffices, and more do no harm.
    #[must_use]
    pub fn begin(publishing: Link, names: &Names, layout: Layout, partitions: &[PartitionNumber]) -> Self {
        let queue = |partition: &PartitionNumber| names.partition(layout.number, *partition);
        let queues: Vec<String> = partitions.iter().map(queue).collect();
        let mut publisher = ConfirmedPublisher::new(publishing, PUBLISHING);
        let publishing = async move {
            tokio::time::sleep(LATE_PUBLISH_MAX).await;
            let mut log = LogOnChange::default();
            while let Err(fault) = publish(&mut publisher, &queues).await {
                let error = error_chain(&fault);
                if log.is_new(error.clone()) {
                    warn!(
                        layout = layout.number.0,
                        error,
                        "cannot publish markers, trying again: the draining layout cannot be removed without them"
                    );
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            info!(
                layout = layout.number.0,
                queues = queues.len(),
                "published markers to the queues of the draining layout"
            );
        };
        Self(AbortOnDropHandle::new(tokio::spawn(publishing)))
    }
}

/// Returns once the broker has confirmed all of them. A queue that is gone needs none.
async fn publish(publisher: &mut ConfirmedPublisher, queues: &[String]) -> Result<(), SourceError> {
    let properties = |queue: &str| marker_properties().with_message_id(queue.into());
    let messages = queues.iter().map(|queue| Message::to_queue(queue, properties(queue), b"")).collect();
    let answers = publisher.publish_all(messages).await?;
    if answers.iter().any(|answer| answer.outcome() == PublishOutcome::Refused) {
        return Err(SourceError::NotTaken { exchange: "a queue of the layout".to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_the_queue_are_told_from_what_somebody_has_put_there() {
        use InternalMessage::{Marker, Stray};
        let names = Names::new("updates");
        let check = |exchange: &str, kind: &str, id: Option<&str>, expected: Option<InternalMessage>| {
            let properties = BasicProperties::default().with_type(kind.into());
            let properties = match id {
                Some(id) => properties.with_message_id(id.into()),
                None => properties,
            };
            let mut delivery =
                Delivery::mock(1, exchange.into(), "updates.l1.p000".into(), false, Vec::new());
            delivery.properties = properties;
            let found = internal_message(&delivery, &names, "updates.l1.p000");
            assert_eq!(found, expected, "{exchange:?} {kind} {id:?}");
        };
        check("", MARKER, Some("updates.l1.p000"), Some(Marker));
        check("", MARKER, None, Some(Marker));
        check("", MARKER, Some("updates.l1.p001"), Some(Stray));
        check("", MARKER, Some("updates.l2.p000"), Some(Stray));
        check("updates.l1", MARKER, Some("updates.l1.p000"), Some(Stray));
        check("", WITNESS, Some("process 1"), Some(Stray));
        check("updates.l2", WITNESS, Some("process 1"), Some(Stray));
        check("", "customer.updated", None, None);
        for exchange in ["updates", "audit", "updates.l", "updates.lx", "updates.l1.p000", "other.l1"] {
            check(exchange, MARKER, None, None);
            check(exchange, WITNESS, Some("process 1"), None);
        }
    }
}
