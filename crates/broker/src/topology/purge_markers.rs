//! Takes markers and late witnesses, and nothing else, out of the queues of a layout that is drained.

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};

use super::marker::internal_message;
use super::session::{CLOSE_TIMEOUT, SETTLE_GRACE, TopologySession};
use super::witness_round::round_of;
use crate::channel::consumer_channel::ConsumerChannel;
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;
use crate::names::Names;
use lanekeeper_core::layout::Layout;

const PURGING: &str = "taking the markers out of the queues of a layout";

/// `queues`: with how many messages each has. Returns the first queue with something else in it, and how much is in it.
/// What is neither marker nor witness stays, in order: the prefetch is that of the layout, and the channel is closed.
pub(crate) async fn purge_markers(
    session: &TopologySession<'_>,
    layout: Layout,
    queues: &[(String, u32)],
) -> Result<Option<(String, u32)>, SourceError> {
    if queues.iter().all(|(_, messages)| *messages == 0) {
        return Ok(None);
    }
    let mut channel = session.consumer_channel().await?;
    let purged = purge(&mut channel, layout, session.names(), queues).await;
    sleep(SETTLE_GRACE).await;
    let _ = channel.close(CLOSE_TIMEOUT).await;
    purged
}

async fn purge(
    channel: &mut ConsumerChannel,
    layout: Layout,
    names: &Names,
    queues: &[(String, u32)],
) -> Result<Option<(String, u32)>, SourceError> {
    channel.set_prefetch(layout.prefetch).await.map_err(client_error)?;
    let exchange = names.layout(layout.number);
    let is_internal = |delivery: &Delivery, queue: &str| {
        internal_message(delivery, names, queue).is_some() || round_of(delivery, &exchange).is_some()
    };
    for (queue, messages) in queues.iter().filter(|(_, messages)| *messages > 0) {
        let consumer = channel.consume(queue, "", FieldTable::default()).await.map_err(client_error)?;
        if !take(channel, consumer, |delivery| is_internal(delivery, queue), *messages).await? {
            return Ok(Some((queue.clone(), *messages)));
        }
    }
    Ok(None)
}

/// Returns true if so many messages were there and none was an update.
async fn take(
    channel: &mut ConsumerChannel,
    consumer: usize,
    is_internal: impl Fn(&Delivery) -> bool,
    messages: u32,
) -> Result<bool, SourceError> {
    for _ in 0..messages {
        let next = timeout(ANSWER_TIMEOUT, channel.next_of(consumer)).await;
        let silent = |_| SourceError::Silent { step: PURGING, seconds: ANSWER_TIMEOUT.as_secs() };
        let Some(delivery) = next.map_err(silent)? else {
            return Err(SourceError::Missing {
                text: "a queue of a layout that is drained is gone".to_owned(),
            });
        };
        let delivery = delivery.map_err(client_error)?;
        if !is_internal(&delivery) {
            return Ok(false);
        }
        delivery.ack(BasicAckOptions::default()).await.map_err(client_error)?;
    }
    Ok(true)
}

fn client_error(source: lapin::Error) -> SourceError {
    SourceError::amqp(PURGING)(source)
}
