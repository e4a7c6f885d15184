//! How much waits in queues of partitions, now.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::timeout;

use crate::error::SourceError;
use crate::link::Link;
use crate::names::Names;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// For all queues together.
const WITHIN: Duration = Duration::from_secs(5);
const LOOKING: &str = "looking at a queue";

/// The messages of each of these partitions that no consumer holds, on a channel that is closed again.
///
/// # Errors
/// A queue is missing, or the broker does not answer.
pub async fn ready_messages(
    link: &Link,
    names: &Names,
    partitions: impl IntoIterator<Item = (LayoutNumber, PartitionNumber)>,
) -> Result<BTreeMap<(LayoutNumber, PartitionNumber), u32>, SourceError> {
    let looking = async {
        let channel = link.channel().await?;
        let mut depths = BTreeMap::new();
        for (layout, partition) in partitions {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let queue = names.partition(layout, partition);
            let declaring = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
            let declared = declaring.await.map_err(|source| {
                SourceError::from_amqp(LOOKING, &format!("queue {queue}"), names.public(), source)
            })?;
            depths.insert((layout, partition), declared.message_count());
        }
        // A channel that cannot be closed ends with its connection.
        let _ = channel.close(200, "normal shutdown".into()).await;
        Ok(depths)
    };
    let silent = |_| SourceError::Silent { step: LOOKING, seconds: WITHIN.as_secs() };
    timeout(WITHIN, looking).await.map_err(silent)?
}
