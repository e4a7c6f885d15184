//! The way to a partition's deliveries, from them, and the way out.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use super::Tenancy;
use crate::runtime::clock::Clock;
use crate::source::{Deliveries, Gone, Lost, News, Source};

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

pub(super) async fn send_acks<D: Deliveries>(
    tenancy: &mut Option<Tenancy<D>>,
    clock: Clock,
) -> Result<(), Lost> {
    let Some(Tenancy { deliveries, acks, .. }) = tenancy else { return Ok(()) };
    while let Some(ack) = acks.poll(clock.now()) {
        deliveries.ack(ack).await?;
    }
    Ok(())
}

pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender is a stop as well: nobody is left who could ask for one.
    let _ = stop.wait_for(|stop| *stop).await;
}
