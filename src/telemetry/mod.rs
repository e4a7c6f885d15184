//! Traces: a span for each update from its delivery to its settlement, with a child for each attempt, exported over OTLP.
//!
//! Begin with [`Telemetry`], which runs while the process does. [`PartitionSpans`] is what a driver begins and ends spans with;
//! `context` has what headers say of a trace (W3C Trace Context), `spans` whether a trace is sampled and where its spans go,
//! `update` and `attempt` the two kinds of spans, and `exporter` the way to the collector.
//!
//! Nothing here is waited for by a driver. Record keys, bodies and what a target answers are never in a span.
//! docs/decisions/019-traces.md says why spans are values here, and not those of `tracing`.

mod attempt;
mod context;
mod exporter;
mod spans;
mod update;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::attempt::{AttemptFacts, AttemptTrace};
use self::exporter::Exporter;
pub use self::spans::Spans;
pub use self::update::{PartitionSpans, UpdateFacts, UpdateSpan};
use crate::admin::metrics::SpanMetrics;
use crate::config::Config;
use crate::http::client::TargetsFault;
use lanekeeper_broker::Clock;

/// The traces of this process.
#[derive(Debug)]
pub struct Telemetry {
    spans: Spans,
    stop: CancellationToken,
    exporter: JoinHandle<()>,
}

impl Telemetry {
    /// Begins to export what is begun and ended from now on; `None`: `[telemetry]` is off. Changes of `config` take effect.
    ///
    /// # Errors
    /// There are no certificates to believe a collector by.
    pub fn begin(
        config: watch::Receiver<Config>,
        metrics: SpanMetrics,
        clock: Clock,
    ) -> Result<Option<Self>, TargetsFault> {
        let (telemetry, instance) = {
            let config = config.borrow();
            let Some(telemetry) = config.telemetry.clone() else { return Ok(None) };
            (telemetry, config.instance.clone())
        };
        let (spans, queue) = Spans::new(telemetry.sample_ratio, metrics);
        let stop = CancellationToken::new();
        let exporter =
            Exporter::new((telemetry, instance), config, (spans.clone(), queue), stop.clone(), clock)?;
        Ok(Some(Self { spans, stop, exporter: tokio::spawn(exporter.run()) }))
    }

    /// Where spans go.
    #[must_use]
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Exports what is left, for a bounded time. What is not exported then is counted as dropped.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic there has been printed; it costs spans and nothing else.
        let _ = self.exporter.await;
    }
}
