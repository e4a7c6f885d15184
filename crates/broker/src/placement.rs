//! Where the broker puts the witnesses of a layout that is being made, as it turns out.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::timeout;
use tracing::{info, warn};

use super::error::SourceError;
use super::link::ANSWER_TIMEOUT;
use super::names::Names;
use super::topology::{close, open};
use super::witnesses::{Round, publish, round_of};
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::witness::{Witness, witnesses};

/// Acks sent are not acks done when the channel is closed at once (RabbitMQ 3.10.8 and 4.0.5, measured).
const SETTLE_GRACE: Duration = Duration::from_millis(100);

/// Publishes the witnesses of a layout that nobody consumes yet, takes them out of its queues again and answers with the
/// queues that they were in. Where updates wait already (publishers may start before the first dispatcher) the witnesses
/// come too late for us: then they are recorded as the hash says, and the consumers compare.
///
/// Updates that are met go back, in order: the prefetch is that of the layout, and the channel is closed.
///
/// # Errors
/// A witness is in none of the layout's queues: another queue is bound to its exchange.
pub(super) async fn observe(
    connection: &lapin::Connection,
    names: &Names,
    layout: Layout,
) -> Result<Vec<Witness>, SourceError> {
    let computed = witnesses(layout.partitions);
    let (channel, reader) = (open(connection).await?, open(connection).await?);
    let exchange = names.layout(layout.number);
    let round = Round::single();
    let keys: Vec<&str> = computed.iter().map(|witness| witness.key.as_str()).collect();
    publish(&channel, &exchange, keys, &round).await?;
    close(channel).await;
    let mut consumers = Vec::new();
    let read = match consume(&reader, names, layout, &mut consumers).await {
        Ok(()) => read(&mut consumers, &exchange, &round, &computed).await,
        Err(error) => Err(error),
    };
    tokio::time::sleep(SETTLE_GRACE).await;
    close(reader).await;
    // Never before their channel is closed: the client would send a cancel.
    for (_, consumer) in consumers {
        drop(ManuallyDrop::into_inner(consumer));
    }
    let Some(observed) = read? else {
        info!(
            layout = layout.number.0,
            "updates wait in the layout already: its witnesses are recorded as computed"
        );
        return Ok(computed);
    };
    if observed != computed {
        warn!(layout = layout.number.0, "the broker spreads keys otherwise than computed, which is recorded");
    }
    Ok(observed)
}

type Consumers = Vec<(PartitionNumber, ManuallyDrop<Consumer>)>;

const READING: &str = "taking the witnesses out of the layout's queues";

async fn consume(
    channel: &Channel,
    names: &Names,
    layout: Layout,
    consumers: &mut Consumers,
) -> Result<(), SourceError> {
    let amqp = SourceError::amqp(READING);
    channel.basic_qos(layout.prefetch, BasicQosOptions::default()).await.map_err(amqp)?;
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        let options = BasicConsumeOptions::default();
        let consuming =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let consumer = consuming.await.map_err(|source| {
            SourceError::from_amqp(READING, &format!("queue {queue}"), names.public(), source)
        })?;
        consumers.push((partition, ManuallyDrop::new(consumer)));
    }
    Ok(())
}

/// `None` if something else than witnesses is there.
async fn read(
    consumers: &mut Consumers,
    exchange: &str,
    round: &Round,
    computed: &[Witness],
) -> Result<Option<Vec<Witness>>, SourceError> {
    let mut found: HashMap<String, PartitionNumber> = HashMap::new();
    let all = consumers.iter_mut().map(|(partition, consumer)| {
        let partition = *partition;
        (&mut **consumer).map(move |delivery| (partition, delivery))
    });
    let mut deliveries: SelectAll<_> = all.collect();
    while found.len() < computed.len() {
        let missing = || {
            let unseen = computed.iter().find(|witness| !found.contains_key(&witness.key));
            let key = unseen.map_or_else(String::new, |witness| witness.key.clone());
            SourceError::Astray { exchange: exchange.to_owned(), key }
        };
        let next = timeout(ANSWER_TIMEOUT / 2, deliveries.next()).await;
        let Some((partition, delivery)) = next.map_err(|_| missing())? else { return Err(missing()) };
        let delivery = delivery.map_err(SourceError::amqp(READING))?;
        let Some(of) = round_of(&delivery, exchange) else { return Ok(None) };
        if of == *round {
            found.insert(delivery.routing_key.to_string(), partition);
        }
        // Those of a process that died at this have served.
        delivery.ack(BasicAckOptions::default()).await.map_err(SourceError::amqp(READING))?;
    }
    let observed = computed.iter().filter_map(|Witness { key, .. }| {
        found.get(key).map(|partition| Witness { key: key.clone(), partition: *partition })
    });
    Ok(Some(observed.collect()))
}
