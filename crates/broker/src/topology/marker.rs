//! Markers: messages at the end of the queues of a layout that drains. [`lanekeeper_core::drain`] says what they prove.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

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

/// Returns true if the delivery is a marker. What publishers send comes through another exchange, so that no update can
/// look like one.
pub(crate) fn is_marker(delivery: &Delivery) -> bool {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    kind == Some(MARKER) && delivery.exchange.as_str().is_empty()
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
    let messages = queues.iter().map(|queue| Message::to_queue(queue, marker_properties(), b"")).collect();
    let answers = publisher.publish_all(messages).await?;
    if answers.iter().any(|answer| answer.outcome() == PublishOutcome::Refused) {
        return Err(SourceError::NotTaken { exchange: "a queue of the layout".to_owned() });
    }
    Ok(())
}
