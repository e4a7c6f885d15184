//! Which traces are sampled, and where their spans go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _, SpanData, SpanEvents,
    SpanLinks,
};
use tokio::sync::mpsc;

use super::context::of_publisher;
use crate::admin::metrics::{SpanDropReason, SpanMetrics};

/// Spans that wait for the exporter, at most: a second of them at full speed. Each takes about 2 KiB.
const QUEUE_MAX: usize = 16_384;

/// Begins spans, and takes them in when they have ended. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spans(Arc<SpanState>);

#[derive(Debug)]
struct SpanState {
    /// The bits of an `f64`.
    sample_ratio: AtomicU64,
    queue: mpsc::Sender<SpanData>,
    metrics: SpanMetrics,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
}

/// A span that has not ended.
#[derive(Clone, Debug)]
pub(super) struct OpenSpan {
    pub(super) context: SpanContext,
    /// Invalid: it has none.
    parent: SpanId,
    parent_is_remote: bool,
    /// The trace that it comes from, where it is not its own.
    link: Option<Box<SpanContext>>,
    pub(super) began: SystemTime,
}

/// What is known of a span at its end.
pub(super) struct SpanEnd {
    pub(super) name: String,
    pub(super) kind: SpanKind,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) is_error: bool,
    pub(super) at: SystemTime,
}

impl Spans {
    /// Also returns what ended spans come out of.
    pub(crate) fn new(sample_ratio: f64, metrics: SpanMetrics) -> (Self, mpsc::Receiver<SpanData>) {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let version = env!("CARGO_PKG_VERSION");
        let state = SpanState {
            sample_ratio: AtomicU64::new(sample_ratio.to_bits()),
            queue,
            metrics,
            scope: InstrumentationScope::builder("lanekeeper").with_version(version).build(),
            ids: RandomIdGenerator::default(),
        };
        (Self(Arc::new(state)), spans)
    }

