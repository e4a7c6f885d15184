//! Requests to read the config again, from whoever has a reason, to the one task that does it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::{Change, Faults};
use crate::http::current::LookAgain;

/// Requests that wait. If there is no room, one with the same purpose waits already.
const REQUESTS_MAX: usize = 64;
/// How long an answer is waited for. Files can be on a file system that does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the config is to be read.
#[derive(Debug)]
pub enum ConfigRequest {
    /// A person asks for it (SIGHUP): the config file is read, and what has changed is applied.
    Reload,
    /// A target has refused who we are: the files that `file:` values name are read if they have changed.
    LookAgain(oneshot::Sender<()>),
    /// What would [`Self::Reload`] change? Nothing is applied.
    Compare(oneshot::Sender<Result<Vec<Change>, Faults>>),
}

/// Both ends.
#[derive(Debug)]
pub struct ConfigRequests {
    /// For those who have a reason.
    pub sender: ConfigRequestSender,
    /// For the task.
    pub received: mpsc::Receiver<ConfigRequest>,
}

/// Sends requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConfigRequestSender(mpsc::Sender<ConfigRequest>);

impl ConfigRequests {
    /// A new pair.
    #[must_use]
    pub fn new() -> Self {
        let (sender, received) = mpsc::channel(REQUESTS_MAX);
        Self { sender: ConfigRequestSender(sender), received }
    }
}

impl Default for ConfigRequests {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigRequestSender {
    /// See [`ConfigRequest::Reload`].
    pub fn reload(&self) {
        let _ = self.0.try_send(ConfigRequest::Reload); // if it is full, one waits already
    }

    /// See [`ConfigRequest::LookAgain`].
    #[must_use]
    pub fn look_again(&self) -> LookAgain {
        let sender = self.0.clone();
        Arc::new(move || {
            let (answer, answered) = oneshot::channel();
            let sent = sender.try_send(ConfigRequest::LookAgain(answer)).is_ok();
            Box::pin(async move {
                if sent {
                    let _ = timeout(ANSWER_TIMEOUT, answered).await; // without an answer, nothing has changed
                }
            })
        })
    }

    /// See [`ConfigRequest::Compare`]; `None`: there is no answer in time, because the process starts or stops, or because a
    /// file cannot be read in time.
    pub async fn compare(&self) -> Option<Result<Vec<Change>, Faults>> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(ConfigRequest::Compare(answer)).ok()?;
        timeout(ANSWER_TIMEOUT, answered).await.ok()?.ok()
    }
}
