//! Finds out in which queues the broker puts the witnesses of a layout that is being made.

use std::collections::HashMap;

use futures_util::StreamExt;
use lapin::options::BasicAckOptions;
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::probe::is_probe;
use super::session::{CLOSE_TIMEOUT, SETTLE_GRACE, TopologySession};
use super::witness_round::{PUBLISHING, Round, check_answers, round_of};
use crate::channel::consumer_channel::ConsumerChannel;
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;
use crate::names::Names;
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::witness::{Witness, witnesses};

const READING: &str = "taking the witnesses out of the layout's queues";

/// Publishes the witnesses of a layout that nobody consumes yet, takes them out of its queues again and returns them with
/// the queues that they were in. If updates wait already (publishers may start before the first dispatcher), the
/// witnesses stand behind them: then they are recorded as the hash says, and the consumers compare.
///
/// Updates that are met go back, in order: the prefetch is that of the layout, and the channel is closed.
///
/// # Errors
/// A witness is in none of the layout's queues: another queue is bound to its exchange.
pub(crate) async fn find_witnesses(
    session: &mut TopologySession<'_>,
    layout: Layout,
) -> Result<Vec<Witness>, SourceError> {
    let computed = witnesses(layout.partitions);
    let exchange = session.names().layout(layout.number);
    let round = Round::single();
    let messages = round.messages(&exchange, computed.iter().map(|witness| witness.key.as_str()));
    let answers = session.publish_all(PUBLISHING, &format!("exchange {exchange}"), messages).await?;
    check_answers(&answers, &exchange)?;
    let mut channel = session.consumer_channel().await?;
    let read = match consume(session, &mut channel, layout).await {
        Ok(()) => read(&mut channel, (session.names(), layout), &exchange, &round, &computed).await,
        Err(fault) => Err(fault),
    };
    sleep(SETTLE_GRACE).await;
    let _ = channel.close(CLOSE_TIMEOUT).await;
    let Some(observed) = read? else {
        info!(
            layout = layout.number.0,
            "updates already wait in the layout: recording the computed queues of its witnesses"
        );
        return Ok(computed);
    };
    if observed != computed {
        warn!(
            layout = layout.number.0,
            "the broker routes keys to other queues than computed: recording the queues that the witnesses came to"
        );
    }
    Ok(observed)
}

/// Makes one consumer a partition, in their order.
async fn consume(
    session: &TopologySession<'_>,
    channel: &mut ConsumerChannel,
    layout: Layout,
) -> Result<(), SourceError> {
    let names = session.names();
    channel.set_prefetch(layout.prefetch).await.map_err(SourceError::amqp(READING))?;
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        channel.consume(&queue, "", FieldTable::default()).await.map_err(|source| {
            SourceError::from_amqp(READING, &format!("queue {queue}"), names.public(), source)
        })?;
    }
    Ok(())
}

/// `None` if something else than witnesses is there.
async fn read(
    channel: &mut ConsumerChannel,
    (names, layout): (&Names, Layout),
    exchange: &str,
    round: &Round,
    computed: &[Witness],
) -> Result<Option<Vec<Witness>>, SourceError> {
    let partitions: Vec<PartitionNumber> = layout.partitions().collect();
    let mut found: HashMap<String, PartitionNumber> = HashMap::new();
    let mut deliveries = channel.deliveries();
    while found.len() < computed.len() {
        let missing = || {
            let unseen = computed.iter().find(|witness| !found.contains_key(&witness.key));
            let key = unseen.map_or_else(String::new, |witness| witness.key.clone());
            SourceError::Astray { exchange: exchange.to_owned(), key }
        };
        let next = timeout(ANSWER_TIMEOUT / 2, deliveries.next()).await;
        let Some((consumer, delivery)) = next.map_err(|_| missing())? else { return Err(missing()) };
        let delivery = delivery.map_err(SourceError::amqp(READING))?;
        match round_of(&delivery, exchange) {
            Some(of) if of == *round => {
                found.insert(delivery.routing_key.to_string(), partitions[consumer]);
            }
            // Those of a process that died at this have served.
            Some(_) => {}
            None if is_probe(&delivery, names) => {}
            None => return Ok(None),
        }
        delivery.ack(BasicAckOptions::default()).await.map_err(SourceError::amqp(READING))?;
    }
    let observed = computed.iter().filter_map(|Witness { key, .. }| {
        found.get(key).map(|partition| Witness { key: key.clone(), partition: *partition })
    });
    Ok(Some(observed.collect()))
}
