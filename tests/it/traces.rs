//! Traces, as a collector gets them (OTLP over HTTP). Judged by what the collector, the target and the metrics saw.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::routing::post;
use lanekeeper_lab::receiver::{FailingRecord, ReceiverSettings};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::{Dispatcher, StandIn, World, assert_flawless, lanekeeper, until, updates};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A span, in text.
#[derive(Clone, Debug)]
struct SeenSpan {
    name: String,
    kind: SpanKind,
    trace: String,
    id: String,
    parent: String,
    links: Vec<(String, String)>,
    attributes: BTreeMap<String, String>,
    state: String,
    began: u64,
    ended: u64,
}

impl SeenSpan {
    fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// A small collector.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Collector {
    /// Takes all, and its address.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let collector = Self::default();
        let take = async |State(Self(requests)): State<Self>, headers: HeaderMap, body: Bytes| {
            requests.lock().expect("no panic holds it").push((headers, body));
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{address}"))
    }

    fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
        self.0.lock().expect("no panic holds it").clone()
    }

    fn spans(&self) -> Vec<SeenSpan> {
        let requests = self.requests().into_iter().map(|(_, body)| {
            ExportTraceServiceRequest::decode(body).expect("it is a request of OTLP").resource_spans
        });
        let spans =
            requests.flatten().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        let hex = |id: &[u8]| {
            id.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("a string takes all");
                hex
            })
        };
        spans
            .map(|span| SeenSpan {
                kind: span.kind(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                attributes: span.attributes.into_iter().map(|one| (one.key, text(one.value))).collect(),
                name: span.name,
                state: span.trace_state,
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
            })
            .collect()
    }

    /// Waits for so many spans of updates, with those of their attempts. The oldest first.
    async fn spans_of_updates(&self, updates: usize) -> Vec<SeenSpan> {
        let mut spans = until(&format!("spans of {updates} updates"), || async {
            let spans = self.spans();
            let found = spans.iter().filter(|span| span.kind == SpanKind::Consumer).count();
            if found >= updates { Ok(spans) } else { Err(format!("{spans:?}")) }
        })
        .await;
        spans.sort_by_key(|span| span.began);
        spans
    }
}

fn text(value: Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("no attribute of ours: {other:?}"),
    }
}

