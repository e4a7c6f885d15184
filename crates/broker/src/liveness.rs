//! Checks that the broker answers: a small request every quarter of a heartbeat, on a channel of its own.
//!
//! An answer does not prove that we own anything: a node that is cut off from its cluster answers, too. It shows that the
//! connection lives, and it takes the place of a note while an alarm keeps notes from being published.

use std::sync::Arc;

use lapin::options::BasicQosOptions;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::error::SourceError;
use super::link::{ConnectionNumber, Link};

/// The newest answer: on which connection, and when the request for it was sent.
pub(super) type LastSeen = Option<(ConnectionNumber, Instant)>;

/// Sends requests until it is dropped.
#[derive(Clone, Debug)]
pub struct LivenessProbe {
    last_seen: watch::Receiver<LastSeen>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl LivenessProbe {
    /// Begins to send requests on this connection.
    #[must_use]
    pub fn begin(link: Link) -> Self {
        let (sender, last_seen) = watch::channel(None);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                // Whatever the error is, the link reconnects.
                let _ = ask(&link, &sender).await;
                tokio::time::sleep(link.heartbeat() / 4).await;
            }
        }));
        Self { last_seen, _task: Arc::new(task) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<LastSeen> {
        self.last_seen.clone()
    }
}

async fn ask(link: &Link, last_seen: &watch::Sender<LastSeen>) -> Result<(), SourceError> {
    const STEP: &str = "checking that the broker answers";
    let (channel, connection) = link.channel_of().await?;
    // It can be shorter than on the first connection.
    let heartbeat = link.heartbeat().saturating_sub(link.heartbeat_lowered_by());
    loop {
        let at = Instant::now();
        let asking = channel.basic_qos(1, BasicQosOptions::default());
        match timeout(heartbeat * 4, asking).await {
            Ok(answer) => answer.map_err(SourceError::amqp(STEP))?,
            Err(_) => return Err(SourceError::Silent { step: STEP, seconds: (heartbeat * 4).as_secs() }),
        }
        last_seen.send_replace(Some((connection, at)));
        tokio::time::sleep(heartbeat / 4).await;
    }
}
