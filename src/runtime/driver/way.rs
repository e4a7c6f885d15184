//! The way to a partition's deliveries, from them, and the way out.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Driver, Tenancy};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Gone, Lost, News, Source};
use lanekeeper_core::message::Event;

/// The way back to a partition.
pub(super) type Attaching<D> = Pin<Box<dyn Future<Output = Result<D, Gone>> + Send>>;

pub(super) fn attach<S: Source>(source: &Arc<S>) -> Attaching<S::Deliveries> {
    let source = Arc::clone(source);
    Box::pin(async move { source.attach().await })
}

/// Pends for ever where nothing is being attached.
pub(super) async fn attached<F: Future + Unpin>(attaching: &mut Option<F>) -> Option<F::Output> {
    match attaching {
        Some(attaching) => Some(attaching.await),
        None => std::future::pending().await,
    }
}

/// Pends for ever without a tenancy.
pub(super) async fn next<D: Deliveries>(tenancy: &mut Option<Tenancy<D>>) -> Result<News, Lost> {
    match tenancy {
        Some(tenancy) => tenancy.deliveries.next().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn send_acks<D: Deliveries>(tenancy: &mut Option<Tenancy<D>>) -> Result<(), Lost> {
    match tenancy {
        Some(tenancy) => tenancy.deliveries.send_acks().await,
        None => Ok(()),
    }
}

pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender is a stop as well: nobody is left who could ask for one.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl<S: Source, T: Target + 'static> Driver<S, T> {
    /// Losing the channel ends the tenure; attempts in flight run on, and the way back begins.
    pub(super) async fn lose(
        &mut self,
        tenancy: Option<Tenancy<S::Deliveries>>,
        lost: &Lost,
        draining: bool,
    ) -> Option<Attaching<S::Deliveries>> {
        if let Some(tenancy) = tenancy {
            let Lost(why) = lost;
            warn!(partition = %self.partition, tenure = tenancy.tenure.0, why, "partition lost");
            self.core.handle(self.clock.now(), Event::TenureEnded(tenancy.tenure));
            self.drain.tenure_ended();
            self.metrics.active(false);
            self.health.set_attached(self.layout.number, self.partition, false);
            tenancy.deliveries.close().await;
        }
        (!draining).then(|| attach(&self.source))
    }

    /// Settles what is finished, then gives the partition up: what was not started goes back in order.
    pub(super) async fn leave(&mut self, tenancy: Option<Tenancy<S::Deliveries>>) {
        if let Some(tenancy) = tenancy {
            tenancy.deliveries.leave().await;
            self.core.handle(self.clock.now(), Event::TenureEnded(tenancy.tenure));
            self.drain.tenure_ended();
            self.metrics.active(false);
            self.health.set_attached(self.layout.number, self.partition, false);
            info!(partition = %self.partition, tenure = tenancy.tenure.0, "partition given up");
        }
    }
}
