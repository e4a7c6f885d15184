//! Runs the publisher of a door.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::health::DoorHealth;
use super::metrics::IngestMetrics;
use super::statistics::DoorStatistics;
use crate::config::IngestConfig;
use lanekeeper_broker::publisher::{
    ConnectionEvent, Order, OutboxLimits, PublishError, Publisher, PublisherEvent,
};

/// The intake bounds what is held; the window has room for all of it, so that records whose queue does not answer take none
/// from others.
pub(super) fn outbox_limits(config: &IngestConfig) -> OutboxLimits {
    OutboxLimits {
        in_flight_max: config.pending_max.get(),
        // One more than there can be, so that orders are always read.
        held_max: config.pending_max.get() + 1,
        held_bytes_max: usize::MAX,
        give_up_after: None,
        abandoned_max: 0,
    }
}

/// Publishes until the orders end, or until `end`. When it has returned, each update that was ordered has its receipt.
pub(super) async fn publish(
    publisher: Publisher,
    orders: mpsc::Receiver<Order>,
    door: Door,
    health: DoorHealth,
    (statistics, metrics): (DoorStatistics, IngestMetrics),
    end: CancellationToken,
) -> Result<(), PublishError> {
    let on_event = |event| match event {
        PublisherEvent::PublishReceipt(receipt) => door.receipt(receipt),
        PublisherEvent::WithdrawnInFlight(submission_id) => door.in_flight(submission_id),
        PublisherEvent::Connection(event) => {
            if statistics.connection(&event) {
                metrics.reconnected();
            }
            metrics.blocked(matches!(event, ConnectionEvent::Blocked { .. }));
            match event {
                ConnectionEvent::Up => health.set_connected(),
                ConnectionEvent::Down { cause } => {
                    health.set_unconnected(format!("connection lost: {cause}"));
                }
                ConnectionEvent::Blocked { .. } | ConnectionEvent::Unblocked => {}
            }
        }
        PublisherEvent::Refused { .. } => {
            statistics.negatively_confirmed();
            metrics.negatively_confirmed();
        }
        PublisherEvent::Published { .. } => {}
    };
    publisher.run(orders, on_event, end.cancelled_owned()).await.map(|_| ())
}
