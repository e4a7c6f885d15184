//! Tells monitoring and people when the lease of this process runs out, and when it is renewed.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::admin::health::Health;
use crate::admin::metrics::LeaseMetrics;
use lanekeeper_broker::Clock;
use lanekeeper_core::layout::LayoutNumber;
use lanekeeper_core::tick::Tick;

/// A lease is good up to its last microsecond; it is looked at shortly after that.
const STEP: Duration = Duration::from_millis(1);

/// Watches the lease of a layout until it is dropped.
pub(super) fn watch_lease(
    lease_until: watch::Receiver<Tick>,
    clock: Clock,
    layout: LayoutNumber,
    metrics: LeaseMetrics,
    health: Health,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(watch_for_ever(lease_until, clock, layout, metrics, health)))
}

async fn watch_for_ever(
    mut lease_until: watch::Receiver<Tick>,
    clock: Clock,
    layout: LayoutNumber,
    metrics: LeaseMetrics,
    health: Health,
) {
    let mut lapsed_at: Option<Tick> = None;
    loop {
        // Nobody has a lease at the start.
        let is_good = |until: &Tick| *until > clock.now();
        let Ok(until) = lease_until.wait_for(is_good).await.map(|until| *until) else { return };
        let lapsed_for = lapsed_at.map_or(Duration::ZERO, |at| clock.now().since(at));
        if lapsed_at.is_some() {
            info!(layout = layout.0, lapsed_for = ?lapsed_for, "the lease is renewed: requests leave again");
        }
        metrics.renewed(lapsed_for);
        health.set_lease(layout, true);
        let mut until = until;
        while clock.now() <= until {
            match timeout_at(clock.instant(until.after(STEP)), lease_until.changed()).await {
                Ok(Ok(())) => until = *lease_until.borrow_and_update(),
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
        lapsed_at = Some(until);
        metrics.lapsed();
        health.set_lease(layout, false);
        warn!(
            layout = layout.0,
            "the lease has lapsed, no requests leave until it is renewed: no note of this process came back from the stream of members for nine tenths of a heartbeat. The broker does not answer, the stream has no leader or no majority of its replicas, or this process was stopped"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::Metrics;
    use lanekeeper_core::layout::PartitionNumber;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_lapse_is_seen_counted_and_its_end_too() {
        let (metrics, health, clock) = (Metrics::new(), Health::default(), Clock::start());
        let (sender, receiver) = watch::channel(Tick::ZERO);
        health.begin(LayoutNumber(1), [PartitionNumber(0)]);
        health.set_attached(LayoutNumber(1), PartitionNumber(0), true);
        let watched = watch_lease(receiver, clock, LayoutNumber(1), metrics.lease(), health.clone());
        let sees = |line: &str| assert!(metrics.encode().contains(line), "{line}:\n{}", metrics.encode());
        sleep(SECOND).await;
        sees("lanekeeper_lease_valid 0");
        sees("lanekeeper_lease_lapses_total 0");
        let renew = || sender.send_replace(clock.now().after(9 * SECOND));
        renew();
        sleep(8 * SECOND).await;
        renew();
        sleep(8 * SECOND).await;
        sees("lanekeeper_lease_valid 1");
        assert_eq!(health.unready(), None);
        sleep(5 * SECOND).await;
        sees("lanekeeper_lease_valid 0");
        sees("lanekeeper_lease_lapses_total 1");
        assert_eq!(health.unready().as_deref(), Some("lease lapsed"));
        renew();
        sleep(SECOND).await;
        sees("lanekeeper_lease_valid 1");
        sees("lanekeeper_lease_lapsed_seconds_total 4.0");
        assert_eq!(health.unready(), None);
        drop(watched);
    }
}
