//! Takes a topology out of the broker again: for those that are made to be thrown away.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Channel, Connection};

use super::error::SourceError;
use super::names::Names;
use super::topology::{close, open};
use lanekeeper_core::layout::Layout;

/// Deletes every object of a topology, *with the updates in its queues*: only for an exchange of one's own, that no
/// publisher but oneself knows. Dispatchers of it should have ended.
///
/// When it has returned, nothing of these names is in the broker. What was not there is no error: RabbitMQ answers
/// deletions of missing objects with success (since 3.2). Bindings go with what they bind.
///
/// # Errors
/// The connection is lost, or the user may not delete. Some objects may then be gone.
pub async fn remove(connection: &Connection, names: &Names, layout: Layout) -> Result<(), SourceError> {
    let channel = open(connection).await?;
    // The public exchange first: from then on nothing new comes in.
    for exchange in [names.public().to_owned(), names.ingress(), names.handoff(), names.layout(layout.number)]
    {
        delete_exchange(&channel, &exchange, names).await?;
    }
    for partition in layout.partitions() {
        delete_queue(&channel, &names.partition(layout.number, partition), names).await?;
    }
    // The dead-letter queue last: until now a partition's queue could still put something there.
    delete_exchange(&channel, &names.dead(), names).await?;
    delete_queue(&channel, &names.dead(), names).await?;
    delete_queue(&channel, &names.members(), names).await?;
    delete_queue(&channel, &names.topology(), names).await?;
    close(channel).await;
    Ok(())
}

pub(super) async fn delete_exchange(
    channel: &Channel,
    exchange: &str,
    names: &Names,
) -> Result<(), SourceError> {
    let deleting = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
    deleting.await.map_err(|source| {
        SourceError::from_amqp(
            "deleting an exchange",
            &format!("exchange {exchange}"),
            names.public(),
            source,
        )
    })
}

/// With what is in it. One that is not there is no error.
pub(super) async fn delete_queue(channel: &Channel, queue: &str, names: &Names) -> Result<(), SourceError> {
    let deleting = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
    deleting.await.map(drop).map_err(|source| {
        SourceError::from_amqp("deleting a queue", &format!("queue {queue}"), names.public(), source)
    })
}
