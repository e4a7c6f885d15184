//! Publishes to the dead-letter queue, on a connection that no consumer shares, until the broker has confirmed it.
//!
//! Dead letters leave in the order in which they were handed over, many at a time. Misplaced ones have a queue of their own,
//! since they wait until witnesses show that keys have not moved.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use super::dead_letter::{DeadLetter, FRAME_BYTES_MAX, with_reason};
use crate::channel::confirm_channel::{Message, PublishOutcome};
use crate::channel::confirmed_publisher::ConfirmedPublisher;
use crate::link::Link;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use crate::topology::Witnesses;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::policy::{DeadLetterReason, Malformed};

const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Dead letters that are taken from a queue together: misplaced ones wait for the same round of witnesses.
const TAKEN_MAX: usize = 10_000;
/// Dead letters that may be unconfirmed at the same time. If the answer to one of them is bad, all of them are published
/// again, so this is also how many can come twice then.
const UNCONFIRMED_MAX: usize = 64;
/// Bytes of their bodies, unless a single one has more: what is published must be confirmed within the time limit.
const UNCONFIRMED_BYTES_MAX: usize = 1024 * 1024;

/// The publisher of dead letters that all partitions of a layout share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    link: Link,
    /// Bounded by the windows of the partitions: what waits here is held unsettled, or was released into a window.
    all_others: mpsc::UnboundedSender<Handed>,
    /// The same.
    misplaced: mpsc::UnboundedSender<Handed>,
    _tasks: [Arc<AbortOnDropHandle<()>>; 2],
}

/// A dead letter that was handed over to be published.
#[derive(Debug)]
struct Handed {
    /// `None`: the broker is to dead-letter the delivery, and there is nothing to publish.
    dead_letter: Option<DeadLetter>,
    partition: PartitionNumber,
    reason: DeadLetterReason,
    /// If nobody waits for it any more, it need not be published: its delivery comes again.
    done: oneshot::Sender<()>,
}

impl DeadLetters {
    /// Over this link, which no consumer shares: an alarm blocks it. `witnesses`: of the layout that the deliveries come from.
    #[must_use]
    pub fn new(link: Link, names: &Names, witnesses: Witnesses) -> Self {
        let start = |witnesses| {
            let (sender, queue) = mpsc::unbounded_channel();
            let confirmed = ConfirmedPublisher::new(link.clone(), "publishing a dead letter");
            let (link, exchange) = (link.clone(), names.dead());
            let publisher = Publisher {
                link,
                exchange,
                confirmed,
                witnesses,
                log: LogOnChange::default(),
                window: UNCONFIRMED_MAX,
            };
            (sender, Arc::new(AbortOnDropHandle::new(tokio::spawn(publisher.run(queue)))))
        };
        let (all_others, of_all_others) = start(None);
        let (misplaced, of_misplaced) = start(Some(witnesses));
        Self { link, all_others, misplaced, _tasks: [of_all_others, of_misplaced] }
    }

    /// The longest frame that the properties of a dead letter may take.
    pub(super) fn frame_max(&self) -> usize {
        frame_max(&self.link)
    }

