//! The span of an update from its delivery to its settlement, by the conventions for messaging with RabbitMQ:
//! <https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/>.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, StringValue};

use super::attempt::{AttemptFacts, AttemptTrace};
use super::spans::{OpenSpan, SpanEnd, Spans};
use lanekeeper_broker::Names;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::Holder;
use lanekeeper_core::update::{IdOrigin, Update};

/// Begins and ends the spans of one partition.
#[derive(Clone, Debug)]
pub struct PartitionSpans {
    spans: Spans,
    place: Arc<Place>,
}

/// What all spans of a partition say.
#[derive(Debug)]
struct Place {
    name: String,
    exchange: StringValue,
    destination: StringValue,
    partition: StringValue,
    layout: i64,
    instance: StringValue,
}

/// The span of an update that is here.
#[derive(Clone, Debug)]
pub struct UpdateSpan(OpenSpan);

/// What is known of an update when its span ends.
pub struct UpdateFacts<'a> {
    /// The update.
    pub update: &'a Update,
    /// Who kept it.
    pub holder: Holder,
    /// As the broker marked its delivery.
    pub redelivered: bool,
    /// Attempts while it was here.
    pub attempts: u32,
    /// Name of its target.
    pub target: &'a str,
    /// How its turn ended; `None`: it has not, and the update is given back.
    pub resolution: Option<&'static str>,
    /// Why it failed for good, in one word.
    pub failed: Option<&'static str>,
    /// It was given back to the broker without being settled.
    pub given_back: bool,
}

impl PartitionSpans {
    /// Of this partition, in the process of this name.
    #[must_use]
    pub fn new(
        spans: Spans,
        names: &Names,
        (layout, partition): (LayoutNumber, PartitionNumber),
        instance: &str,
    ) -> Self {
        let exchange = names.public();
        let shared = |text: String| StringValue::from(Arc::<str>::from(text));
        let place = Place {
            name: format!("process {exchange}"),
            exchange: shared(exchange.to_owned()),
            // The convention has the routing key between the two; here it is the record key.
            destination: shared(format!("{exchange}:{}", names.partition(layout, partition))),
            partition: shared(partition.to_string()),
            layout: i64::from(layout.0),
            instance: shared(instance.to_owned()),
        };
        Self { spans, place: Arc::new(place) }
    }

    /// An update was delivered.
    #[must_use]
    pub fn begin(&self, update: &Update) -> UpdateSpan {
        UpdateSpan(self.spans.begin(&update.headers))
    }

    /// A parked update that was released has its turn.
    #[must_use]
    pub fn begin_released(&self, update: &Update) -> UpdateSpan {
        UpdateSpan(self.spans.begin_linked(&update.headers))
    }

    /// An attempt of the update begins.
    #[must_use]
    pub fn begin_attempt(&self, update: &UpdateSpan) -> AttemptTrace {
        AttemptTrace::new(self.spans.below(&update.0.context))
    }

    /// An attempt has ended.
    pub fn end_attempt(&self, trace: AttemptTrace, facts: &AttemptFacts<'_>) {
        trace.end(&self.spans, facts);
    }

    /// The update is settled, or given back.
    pub fn end(&self, UpdateSpan(span): UpdateSpan, facts: &UpdateFacts<'_>) {
        if !span.context.is_sampled() {
            return;
        }
        let place = &*self.place;
        let UpdateFacts { update, holder, redelivered, attempts, target, resolution, failed, given_back } =
            *facts;
        let mut attributes = Vec::with_capacity(20);
        let mut add =
            |key: &'static str, value: opentelemetry::Value| attributes.push(KeyValue::new(key, value));
        add("messaging.system", "rabbitmq".into());
        add("messaging.operation.name", "process".into());
        add("messaging.operation.type", "process".into());
        add("messaging.destination.name", place.destination.clone().into());
        add("messaging.destination.template", place.exchange.clone().into());
        add("messaging.destination.partition.id", place.partition.clone().into());
        add("messaging.client.id", place.instance.clone().into());
        if update.id.origin() == IdOrigin::Publisher {
            add("messaging.message.id", update.id.as_str().to_owned().into());
        }
        add("messaging.message.body.size", whole(update.body.len()).into());
        match holder {
            Holder::Broker(tag) => {
                add("messaging.rabbitmq.message.delivery_tag", whole(tag.0).into());
                add("lanekeeper.redelivered", redelivered.into());
            }
            Holder::Ledger(_) => add("lanekeeper.released", true.into()),
        }
        add("lanekeeper.layout", place.layout.into());
        add("lanekeeper.target", target.to_owned().into());
        add("lanekeeper.attempts", i64::from(attempts).into());
        if let Some(resolution) = resolution {
            add("lanekeeper.resolution", resolution.into());
        }
        if given_back {
            add("lanekeeper.given_back", true.into());
        }
        if let Some(failed) = failed {
            add("error.type", failed.into());
        }
        let (name, is_error) = (place.name.clone(), failed.is_some());
        let end = SpanEnd { name, kind: SpanKind::Consumer, attributes, is_error, at: SystemTime::now() };
        self.spans.end(span, end);
    }
}

impl UpdateSpan {
    /// The id of a trace that is sampled, for exemplars.
    #[must_use]
    pub fn sampled_id(&self) -> Option<String> {
        self.0.context.is_sampled().then(|| self.0.context.trace_id().to_string())
    }
}

fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
