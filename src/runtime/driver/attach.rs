//! The way to a partition's deliveries, from them, and the way out.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Driver, Session};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Gone, Lost, Source, SourceEvent};
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
pub(super) async fn next<D: Deliveries>(session: &mut Option<Session<D>>) -> Result<SourceEvent, Lost> {
    match session {
        Some(session) => session.deliveries.next().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn send_acks<D: Deliveries>(session: &mut Option<Session<D>>) -> Result<(), Lost> {
    match session {
        Some(session) => session.deliveries.send_acks().await,
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
        session: Option<Session<S::Deliveries>>,
        lost: &Lost,
        stopping: bool,
    ) -> Option<Attaching<S::Deliveries>> {
        if let Some(session) = session {
            let Lost(why) = lost;
            warn!(partition = %self.partition, tenure = session.tenure.0, why, "partition lost");
            self.core.handle(self.clock.now(), Event::TenureEnded(session.tenure));
            self.drain.tenure_ended();
            self.metrics.active(false);
            self.health.set_attached(self.layout.number, self.partition, false);
            session.deliveries.close().await;
        }
        (!stopping).then(|| attach(&self.source))
    }

    /// Settles what is finished, then gives the partition up: what was not started goes back in order.
    pub(super) async fn leave(&mut self, session: Option<Session<S::Deliveries>>) {
        if let Some(session) = session {
            session.deliveries.leave().await;
            self.core.handle(self.clock.now(), Event::TenureEnded(session.tenure));
            self.drain.tenure_ended();
            self.metrics.active(false);
            self.health.set_attached(self.layout.number, self.partition, false);
            info!(partition = %self.partition, tenure = session.tenure.0, "partition given up");
        }
    }
}
