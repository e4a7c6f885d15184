//! Labels, and kinds of values that several groups of metrics use.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lanekeeper_core::layout::PartitionNumber;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Bounds of the buckets in seconds: from a fast answer on one machine to the longest timeouts.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 300.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfPartition {
    pub(super) layout: u32,
    pub(super) partition: PartitionLabel,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) struct PartitionLabel(pub(super) PartitionNumber);

impl EncodeLabelValue for PartitionLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        write!(encoder, "{}", self.0)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfTarget {
    pub(super) target: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfAttempt {
    pub(super) target: Arc<str>,
    pub(super) outcome: &'static str,
    pub(super) code_class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfReason {
    pub(super) reason: &'static str,
}

/// Label of an exemplar: a trace that is sampled.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfTrace {
    pub(super) trace_id: String,
}

/// A histogram of seconds.
pub(super) fn seconds_histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// A histogram of seconds. Each bucket has up to one exemplar.
pub(super) type TracedHistogram = HistogramWithExemplars<OfTrace>;

pub(super) fn traced_histogram() -> TracedHistogram {
    TracedHistogram::new(BUCKETS.into_iter())
}

pub(super) type SecondsGauge = Gauge<f64, AtomicU64>;
pub(super) type SecondsCounter = Counter<f64, AtomicU64>;
