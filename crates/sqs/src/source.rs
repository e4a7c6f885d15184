//! The queue, as a driver sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::client::SqsClient;
use super::decode::SqsDecoder;
use super::deliveries::SqsDeliveries;
use super::settings::SqsSettings;
use lanekeeper_broker::{Clock, Gone, LogOnChange, PartitionStatus, Source};
use lanekeeper_core::message::TenureNumber;

const ATTACH_RETRY_DELAY: Duration = Duration::from_secs(1);

/// An SQS FIFO queue. All message groups of it are one partition: SQS itself hands groups out to consumers.
#[derive(Debug)]
pub struct SqsSource {
    settings: SqsSettings,
    client: SqsClient,
    decoder: Arc<SqsDecoder>,
    clock: Clock,
    /// How many tenures this process has had.
    tenures: AtomicU64,
    /// The owner wants a delivery, and there may be no message.
    wanted: Arc<Notify>,
}

impl SqsSource {
    /// A source of this queue. `client`: of the same settings.
    #[must_use]
    pub fn new(settings: SqsSettings, client: SqsClient, decoder: SqsDecoder, clock: Clock) -> Self {
        let (decoder, wanted) = (Arc::new(decoder), Arc::default());
        Self { settings, client, decoder, clock, tenures: AtomicU64::new(0), wanted }
    }
}

impl Source for SqsSource {
    type Deliveries = SqsDeliveries;

    async fn attach(&self) -> Result<SqsDeliveries, Gone> {
        let mut log = LogOnChange::default();
        loop {
            match self.client.facts(false).await {
                Ok(facts) if facts.is_fifo => break,
                Ok(_) => {
                    if log.is_new("not FIFO".to_owned()) {
                        error!(
                            "sqs.queue_url is no FIFO queue, which keeps no order: set it to one whose name ends with .fifo"
                        );
                    }
                }
                Err(fault) => {
                    if log.is_new(fault.text.clone()) {
                        warn!(error = fault.text, "the SQS queue cannot be used, trying again in 1 s");
                    }
                }
            }
            sleep(ATTACH_RETRY_DELAY).await;
        }
        let tenure = self.tenures.fetch_add(1, Ordering::Relaxed) + 1;
        info!(queue = self.settings.queue_url, tenure, "receiving from SQS");
        let (client, decoder) = (self.client.clone(), Arc::clone(&self.decoder));
        let (tenure, wanted) = (TenureNumber(tenure), Arc::clone(&self.wanted));
        Ok(SqsDeliveries::new(&self.settings, (client, decoder, self.clock), tenure, wanted))
    }

    /// There is one layout, for ever.
    fn drains(&self) -> bool {
        false
    }

    /// There is nobody to tell.
    fn publish_status(&self, _: PartitionStatus) {}

    /// Visibility timeouts say it.
    fn publish_end(&self, _: TenureNumber, _: Duration) {}

    fn ask_for_delivery(&self) {
        self.wanted.notify_one();
    }
}
