//! Takes markers and late witnesses out of the queues of a layout that is drained, and nothing else.

use std::mem::ManuallyDrop;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use super::error::SourceError;
use super::link::ANSWER_TIMEOUT;
use super::marker::is_marker;
use super::names::Names;
use super::topology::{close, open};
use super::witnesses::round_of;
use lanekeeper_core::layout::Layout;

/// Acks sent are not acks done when the channel is closed at once (RabbitMQ 3.10.8 and 4.0.5, measured).
const SETTLE_GRACE: Duration = Duration::from_millis(100);
const PURGING: &str = "taking the markers out of the queues of a layout";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct PurgeOutcome {
    /// A queue with something else in it, and how much is in it.
    pub(super) late: Option<(String, u32)>,
}

/// `queues`: with how many messages each has. What is neither marker nor witness stays, in order: the prefetch is that of
/// the layout, and the channel is closed.
pub(super) async fn purge_markers(
    connection: &Connection,
    names: &Names,
    layout: Layout,
    queues: &[(String, u32)],
) -> Result<PurgeOutcome, SourceError> {
    let mut outcome = PurgeOutcome::default();
    if queues.iter().all(|(_, messages)| *messages == 0) {
        return Ok(outcome);
    }
    let channel = open(connection).await?;
    let mut consumers = Vec::new();
    let purging = async {
        channel.basic_qos(layout.prefetch, BasicQosOptions::default()).await.map_err(amqp)?;
        for (queue, messages) in queues.iter().filter(|(_, messages)| *messages > 0) {
            consumers.push(consume(&channel, queue).await?);
            let consumer = consumers.last_mut().expect("it was pushed");
            if !take(consumer, &names.layout(layout.number), *messages).await? {
                outcome.late = Some((queue.clone(), *messages));
                break;
            }
        }
        Ok(())
    };
    let result = purging.await;
    tokio::time::sleep(SETTLE_GRACE).await;
    close(channel).await;
    // Never before their channel is closed: the client would send a cancel.
    for consumer in consumers {
        drop(ManuallyDrop::into_inner(consumer));
    }
    result.map(|()| outcome)
}

fn amqp(source: lapin::Error) -> SourceError {
    SourceError::amqp(PURGING)(source)
}

async fn consume(channel: &Channel, queue: &str) -> Result<ManuallyDrop<Consumer>, SourceError> {
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    consuming.await.map(ManuallyDrop::new).map_err(amqp)
}

/// Whether so many messages were there and none was an update.
async fn take(consumer: &mut Consumer, exchange: &str, messages: u32) -> Result<bool, SourceError> {
    for _ in 0..messages {
        let next = timeout(ANSWER_TIMEOUT, consumer.next()).await;
        let silent = |_| SourceError::Silent { step: PURGING, seconds: ANSWER_TIMEOUT.as_secs() };
        let Some(delivery) = next.map_err(silent)? else {
            return Err(SourceError::Missing {
                text: "a queue of a layout that is drained is gone".to_owned(),
            });
        };
        let delivery = delivery.map_err(amqp)?;
        if !is_marker(&delivery) && round_of(&delivery, exchange).is_none() {
            return Ok(false);
        }
        delivery.ack(BasicAckOptions::default()).await.map_err(amqp)?;
    }
    Ok(true)
}
