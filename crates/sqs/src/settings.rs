//! What a source needs to know.

use std::time::Duration;

use lanekeeper_core::secret::Secret;

/// The queues, and how they are used.
#[derive(Clone, Debug, PartialEq)]
pub struct SqsSettings {
    /// `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME.fifo`.
    pub queue_url: String,
    /// A FIFO queue for what no target will have.
    pub dead_letter_queue_url: String,
    /// Where requests go instead of the host of the queue's URL.
    pub endpoint_url: Option<String>,
    /// `None`: as the environment, the profile or the queue's URL says.
    pub region: Option<String>,
    /// `None`: as AWS finds them.
    pub credentials: Option<SqsCredentials>,
    /// How long SQS keeps back what it handed over, without hearing from us. Whole seconds.
    pub visibility_timeout: Duration,
    /// How long a receive waits for messages. Whole seconds, at most a third of `visibility_timeout`.
    pub wait_time: Duration,
    /// Receives at once; at least 1.
    pub receivers: usize,
    /// How long a request can be at work at a target.
    pub at_work_max: Duration,
    /// Messages held at once; at least 1.
    pub window: usize,
}

/// Keys of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsCredentials {
    /// `AKIA…`
    pub access_key_id: String,
    /// What it signs with.
    pub secret_access_key: Secret,
    /// Of temporary ones.
    pub session_token: Option<Secret>,
}
