//! Metrics of the notifications that people get.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::OfReason;
use crate::config::EventKind;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEvent {
    event: &'static str,
}

/// The metrics of notifications.
#[derive(Clone, Debug, Default)]
pub struct NotifyMetrics {
    sent: Family<OfEvent, Counter>,
    dropped: Family<OfReason, Counter>,
}

/// Why nobody is told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyDrop {
    /// Events come faster than they can be taken in.
    QueueFull,
    /// The receiver has refused the notification, or could not be reached.
    Failed,
}

impl NotifyDrop {
    const ALL: [Self; 2] = [Self::QueueFull, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Failed => "failed",
        }
    }
}

impl NotifyMetrics {
    /// Their series are there from the start, at zero.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "notifications_sent",
            "Notifications that a receiver of [[notify]] has taken.",
            self.sent.clone(),
        );
        registry.register(
            "notifications_dropped",
            "Notifications that no receiver has taken, or events that came too fast to be told.",
            self.dropped.clone(),
        );
        for kind in EventKind::ALL {
            drop(self.sent.get_or_create(&OfEvent { event: kind.name() }));
        }
        for reason in NotifyDrop::ALL {
            drop(self.dropped.get_or_create(&OfReason { reason: reason.name() }));
        }
    }

    /// A receiver has taken one.
    pub fn sent(&self, kind: EventKind) {
        self.sent.get_or_create(&OfEvent { event: kind.name() }).inc();
    }

    /// So many are not told.
    pub fn dropped(&self, reason: NotifyDrop, number: u64) {
        self.dropped.get_or_create(&OfReason { reason: reason.name() }).inc_by(number);
    }
}
