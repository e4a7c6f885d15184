//! Proves that the node of a connection reaches a majority of the cluster's nodes.
//!
//! A node that is cut off answers as on any other day to most requests: it does not know what the others have declared
//! since, declares exchanges and bindings, and deletes queues that the others keep. What it cannot do is to have a message
//! confirmed by the stream with the layout document, which takes a majority of that stream's replicas.

use std::sync::Arc;

use lapin::BasicProperties;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::document_stream::{check_taken, stream_barrier};
use crate::channel::confirm_channel::Message;
use crate::channel::confirmed_publisher::ConfirmedPublisher;
use crate::error::SourceError;
use crate::link::Link;
use crate::names::Names;

const PROVING: &str = "checking that a majority of the nodes is reached";

/// Of one process, for all its partitions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Majority(Arc<MajorityState>);

#[derive(Debug)]
struct MajorityState {
    publishing: Link,
    stream: String,
    proofs: Mutex<Proofs>,
}

#[derive(Debug)]
struct Proofs {
    publisher: ConfirmedPublisher,
    /// When the last proof began that succeeded.
    succeeded: Option<Instant>,
    /// When the last proof began that failed.
    failed: Option<Instant>,
}

impl Majority {
    /// Publishes on this connection.
    #[must_use]
    pub fn new(publishing: Link, names: &Names) -> Self {
        let publisher = ConfirmedPublisher::new(publishing.clone(), PROVING);
        let proofs = Mutex::new(Proofs { publisher, succeeded: None, failed: None });
        Self(Arc::new(MajorityState { publishing, stream: names.topology(), proofs }))
    }

    /// Returns once a majority has confirmed something that was published after this call began, or if the node of the
    /// connection does not know the stream with the layout document. Calls at the same time share their proof.
    ///
    /// # Errors
    /// [`SourceError::NoQuorum`]: it did not confirm within half a minute. [`SourceError::Silent`]: because of an alarm.
    pub(crate) async fn prove(&self) -> Result<(), SourceError> {
        let MajorityState { publishing, stream, proofs } = &*self.0;
        let asked = Instant::now();
        let mut proofs = proofs.lock().await;
        let since = |begun: Option<Instant>| begun.is_some_and(|begun| begun >= asked);
        if since(proofs.succeeded) {
            return Ok(());
        }
        if since(proofs.failed) {
            return Err(SourceError::NoQuorum { step: PROVING });
        }
        let begun = Instant::now();
        let (properties, body): (BasicProperties, _) = stream_barrier();
        let published =
            proofs.publisher.publish_all(vec![Message::to_queue(stream, properties, body.as_bytes())]).await;
        let proven = match published.and_then(|answers| check_taken(&answers, stream, PROVING)) {
            // Not even the stream is there: all was deleted, as with its virtual host. The next start finds out.
            Err(SourceError::Missing { .. }) => Ok(()),
            proven => proven,
        };
        match proven {
            Ok(()) => proofs.succeeded = Some(begun),
            Err(_) => proofs.failed = Some(begun),
        }
        proven.map_err(|fault| unproven(fault, PROVING, publishing.is_blocked()))
    }
}

/// What it means that the broker did not confirm.
pub(super) fn unproven(fault: SourceError, step: &'static str, is_blocked: bool) -> SourceError {
    match fault {
        SourceError::Silent { .. } if !is_blocked => SourceError::NoQuorum { step },
        fault => fault,
    }
}
