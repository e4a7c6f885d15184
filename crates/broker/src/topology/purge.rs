//! Proves that the queues of a layout hold no update: takes markers, probes and late witnesses, and nothing else, out of
//! them.
//!
//! Quorum queues have no deletion on condition that they are empty or unused (RabbitMQ 3.10.8 and 4.0.5: 540
//! `NOT_IMPLEMENTED`), and a look at a queue whose leader is not reached shows it empty. So each queue is read up to a marker
//! of one's own, which a majority of its replicas has to confirm and to hand over.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::change::Stuck;
use super::marker::{internal_message, marker_properties};
use super::probe::{is_of, is_probe};
use super::session::{CLOSE_TIMEOUT, Depth, SETTLE_GRACE, TopologySession};
use super::witness_round::round_of;
use crate::channel::confirm_channel::{Message, PublishOutcome};
use crate::channel::consumer_channel::ConsumerChannel;
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;
use crate::names::Names;
use lanekeeper_core::layout::Layout;

/// How long a closed channel may take to leave its queues.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
const LEAVE_POLL: Duration = Duration::from_millis(50);
const PURGING: &str = "reading the queues of a layout that is to be deleted";

/// Reads the queues of a layout to their ends. `Ok(None)`: none of them held an update, and nobody consumed them. What is
/// an update goes back, in order: the prefetch is that of the layout, and the channel is closed.
///
/// `probe`: the id of one that must be in none of the queues, since then the way into the layout is open.
///
/// # Errors
/// The queues cannot be read to their ends.
pub(super) async fn purge(
    session: &mut TopologySession<'_>,
    layout: Layout,
    queues: &[String],
    probe: Option<&str>,
) -> Result<Option<Stuck>, SourceError> {
    let mut left = Vec::new();
    for queue in queues {
        match session.queue_depth(queue).await? {
            Depth { consumers: 1.., .. } => return Ok(Some(Stuck::InUse { queue: queue.clone() })),
            Depth { ready, .. } => left.push(ready),
        }
    }
    if queues.is_empty() {
        return Ok(None);
    }
    let mut channel = session.consumer_channel().await?;
    let mut reading = Reading { exchange: session.names().layout(layout.number), queues, left, probe };
    let read = reading.read_to_the_ends(session, &mut channel, layout.prefetch).await;
    sleep(SETTLE_GRACE).await;
    let _ = channel.close(CLOSE_TIMEOUT).await;
    if let Some(stuck) = read? {
        return Ok(Some(stuck));
    }
    // What came behind the marker. The queue's leader was reached a moment ago.
    for queue in queues {
        match look_once_left(session, queue).await? {
            Depth { consumers: 1.., .. } => return Ok(Some(Stuck::InUse { queue: queue.clone() })),
            Depth { ready: updates @ 1.., .. } => {
                return Ok(Some(Stuck::Late { queue: queue.clone(), updates }));
            }
            Depth { ready: 0, consumers: 0 } => {}
        }
    }
    Ok(None)
}

/// A queue counts a consumer for a moment after its channel is closed.
async fn look_once_left(session: &mut TopologySession<'_>, queue: &str) -> Result<Depth, SourceError> {
    let until = Instant::now() + LEAVE_TIMEOUT;
    loop {
        let depth = session.queue_depth(queue).await?;
        if depth.consumers == 0 || Instant::now() >= until {
            return Ok(depth);
        }
        sleep(LEAVE_POLL).await;
    }
}

struct Reading<'a> {
    /// The hash exchange of the layout.
    exchange: String,
    queues: &'a [String],
    /// How many messages each queue showed, less those that were taken out.
    left: Vec<u32>,
    probe: Option<&'a str>,
}

impl Reading<'_> {
    async fn read_to_the_ends(
        &mut self,
        session: &mut TopologySession<'_>,
        channel: &mut ConsumerChannel,
        prefetch: u16,
    ) -> Result<Option<Stuck>, SourceError> {
        let names = session.names();
        channel.set_prefetch(prefetch).await.map_err(client_error)?;
        for queue in self.queues {
            channel.consume(queue, "", FieldTable::default()).await.map_err(|source| {
                SourceError::from_consuming(PURGING, &format!("queue {queue}"), names.public(), source)
            })?;
        }
        let mut deliveries = channel.deliveries();
        // What can be seen first: if an update is found, no marker of ours stays behind it.
        let shown = (0..self.queues.len()).filter(|queue| self.left[*queue] > 0).collect();
        if let Some(stuck) = self.read(&mut deliveries, names, shown, None).await? {
            return Ok(Some(stuck));
        }
        let end = Uuid::new_v4().to_string();
        put_ends(session, self.queues, &end).await?;
        let all = (0..self.queues.len()).collect();
        self.read(&mut deliveries, names, all, Some(&end)).await
    }

    /// Reads these queues: up to the marker `end`, or as many messages as they showed.
    async fn read(
        &mut self,
        deliveries: &mut (impl Stream<Item = (usize, lapin::Result<Delivery>)> + Unpin),
        names: &Names,
        mut open: BTreeSet<usize>,
        end: Option<&str>,
    ) -> Result<Option<Stuck>, SourceError> {
        while let Some(first) = open.first().copied() {
            let next = timeout(ANSWER_TIMEOUT, deliveries.next()).await;
            // It was there, and went to somebody else.
            let Ok(next) = next else { return Ok(Some(Stuck::InUse { queue: self.queues[first].clone() })) };
            let (queue, delivery) = next.ok_or_else(gone)?;
            let delivery = delivery.map_err(client_error)?;
            if self.probe.is_some_and(|probe| is_of(&delivery, names, probe)) {
                return Ok(Some(Stuck::Bound { exchange: self.exchange.clone() }));
            }
            let is_ours = internal_message(&delivery, names, &self.queues[queue]).is_some()
                || is_probe(&delivery, names)
                || round_of(&delivery, &self.exchange).is_some();
            if !is_ours {
                let updates = self.left[queue].max(1);
                return Ok(Some(Stuck::Late { queue: self.queues[queue].clone(), updates }));
            }
            self.left[queue] = self.left[queue].saturating_sub(1);
            let is_end = match end {
                Some(end) => delivery.properties.message_id().as_ref().is_some_and(|id| id.as_str() == end),
                None => self.left[queue] == 0,
            };
            if is_end {
                open.remove(&queue);
            }
            delivery.ack(BasicAckOptions::default()).await.map_err(client_error)?;
        }
        Ok(None)
    }
}

/// Puts a marker at the end of each queue.
async fn put_ends(
    session: &mut TopologySession<'_>,
    queues: &[String],
    end: &str,
) -> Result<(), SourceError> {
    let properties = || -> BasicProperties { marker_properties().with_message_id(end.into()) };
    let messages = queues.iter().map(|queue| Message::to_queue(queue, properties(), b"")).collect();
    let answers = session.publish_all(PURGING, "the queues of a layout", messages).await?;
    let fault = answers.iter().find_map(|answer| match answer.outcome() {
        PublishOutcome::Taken => None,
        PublishOutcome::Refused => Some(SourceError::NoQuorum { step: PURGING }),
        PublishOutcome::Unroutable => Some(gone()),
    });
    fault.map_or(Ok(()), Err)
}

fn gone() -> SourceError {
    SourceError::Missing { text: "a queue of a layout that is to be deleted is gone".to_owned() }
}

fn client_error(source: lapin::Error) -> SourceError {
    SourceError::amqp(PURGING)(source)
}