    /// Publishes a dead letter behind those that were handed over before; `None`: the broker dead-letters the delivery.
    /// What is returned ends once the broker has confirmed it; until then its delivery stays unsettled. It is not published
    /// if what is returned is dropped before its turn.
    pub(super) fn publish(
        &self,
        dead_letter: Option<DeadLetter>,
        partition: PartitionNumber,
        reason: DeadLetterReason,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (done, published) = oneshot::channel();
        let queue = match &reason {
            DeadLetterReason::Malformed(Malformed::Misplaced { .. }) => &self.misplaced,
            _ => &self.all_others,
        };
        // If nobody receives it, the process ends.
        let _ = queue.send(Handed { dead_letter, partition, reason, done });
        async move {
            if published.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn frame_max(link: &Link) -> usize {
    link.frame_max().unwrap_or(FRAME_BYTES_MAX).min(FRAME_BYTES_MAX)
}

/// Publishes what one queue brings.
struct Publisher {
    link: Link,
    exchange: String,
    confirmed: ConfirmedPublisher,
    /// `Some`: dead letters wait for them.
    witnesses: Option<Witnesses>,
    /// One line per change, however many dead letters wait.
    log: LogOnChange,
    /// How many may be unconfirmed now. One after a bad answer: the client attaches a returned message to whichever confirm
    /// comes next (lapin 4.12.3), so only the answer to a publish that is alone is certain to be its own.
    window: usize,
}

impl Publisher {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Handed>) {
        let mut waiting = Vec::new();
        while queue.recv_many(&mut waiting, TAKEN_MAX).await > 0 {
            if let Some(witnesses) = &self.witnesses {
                witnesses.clone().in_place().await;
            }
            while !waiting.is_empty() {
                waiting.retain(|handed| !handed.done.is_closed());
                let batch = batch_of(&waiting, self.window);
                if self.publish(&waiting[..batch]).await {
                    self.window = (self.window * 2).min(UNCONFIRMED_MAX);
                    for handed in waiting.drain(..batch) {
                        let _ = handed.done.send(());
                    }
                } else {
                    self.window = 1;
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Returns true if the dead-letter queue has all of them.
    async fn publish(&mut self, batch: &[Handed]) -> bool {
        let frame_max = frame_max(&self.link);
        let ours = batch.iter().filter_map(|handed| Some((handed, handed.dead_letter.as_ref()?)));
        let messages = ours.map(|(handed, dead_letter)| Message {
            exchange: self.exchange.as_str().into(),
            routing_key: dead_letter.routing_key.clone(),
            properties: with_reason(dead_letter, handed.partition, &handed.reason, frame_max),
            body: &dead_letter.body,
        });
        let messages: Vec<Message<'_>> = messages.collect();
        if messages.is_empty() {
            return true;
        }
        let fault = match self.confirmed.publish_all(messages).await {
            Ok(answers) => answers.iter().find_map(|answer| match answer.outcome() {
                PublishOutcome::Taken => None,
                PublishOutcome::Unroutable => {
                    Some(format!("no queue is bound to the exchange {}", self.exchange))
                }
                PublishOutcome::Refused => Some("the broker refused it".to_owned()),
            }),
            Err(fault) => Some(error_chain(&fault)),
        };
        let (exchange, is_published) = (&self.exchange, fault.is_none());
        match fault {
            Some(error) => {
                if self.log.is_new(error.clone()) {
                    error!(
                        exchange,
                        error,
                        "cannot publish dead letters, trying again every second: their deliveries stay unsettled"
                    );
                }
            }
            None => {
                if self.log.cleared() {
                    info!(exchange, "publishing dead letters works again");
                }
            }
        }
        is_published
    }
}

/// How many of those that wait are published together; at least one if there are some.
fn batch_of(waiting: &[Handed], window: usize) -> usize {
    let mut bytes = 0;
    let fits = |handed: &&Handed| {
        let first = bytes == 0;
        bytes += handed.dead_letter.as_ref().map_or(0, |dead_letter| dead_letter.body.len());
        first || bytes <= UNCONFIRMED_BYTES_MAX
    };
    waiting.iter().take(window).take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Originals;
    use bytes::Bytes;
    use lapin::BasicProperties;

    #[test]
    fn a_batch_is_bounded_in_dead_letters_and_in_bytes() {
        let check = |sizes: &[usize], window, expected| {
            let handed = |bytes: &usize| Handed {
                dead_letter: Some(DeadLetter {
                    routing_key: "key".into(),
                    properties: BasicProperties::default(),
                    body: Bytes::from(vec![0; *bytes]),
                    originals: Originals::default(),
                }),
                partition: PartitionNumber(0),
                reason: DeadLetterReason::IdReused,
                done: oneshot::channel().0,
            };
            let waiting: Vec<Handed> = sizes.iter().map(handed).collect();
            assert_eq!(batch_of(&waiting, window), expected, "{sizes:?} of {window}");
        };
        check(&[], 64, 0);
        check(&[1; 100], 64, 64);
        check(&[1; 100], 1, 1);
        check(&[4 << 20, 1, 1], 64, 1);
        check(&[1, 4 << 20, 1], 64, 1);
        check(&[600 << 10, 400 << 10, 100 << 10], 64, 2);
    }
}