fn telemetry(endpoint: &str) -> String {
    format!(
        "telemetry = {{ endpoint = \"{endpoint}\", timeout = \"1s\", headers = {{ x-api-key = \"s3cret\" }} }}\n\
         updates.partitions = 2\nretry.delay_initial = \"50ms\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publishers_trace_goes_on_through_each_attempt_to_the_target() {
    let (collector, endpoint) = Collector::start().await;
    let mut world = World::new("traced").await;
    let answered = Arc::new(Mutex::new(0));
    let target = StandIn::start(move |_| {
        let mut answered = answered.lock().expect("no panic holds it");
        *answered += 1;
        if *answered == 1 {
            (503, "{\"why\": \"ada.lovelace is away\"}".to_owned())
        } else {
            (200, String::new())
        }
    })
    .await;
    world.target = format!("http://{}", target.address());
    let mut dispatcher = world.dispatcher(&telemetry(&endpoint)).await;
    world
        .publish([json!({
            "key": "ada.lovelace@example.org",
            "id": "u-1",
            "type": "customer.updated",
            "headers": {"traceparent": format!("00-{TRACE}-{SPAN}-01"), "tracestate": "vendor=7"},
            "body": {"name": "a private name"},
        })])
        .await;
    let spans = collector.spans_of_updates(1).await;
    let [update, first, second] = spans.as_slice() else { panic!("three spans: {spans:?}") };
    assert_eq!((update.name.as_str(), update.kind), ("process traced", SpanKind::Consumer));
    assert_eq!((update.trace.as_str(), update.parent.as_str()), (TRACE, SPAN));
    assert_eq!(update.get("messaging.system"), "rabbitmq");
    assert_eq!(update.get("messaging.message.id"), "u-1");
    assert_eq!(update.get("lanekeeper.resolution"), "applied");
    assert_eq!(update.get("lanekeeper.attempts"), "2");
    let destination = format!("traced:traced.l1.{}", update.get("messaging.destination.partition.id"));
    assert_eq!(update.get("messaging.destination.name"), destination);
    for (attempt, status, resend_count, error) in [(first, "503", "", "503"), (second, "200", "1", "")] {
        assert_eq!((attempt.name.as_str(), attempt.kind), ("PUT /records/{record_key}", SpanKind::Client));
        assert_eq!(
            (attempt.trace.as_str(), &attempt.parent, attempt.state.as_str()),
            (TRACE, &update.id, "vendor=7")
        );
        assert_eq!(attempt.get("http.request.method"), "PUT");
        assert_eq!(attempt.get("http.response.status_code"), status);
        assert_eq!(attempt.get("http.request.resend_count"), resend_count);
        assert_eq!(attempt.get("error.type"), error);
        assert_eq!(attempt.get("url.template"), "/records/{record_key}");
        assert_eq!(attempt.get("server.address"), "127.0.0.1");
        assert_eq!(attempt.get("server.port"), target.address().port().to_string());
        assert!(
            update.began <= attempt.began && attempt.began <= attempt.ended && attempt.ended <= update.ended
        );
    }
    assert!(first.ended <= second.began);
    // The target's own span becomes a child of the attempt that reached it.
    let sent: Vec<_> =
        target.seen().iter().map(|request| request.header("traceparent").map(str::to_owned)).collect();
    let expected = [first, second].map(|attempt| Some(format!("00-{TRACE}-{}-01", attempt.id)));
    assert_eq!(sent, expected);
    assert_eq!(target.seen()[1].header("tracestate"), Some("vendor=7"));
    // Nobody's data, and no secret.
    for (headers, body) in collector.requests() {
        assert_eq!(headers.get("x-api-key").map(HeaderValue::as_bytes), Some(&b"s3cret"[..]));
        let body = String::from_utf8_lossy(&body).into_owned();
        for private in ["lovelace", "private", "s3cret"] {
            assert!(!body.contains(private), "{private} in {body}");
        }
    }
    let metrics = dispatcher.metrics().await;
    let exemplar = format!(" # {{trace_id=\"{TRACE}\"}} ");
    for histogram in
        ["lanekeeper_attempt_duration_seconds_bucket{", "lanekeeper_end_to_end_duration_seconds_bucket{"]
    {
        let has = |line: &&str| line.starts_with(histogram) && line.contains(&exemplar);
        assert!(metrics.lines().any(|line| has(&line)), "{histogram} with an exemplar in\n{metrics}");
    }
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let log = dispatcher.log().join("\n");
    assert!(!log.contains("s3cret") && !log.contains("spans dropped"), "{log}");
}

/// Without a trace of the publisher the ratio decides, and the target learns the decision.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_exported_and_the_target_does_not_sample_it_either() {
    let (collector, endpoint) = Collector::start().await;
    let mut world = World::new("unsampled").await;
    let target = StandIn::start(|_| (200, String::new())).await;
    world.target = format!("http://{}", target.address());
    let extra = telemetry(&endpoint).replace(" }\n", ", sample_ratio = 0.0 }\n");
    let mut dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(3, 1)).await;
    until("three requests", || async {
        match target.seen().len() {
            3 => Ok(()),
            requests => Err(format!("{requests} requests")),
        }
    })
    .await;
    for request in target.seen() {
        let sent = request.header("traceparent").expect("the decision is passed on");
        assert!(sent.starts_with("00-") && sent.ends_with("-00"), "{sent}");
    }
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    assert!(collector.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_update_has_a_trace_that_is_linked_to_the_publishers() {
    let (collector, endpoint) = Collector::start().await;
    let failing: FailingRecord = "record-0=422:1s".parse().expect("a failing record");
    let settings = ReceiverSettings { fail_records: vec![failing], ..ReceiverSettings::default() };
    let world = World::with("released-traced", settings).await;
    let _dispatcher = world.dispatcher(&(world.ledger() + &telemetry(&endpoint))).await;
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    world
        .publish(updates(1, 1).map(|mut update| {
            update["headers"] = json!({"traceparent": traceparent});
            update
        }))
        .await;
    let spans = collector.spans_of_updates(1).await;
    let parked = &spans[0];
    assert_eq!((parked.get("lanekeeper.resolution"), parked.get("error.type")), ("parked", "rejected"));
    let config = world.dir.path().join("lanekeeper.toml").display().to_string();
    // Until the record is accepted, it is parked again each time.
    until("the record is accepted", || async {
        let config = config.clone();
        let releasing =
            move || lanekeeper(&["parked", "release", "--config", &config, "--all"], &[], b"").code;
        let code = tokio::task::spawn_blocking(releasing).await.expect("it does not panic");
        match world.receiver.report(0).counts.updates {
            1 => Ok(()),
            applied => Err(format!("{applied} applied, exit code {code:?}")),
        }
    })
    .await;
    let is_applied = |span: &&SeenSpan| span.get("lanekeeper.resolution") == "applied";
    let released = until("the span of the released update", || async {
        let spans = collector.spans();
        spans.iter().find(is_applied).cloned().ok_or_else(|| format!("{spans:?}"))
    })
    .await;
    assert_eq!((released.get("lanekeeper.released"), released.parent.as_str()), ("true", ""));
    assert_ne!(released.trace, TRACE);
    assert_eq!(released.links, [(TRACE.to_owned(), SPAN.to_owned())]);
    let attempt = collector.spans().into_iter().find(|span| span.parent == released.id);
    assert_eq!(attempt.map(|attempt| attempt.trace), Some(released.trace));
}

/// Waits until a metric has at least this value.
async fn reaches(dispatcher: &Dispatcher, metric: &str, least: f64) {
    until(&format!("{metric} of {least}"), || async {
        match dispatcher.metric(metric).await {
            value if value >= least => Ok(()),
            value => Err(value.to_string()),
        }
    })
    .await;
}

/// It accepts connections and answers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_silent_costs_nothing_but_spans() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let endpoint = format!("http://{}", silent.local_addr().expect("it is bound"));
    let world = World::new("silent-collector").await;
    let mut dispatcher = world.dispatcher(&telemetry(&endpoint)).await;
    // An update makes two spans: more than wait for the exporter.
    world.publish(updates(500, 20)).await;
    assert_flawless(&world.applied(10_000).await, 10_000);
    reaches(&dispatcher, "lanekeeper_spans_dropped_total", 1.0).await;
    let line = dispatcher.logged("spans dropped").await;
    assert!(line.contains("WARN") && line.contains("timeout"), "{line}");
    let began = Instant::now();
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    // With a stop's own time: the exporter has three seconds.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(world.receiver.report(0).counts.updates, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_refuses_costs_nothing_but_spans() {
    let away = "http://127.0.0.1:1";
    let world = World::new("absent-collector").await;
    let mut dispatcher = world.dispatcher(&telemetry(away)).await;
    world.publish(updates(20, 10)).await;
    assert_flawless(&world.applied(200).await, 200);
    // A collector of another kind: there is nothing at /v1/traces.
    let other = StandIn::start(|_| (404, String::new())).await;
    let changed = telemetry(&format!("http://{}", other.address()));
    world.write_config(&world.config(&changed));
    dispatcher.signal(crate::harness::Signal::HUP);
    dispatcher.logged("the config has changed, and is in force").await;
    world.publish(updates(20, 20).skip(200)).await;
    assert_flawless(&world.applied(400).await, 400);
    reaches(&dispatcher, "lanekeeper_spans_dropped_total", 400.0).await;
    let line = dispatcher.logged("spans dropped").await;
    assert!(line.contains("status 404"), "{line}");
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
}
