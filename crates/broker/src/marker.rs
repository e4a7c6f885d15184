//! Markers: where a layout that drains ends. [`lanekeeper_core::drain`] tells what they prove.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use tokio::time::timeout;
use tracing::{info, warn};

use super::error::SourceError;
use super::link::{ANSWER_TIMEOUT, Link};
use super::names::Names;
use super::task::Task;
use super::topology::close;
use lanekeeper_core::drain::LATE_PUBLISH_MAX;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, PartitionNumber};

/// AMQP `type` of a marker.
const MARKER: &str = "lanekeeper.marker";
const RETRY_DELAY: Duration = Duration::from_secs(5);
const PUBLISHING: &str = "putting markers into the queues of the layout that drains";

/// Whether the delivery is a marker. What publishers send comes by way of another exchange, so that no update can look
/// like one.
pub(super) fn is_marker(delivery: &Delivery) -> bool {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    kind == Some(MARKER) && delivery.exchange.as_str().is_empty()
}

/// Puts markers into the queues of a layout that drains, once. Stops when it is dropped.
#[derive(Debug)]
pub struct Markers(#[expect(dead_code, reason = "held, not used")] Task);

impl Markers {
    /// To be called by whoever has read that the layout drains: what is still on its way into it is let pass first.
    ///
    /// Every process does this, and each again when it is started again: any marker will do, and none is in the way.
    #[must_use]
    pub fn begin(publishing: Link, names: &Names, layout: Layout, partitions: &[PartitionNumber]) -> Self {
        let queue = |partition: &PartitionNumber| names.partition(layout.number, *partition);
        let queues: Vec<String> = partitions.iter().map(queue).collect();
        Self(Task::begin(async move {
            tokio::time::sleep(LATE_PUBLISH_MAX).await;
            let mut last_logged = String::new();
            while let Err(fault) = publish(&publishing, &queues).await {
                let fault = error_chain(&fault);
                if fault != last_logged {
                    warn!(
                        layout = layout.number.0,
                        error = fault,
                        "markers are not published, trying again: until then the layout does not end"
                    );
                    last_logged = fault;
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            info!(
                layout = layout.number.0,
                queues = queues.len(),
                "markers are in the queues of the layout that drains"
            );
        }))
    }
}

/// Done once the broker has confirmed all of them. A queue that is gone needs none.
async fn publish(link: &Link, queues: &[String]) -> Result<(), SourceError> {
    let channel = link.channel().await?;
    let publishing = async {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut confirms = Vec::with_capacity(queues.len());
        for queue in queues {
            let properties = BasicProperties::default().with_type(MARKER.into()).with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            confirms.push(
                channel.basic_publish("".into(), queue.as_str().into(), options, b"", properties).await?,
            );
        }
        let mut refused = false;
        for confirm in confirms {
            refused |= matches!(confirm.await?, Confirmation::Nack(_));
        }
        Ok(refused)
    };
    let published = timeout(ANSWER_TIMEOUT, publishing).await;
    close(channel).await;
    match published {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(SourceError::NotTaken { exchange: "a queue of the layout".to_owned() }),
        Ok(Err(source)) => Err(SourceError::amqp(PUBLISHING)(source)),
        Err(_) => Err(SourceError::Silent { step: PUBLISHING, seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}
