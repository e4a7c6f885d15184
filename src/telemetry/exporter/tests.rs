//! The exporter, with a collector on a port of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::{DeliveryTag, Holder};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener;

use super::super::{PartitionSpans, Telemetry, UpdateFacts};
use super::*;
use crate::admin::metrics::Metrics;
use crate::config::{Environment, Purpose, load};
use lanekeeper_broker::Names;

/// A status and a body.
type Answer = (u16, Vec<u8>);

/// Answers with what a test says, one request after another, and then with 200.
#[derive(Clone, Default)]
struct FakeCollector {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl FakeCollector {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector =
            Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        let router = Router::new().route("/v1/traces", post(taken)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{address}"))
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.requests.lock().unwrap().clone()
    }
}

async fn taken(State(collector): State<FakeCollector>, body: Bytes) -> (StatusCode, Vec<u8>) {
    let request = ExportTraceServiceRequest::decode(body).expect("it is a request of OTLP");
    collector.requests.lock().unwrap().push(request);
    let (status, answer) = collector.answers.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
    (StatusCode::from_u16(status).unwrap(), answer)
}

fn config(endpoint: &str) -> Config {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lk.toml");
    let text = format!(
        "instance.name = \"host-1\"\n[telemetry]\nendpoint = \"{endpoint}\"\ntimeout = \"500ms\"\nservice_name = \"lanes\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let file: &Path = &file;
    load(Some(file), &Environment::default(), Purpose::Publish)
        .unwrap_or_else(|faults| panic!("{faults}"))
        .config
}

/// Telemetry of a process, and what drivers of it get.
struct Process {
    config: watch::Sender<Config>,
    metrics: Metrics,
    telemetry: Telemetry,
    spans: PartitionSpans,
}

impl Process {
    fn begin(endpoint: &str) -> Self {
        let (config, watched) = watch::channel(config(endpoint));
        let metrics = Metrics::new();
        let telemetry =
            Telemetry::begin(watched, metrics.spans(), Clock::start()).unwrap().expect("it is on");
        let place = (LayoutNumber(1), PartitionNumber(3));
        let spans = PartitionSpans::new(telemetry.spans(), &Names::new("updates"), place, "host-1");
        Self { config, metrics, telemetry, spans }
    }

    /// An update came and went.
    fn update(&self) {
        let update = Update {
            record_key: RecordKey::new("a-secret-key").unwrap(),
            id: UpdateId::published("u-1"),
            target: TargetId(0),
            update_type: None,
            version: None,
            content_type: None,
            content_encoding: None,
            if_match: None,
            published_at: None,
            headers: Vec::new(),
            body: Bytes::from_static(b"a-secret-body"),
        };
        let facts = UpdateFacts {
            update: &update,
            holder: Holder::Broker(DeliveryTag(7)),
            redelivered: false,
            attempts: 1,
            target: "crm",
            resolution: Some("applied"),
            failed: None,
            given_back: false,
        };
        self.spans.end(self.spans.begin(&update), &facts);
    }

    /// Stops, and returns what was exported and what was dropped, by reason.
    async fn stop(self) -> String {
        self.telemetry.stop().await;
        let text = self.metrics.encode();
        let counts = text.lines().filter_map(|line| line.strip_prefix("lanekeeper_spans_"));
        let counts = counts.filter(|line| !line.ends_with(" 0")).map(|line| {
            let line = line.replace("_total", "").replace("{reason=\"", " ");
            line.replace("\"}", "")
        });
        counts.collect::<Vec<_>>().join(", ")
    }
}

#[tokio::test]
async fn what_is_left_at_the_stop_is_exported_with_the_names_of_the_conventions() {
    let (collector, endpoint) = FakeCollector::start([]).await;
    let process = Process::begin(&endpoint);
    process.update();
    assert_eq!(process.stop().await, "exported 1");
    let requests = collector.requests();
    assert!(!format!("{requests:?}").contains("secret"), "{requests:?}");
    let [request] = requests.as_slice() else { panic!("one request: {requests:?}") };
    let resource = &request.resource_spans[0];
    let text = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str| {
        let value =
            attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
        match value.and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        }
    };
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    for (key, value) in [
        ("service.name", "lanes"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "host-1"),
    ] {
        assert_eq!(text(attributes, key), value, "{key}");
    }
    let scope = &resource.scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "lanekeeper");
    let span = &scope.spans[0];
    assert_eq!(span.name, "process updates");
    for (key, value) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "updates:updates.l1.p003"),
        ("messaging.destination.partition.id", "p003"),
        ("messaging.message.id", "u-1"),
        ("messaging.rabbitmq.message.delivery_tag", "7"),
        ("lanekeeper.resolution", "applied"),
        ("lanekeeper.target", "crm"),
    ] {
        assert_eq!(text(&span.attributes, key), value, "{key}");
    }
}

#[tokio::test]
async fn a_collector_that_is_full_is_asked_again() {
    let (collector, endpoint) = FakeCollector::start([(503, Vec::new())]).await;
    let process = Process::begin(&endpoint);
    process.update();
    assert_eq!(process.stop().await, "exported 1");
    let requests = collector.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
}

#[tokio::test]
async fn what_the_collector_does_not_take_is_counted() {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "too old".to_owned() };
    let answer = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    for (status, answer, expected) in [
        (200, answer, "exported 1, dropped rejected 1"),
        (200, b"OK".to_vec(), "exported 2"),
        (400, Vec::new(), "dropped failed 2"),
    ] {
        let (_collector, endpoint) = FakeCollector::start([(status, answer)]).await;
        let process = Process::begin(&endpoint);
        process.update();
        process.update();
        assert_eq!(process.stop().await, expected);
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_collector_that_is_away_or_silent() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for endpoint in ["http://127.0.0.1:1".to_owned(), format!("http://{}", silent.local_addr().unwrap())] {
        let process = Process::begin(&endpoint);
        for _ in 0..3 {
            process.update();
        }
        let began = Instant::now();
        assert_eq!(process.stop().await, "dropped failed 3", "{endpoint}");
        assert!(began.elapsed() < FLUSH_WITHIN + Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_changed_collector_gets_what_the_one_before_did_not_take() {
    let (_away, endpoint) = FakeCollector::start(std::iter::repeat_n((503, Vec::new()), 3)).await;
    let (collector, changed) = FakeCollector::start([]).await;
    let process = Process::begin(&endpoint);
    process.update();
    process.config.send_replace(config(&changed));
    assert_eq!(process.stop().await, "exported 1");
    assert_eq!(collector.requests().len(), 1);
}