    pub(super) fn set_sample_ratio(&self, sample_ratio: f64) {
        self.0.sample_ratio.store(sample_ratio.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn metrics(&self) -> &SpanMetrics {
        &self.0.metrics
    }

    /// A span of what was published with these headers: in the publisher's trace, and sampled if that is; otherwise in a trace
    /// of its own, which is sampled by chance.
    pub(super) fn begin(&self, headers: &[(String, String)]) -> OpenSpan {
        match of_publisher(headers) {
            Some(parent) => self.below(&parent),
            None => self.root(None),
        }
    }

    /// A span in a trace of its own that is linked to the publisher's, and sampled if that is.
    pub(super) fn begin_linked(&self, headers: &[(String, String)]) -> OpenSpan {
        self.root(of_publisher(headers))
    }

    pub(super) fn below(&self, parent: &SpanContext) -> OpenSpan {
        let (trace, flags, state) = (parent.trace_id(), parent.trace_flags(), parent.trace_state().clone());
        OpenSpan {
            context: SpanContext::new(trace, self.0.ids.new_span_id(), flags, false, state),
            parent: parent.span_id(),
            parent_is_remote: parent.is_remote(),
            link: None,
            began: SystemTime::now(),
        }
    }

    fn root(&self, link: Option<SpanContext>) -> OpenSpan {
        let trace = self.0.ids.new_trace_id();
        let is_sampled = link.as_ref().map_or_else(|| self.by_chance(trace), SpanContext::is_sampled);
        let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        OpenSpan {
            context: SpanContext::new(trace, self.0.ids.new_span_id(), flags, false, TraceState::NONE),
            parent: SpanId::INVALID,
            parent_is_remote: false,
            link: link.map(Box::new),
            began: SystemTime::now(),
        }
    }

    fn by_chance(&self, trace: TraceId) -> bool {
        let ratio = f64::from_bits(self.0.sample_ratio.load(Ordering::Relaxed));
        let sampler = Sampler::TraceIdRatioBased(ratio);
        let result = sampler.should_sample(None, trace, "", &SpanKind::Consumer, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// Takes a span in, of a trace that is sampled. If there is no room, it is counted and dropped: nothing waits for a
    /// collector.
    pub(super) fn end(&self, span: OpenSpan, end: SpanEnd) {
        let OpenSpan { context, parent, parent_is_remote, link, began } = span;
        let mut links = SpanLinks::default();
        links.links.extend(link.map(|link| Link::new(*link, Vec::new(), 0)));
        let span = SpanData {
            span_context: context,
            parent_span_id: parent,
            parent_span_is_remote: parent_is_remote,
            span_kind: end.kind,
            name: end.name.into(),
            start_time: began,
            // The clock of the system may have been set back.
            end_time: end.at.max(began),
            attributes: end.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: if end.is_error { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.0.scope.clone(),
        };
        if self.0.queue.try_send(span).is_err() {
            self.0.metrics.dropped(SpanDropReason::QueueFull, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::Metrics;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn of_publisher(flags: &str) -> Vec<(String, String)> {
        vec![
            ("traceparent".into(), format!("00-{TRACE}-{SPAN}-{flags}")),
            ("tracestate".into(), "a=1".into()),
        ]
    }

    fn end_of(name: &str) -> SpanEnd {
        let (name, kind, at) = (name.to_owned(), SpanKind::Consumer, SystemTime::now());
        SpanEnd { name, kind, attributes: Vec::new(), is_error: false, at }
    }

    #[test]
    fn the_publisher_decides_if_its_trace_is_sampled_and_the_ratio_where_there_is_none() {
        let sampled = |ratio: f64, headers: &[(String, String)], linked: bool| {
            let (spans, _queue) = Spans::new(ratio, Metrics::new().spans());
            let begin = || if linked { spans.begin_linked(headers) } else { spans.begin(headers) };
            (0..1_000).filter(|_| begin().context.is_sampled()).count()
        };
        for linked in [false, true] {
            assert_eq!(sampled(0.0, &of_publisher("01"), linked), 1_000);
            assert_eq!(sampled(1.0, &of_publisher("00"), linked), 0);
            assert_eq!(sampled(0.0, &[], linked), 0);
            assert_eq!(sampled(1.0, &[], linked), 1_000);
            let some = sampled(0.25, &[], linked);
            assert!((150..350).contains(&some), "{some} of 1,000");
        }
        let (spans, _queue) = Spans::new(0.0, Metrics::new().spans());
        spans.set_sample_ratio(1.0);
        assert!(spans.begin(&[]).context.is_sampled(), "a change takes effect");
    }

    #[test]
    fn a_span_goes_on_with_the_publishers_trace_or_is_linked_to_it() {
        let (spans, mut queue) = Spans::new(1.0, Metrics::new().spans());
        let begun = spans.begin(&of_publisher("01"));
        let below = spans.below(&begun.context);
        let linked = spans.begin_linked(&of_publisher("01"));
        for (span, name) in [(begun, "update"), (below, "attempt"), (linked, "released")] {
            spans.end(span, end_of(name));
        }
        let [update, attempt, released] = [(); 3].map(|()| queue.try_recv().expect("a span"));
        assert_eq!(update.span_context.trace_id().to_string(), TRACE);
        assert_eq!((update.parent_span_id.to_string().as_str(), update.parent_span_is_remote), (SPAN, true));
        assert_eq!(update.span_context.trace_state().header(), "a=1");
        assert_eq!(attempt.span_context.trace_id(), update.span_context.trace_id());
        assert_eq!(attempt.parent_span_id, update.span_context.span_id());
        assert!(!attempt.parent_span_is_remote);
        assert_ne!(attempt.span_context.span_id(), update.span_context.span_id());
        // What the publisher's state says belongs to its trace.
        assert_ne!(released.span_context.trace_id(), update.span_context.trace_id());
        assert_eq!(released.parent_span_id, SpanId::INVALID);
        assert_eq!(released.span_context.trace_state().header(), "");
        let links: Vec<_> =
            released.links.iter().map(|link| link.span_context.span_id().to_string()).collect();
        assert_eq!(links, [SPAN]);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nothing_waits() {
        let (spans, mut queue) = Spans::new(1.0, Metrics::new().spans());
        for _ in 0..QUEUE_MAX + 7 {
            spans.end(spans.begin(&[]), end_of("update"));
        }
        assert_eq!(spans.metrics().all_dropped(), 7);
        queue.close();
        spans.end(spans.begin(&[]), end_of("update"));
        assert_eq!(spans.metrics().all_dropped(), 8, "the exporter has ended");
    }
}
