//! Sends ended spans to the collector, in batches: OTLP over HTTP with protobuf
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::spans::Spans;
use crate::admin::metrics::SpanDropReason;
use crate::config::{Config, TelemetryConfig};
use crate::http::client::TargetsFault;
use crate::http::collector::{Collector, Posted};
use crate::printable::printable;
use lanekeeper_broker::Clock;
use lanekeeper_core::log_interval::LogInterval;

/// Spans of one request.
const BATCH_MAX: usize = 1024;
/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Between the tries to send a batch. A collector that is started again is away for less than their sum.
const WAITS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// The longest wait that a collector may ask for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The same when the process stops.
const WAIT_AT_STOP: Duration = Duration::from_millis(200);
/// How long the end of the process may wait for the collector.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);
/// Of a collector's words in the log.
const WORDS_MAX: usize = 200;

/// The task that sends.
pub(super) struct Exporter {
    telemetry: TelemetryConfig,
    /// `instance.name`.
    instance: String,
    config: watch::Receiver<Config>,
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    spans: Spans,
    queue: mpsc::Receiver<SpanData>,
    stop: CancellationToken,
    clock: Clock,
    log: DropLog,
}

/// When dropped spans are logged.
#[derive(Default)]
struct DropLog {
    interval: LogInterval,
    /// How many were dropped when it was last looked.
    seen: u64,
    since: u64,
    /// What the collector did last, if it did not take spans.
    why: Option<String>,
    /// A line was logged since it took spans.
    logged: bool,
}

impl Exporter {
    pub(super) fn new(
        (telemetry, instance): (TelemetryConfig, String),
        config: watch::Receiver<Config>,
        (spans, queue): (Spans, mpsc::Receiver<SpanData>),
        stop: CancellationToken,
        clock: Clock,
    ) -> Result<Self, TargetsFault> {
        let collector = Collector::new(&telemetry)?;
        let resource = resource(&telemetry, &instance);
        let log = DropLog::default();
        Ok(Self { telemetry, instance, config, collector, resource, spans, queue, stop, clock, log })
    }

    /// Runs until `stop` is cancelled and nothing is left, or [`FLUSH_WITHIN`] is over.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut over = pin!(async move {
            stop.cancelled().await;
            sleep(FLUSH_WITHIN).await;
        });
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            self.collect(&mut batch).await;
            if batch.is_empty() {
                break;
            }
            let spans = batch.len();
            let request = self.request(std::mem::take(&mut batch));
            tokio::select! {
                biased;
                () = self.export(&request, spans) => {}
                () = over.as_mut() => {
                    self.failed(spans, "the process stops".to_owned());
                    break;
                }
            }
            self.log_dropped();
        }
        let mut left = 0;
        while self.queue.try_recv().is_ok() {
            left += 1;
        }
        if left > 0 {
            self.failed(left, "the process stops".to_owned());
        }
        self.log.interval = LogInterval::default(); // the last word is said at once
        self.log_dropped();
    }

    /// Waits for spans, and for others that come soon. Leaves none if the process stops and there are no more.
    async fn collect(&mut self, batch: &mut Vec<SpanData>) {
        while batch.is_empty() {
            tokio::select! {
                biased;
                _ = self.queue.recv_many(batch, BATCH_MAX) => {}
                Ok(()) = self.config.changed() => self.reconfigure(),
                () = self.stop.cancelled() => return,
            }
        }
        let due = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            tokio::select! {
                biased;
                received = timeout_at(due, self.queue.recv_many(batch, room)) => {
                    if received.is_err() {
                        return;
                    }
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn request(&self, batch: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    /// Sends a batch, again and again for about half a minute if that may help.
    async fn export(&mut self, request: &Bytes, spans: usize) {
        let mut waits = WAITS.into_iter();
        loop {
            let (why, asked) = match self.collector.post(request.clone()).await {
                Posted::Taken(answer) => return self.taken(spans, &answer),
                Posted::Refused(why) => return self.failed(spans, why),
                Posted::Unavailable { why, retry_after } => (why, retry_after),
            };
            let Some(wait) = waits.next() else { return self.failed(spans, why) };
            let is_stopping = self.stop.is_cancelled();
            let wait = if is_stopping { WAIT_AT_STOP } else { asked.unwrap_or(wait).min(WAIT_MAX) };
            self.log.why = Some(why);
            self.log_dropped();
            tokio::select! {
                () = sleep(wait) => {}
                // Once more, at another place or with another header.
                Ok(()) = self.config.changed() => self.reconfigure(),
                () = self.stop.cancelled(), if !is_stopping => {}
            }
        }
    }

    fn taken(&mut self, spans: usize, answer: &[u8]) {
        // A collector that answers something else has taken them all the same.
        let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = usize::try_from(partial.rejected_spans).unwrap_or(0).min(spans);
        self.spans.metrics().exported(spans - rejected);
        if rejected > 0 {
            let words: String = printable(&partial.error_message).chars().take(WORDS_MAX).collect();
            self.log.why = Some(format!("the collector rejects some of them: {words}"));
            self.spans.metrics().dropped(SpanDropReason::Rejected, rejected);
        } else if self.log.why.take().is_some() && std::mem::take(&mut self.log.logged) {
            info!("the collector takes spans again");
        }
    }

    fn failed(&mut self, spans: usize, why: String) {
        self.log.why = Some(why);
        self.spans.metrics().dropped(SpanDropReason::Failed, spans);
    }

    /// One line a minute, at most.
    fn log_dropped(&mut self) {
        let dropped = self.spans.metrics().all_dropped();
        self.log.since += dropped - self.log.seen;
        self.log.seen = dropped;
        if self.log.since > 0 && self.log.interval.count(self.clock.now()).is_some() {
            let spans = std::mem::take(&mut self.log.since);
            self.log.logged = true;
            let why = self.log.why.as_deref().unwrap_or("they come faster than the collector takes them");
            warn!(spans, why, "spans dropped, dispatch goes on: no trace has them");
        }
    }

    fn reconfigure(&mut self) {
        let Some(changed) = self.config.borrow_and_update().telemetry.clone() else { return };
        if changed == self.telemetry {
            return;
        }
        match Collector::new(&changed) {
            Ok(collector) => {
                self.collector = collector;
                self.resource = resource(&changed, &self.instance);
                self.spans.set_sample_ratio(changed.sample_ratio);
                self.telemetry = changed;
            }
            Err(fault) => {
                error!(%fault, "the changed [telemetry] cannot be used, the one before stays in force");
            }
        }
    }
}

/// What all spans of this process have in common.
fn resource(telemetry: &TelemetryConfig, instance: &str) -> ResourceAttributesWithSchema {
    let resource =
        Resource::builder_empty().with_service_name(telemetry.service_name.clone()).with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
    (&resource.build()).into()
}

#[cfg(test)]
mod tests;
