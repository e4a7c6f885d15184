//! Records the newest epoch in the layout document, so that it is known when nobody runs and the stream of members is lost.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::document::LayoutDocument;
use super::document_stream;
use super::session::TopologySession;
use crate::connection::Address;
use crate::epochs::Epochs;
use crate::error::SourceError;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::error::error_chain;

/// The other processes find the same epoch at the same time; one of them records it.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(1);
const RETRY_DELAY: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Records each epoch that the document does not know. Ends with the process.
pub(super) async fn record_epochs(
    address: Address,
    names: Names,
    instance: String,
    mut documents: watch::Receiver<LayoutDocument>,
    epochs: Epochs,
) {
    let (mut log, mut newest) = (LogOnChange::default(), epochs.watch());
    loop {
        let recorded = documents.borrow_and_update().epoch;
        // For a stream that this process will find to be another one.
        epochs.observe(recorded);
        let epoch = *newest.borrow_and_update();
        if epoch <= recorded {
            tokio::select! {
                Ok(()) = newest.changed() => {}
                Ok(()) = documents.changed() => {}
                else => return, // the process ends
            }
            continue;
        }
        if timeout(WAIT_FOR_OTHERS, documents.changed()).await.is_ok() {
            continue;
        }
        match record(&address, &names, &instance, epoch).await {
            Ok(document) => {
                log.cleared();
                let serial = document.serial;
                let _ = timeout(RETRY_DELAY, documents.wait_for(|known| known.serial >= serial)).await;
            }
            Err(fault) => {
                let error = error_chain(&fault);
                if !matches!(fault, SourceError::Locked { .. }) && log.is_new(error.clone()) {
                    warn!(
                        error,
                        epoch,
                        "cannot record the epoch of tenure numbers in the layout document, trying again"
                    );
                }
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// On a connection of its own, as every holder of the lock: an alarm freezes a connection that publishes.
async fn record(
    address: &Address,
    names: &Names,
    instance: &str,
    epoch: u64,
) -> Result<LayoutDocument, SourceError> {
    let connection = address.connect(&format!("lanekeeper {instance} epoch")).await?;
    let mut session = TopologySession::new(&connection, names, instance);
    let recorded = record_locked(&mut session, epoch).await;
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
    recorded
}

async fn record_locked(session: &mut TopologySession<'_>, epoch: u64) -> Result<LayoutDocument, SourceError> {
    session.lock().await?;
    let known = document_stream::read_surely(session).await?;
    let known =
        known.ok_or_else(|| SourceError::NoLayout { exchange: session.names().public().to_owned() })?;
    let document = if known.epoch < epoch {
        document_stream::write(session, LayoutDocument { epoch, ..known }).await?
    } else {
        known
    };
    session.unlock().await?;
    Ok(document)
}
