//! The queries of the dashboard, run by a Prometheus that has scraped dispatchers and their broker.

use std::collections::BTreeSet;

use lanekeeper_lab::receiver::ReceiverSettings;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::{Value, json};

use crate::harness::{Broker, Prometheus, World, until, updates};

const DASHBOARD: &str = "deploy/grafana/lanekeeper.json";
const JOB: &str = "lanekeeper";

/// The ledger takes one parked update of a record. What is held for longer than 3 s is given back. The target `down` is shut
/// by the first requests.
const EVENTFUL: &str = "updates.partitions = 2\nledger.parked_record_max = 1\ndispatch.held_max = \"3s\"\ndispatch.drain_timeout = \"1s\"\n\
    broker.heartbeat = \"1s\"\nretry.delay_initial = \"50ms\"\nretry.delay_max = \"100ms\"\n\
    breaker.attempts_min = 4\nbreaker.records_min = 2\nbreaker.wait_initial = \"100ms\"\nbreaker.wait_max = \"200ms\"\n";

/// A query, and the panel that shows it.
struct Query {
    panel: String,
    expression: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_finds_series_in_a_real_run() {
    let fail_records = vec!["record-0=422".parse().expect("a failing record")];
    let settings = ReceiverSettings { fail_records, ..ReceiverSettings::default() };
    let world = World::with("dashboard", settings).await;
    let extra = format!("{}{EVENTFUL}", world.ledger());
    let down = "[[target]]\nname = \"down\"\ntypes = [\"down\"]\nurl = \"http://127.0.0.1:1/{record_key}\"\ntimeout = \"1s\"\n";
    let config = world.config(&extra).replacen("[[target]]", &format!("{down}[[target]]"), 1);
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    let prometheus = Prometheus::start(&scrape_configs(&world.broker, &dispatcher.admin().await)).await;
    until("a first scrape", || found(&prometheus, "lanekeeper_ready == 1")).await;

    // Records that are applied; one that is parked, and whose second update the ledger does not take; a target that is shut;
    // and a delivery without a record key.
    world.publish(updates(10, 2)).await;
    world
        .publish((0..8).map(
            |n| json!({"key": format!("down-{n}"), "id": format!("down-{n}"), "type": "down", "body": {}}),
        ))
        .await;
    let channel = world.channel().await;
    let (exchange, options) = (world.exchange.as_str().into(), BasicPublishOptions::default());
    channel
        .basic_publish(exchange, "".into(), options, b"{}", BasicProperties::default())
        .await
        .expect("it is sent");
    world.applied(18).await;

    let dashboard = dashboard();
    variables_offer_job_and_exchange(&prometheus, &dashboard, &world.exchange).await;
    let queries = queries(&dashboard, &world.exchange);
    assert!(queries.len() > 80, "{} queries", queries.len());
    for Query { panel, expression } in &queries {
        until(&format!("{panel}: {expression}"), || found(&prometheus, expression)).await;
    }
    // They show what happened.
    for (panel, value) in [
        ("Ready", "1"),
        ("Lease", "1"),
        ("Shut targets", "1"),
        ("Parked records", "1"),
        ("Dead letters, last hour", "1"),
        ("Dead letters that wait", "1"),
    ] {
        let Query { expression, .. } =
            queries.iter().find(|query| query.panel == panel).unwrap_or_else(|| panic!("no panel {panel}"));
        until(&format!("{panel}: {value}"), || async {
            let series = prometheus.query(expression).await?;
            let values: Vec<&Value> = series.iter().map(|series| &series["value"][1]).collect();
            if values == [value] { Ok(()) } else { Err(format!("{values:?}")) }
        })
        .await;
    }
    // A name that is misspelt beside a good one is found by neither.
    let known: BTreeSet<String> = prometheus
        .label_values("__name__", "{__name__=~\".+\"}")
        .await
        .expect("Prometheus answers")
        .into_iter()
        .collect();
    for Query { panel, expression } in &queries {
        for metric in metrics(expression) {
            assert!(known.contains(metric), "{panel}: there is no metric {metric}");
        }
    }
}

async fn found(prometheus: &Prometheus, expression: &str) -> Result<(), String> {
    match prometheus.query(expression).await {
        Ok(series) if series.is_empty() => Err("no series".to_owned()),
        found => found.map(drop),
    }
}

/// The variables that are asked of Prometheus. RabbitMQ shows the queues of the other tests, too.
async fn variables_offer_job_and_exchange(prometheus: &Prometheus, dashboard: &Value, exchange: &str) {
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let asked = variables.iter().filter(|variable| variable["type"] == "query");
    let expected = [("job", JOB.to_owned()), ("exchange", format!("{exchange}.l1.p000"))];
    assert_eq!(asked.clone().count(), expected.len());
    for (variable, (name, value)) in asked.zip(expected) {
        assert_eq!(variable["name"], name);
        let query = variable["query"]["query"].as_str().expect("a query");
        let (matching, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
            .unwrap_or_else(|| panic!("{name}: {query}"));
        until(&format!("{value} among the values of {name}"), || async {
            let values = prometheus.label_values(label, matching).await?;
            if values.contains(&value) { Ok(()) } else { Err(format!("{values:?}")) }
        })
        .await;
    }
}

fn scrape_configs(broker: &Broker, admin: &str) -> String {
    let rabbitmq = broker.prometheus_address();
    let detailed = "params: {family: [queue_coarse_metrics, queue_consumer_count]}";
    let job = |name: &str, path: &str, more: &str, address: &str| {
        format!(
            "- {{job_name: {name}, metrics_path: {path}, {more} static_configs: [{{targets: [\"{address}\"]}}]}}\n"
        )
    };
    [
        job(JOB, "/metrics", "", admin),
        job("rabbitmq", "/metrics", "", &rabbitmq),
        job("rabbitmq-queues", "/metrics/per-object", "", &rabbitmq),
        job("rabbitmq-detailed", "/metrics/detailed", &format!("{detailed},"), &rabbitmq),
    ]
    .concat()
}

fn dashboard() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(DASHBOARD);
    let text = std::fs::read_to_string(path).expect("the dashboard is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// With the variables as Grafana would put them in.
fn queries(dashboard: &Value, exchange: &str) -> Vec<Query> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    let all = panels.iter().flat_map(|panel| targets(panel).into_iter().map(move |target| (panel, target)));
    all.map(|(panel, target)| {
        let expression = target["expr"].as_str().expect("an expression");
        let values = [("$job", JOB), ("$exchange", exchange), ("$__rate_interval", "1m")];
        let expression = values
            .iter()
            .fold(expression.to_owned(), |expression, (name, value)| expression.replace(name, value));
        assert!(!expression.contains('$'), "an unknown variable: {expression}");
        Query { panel: panel["title"].as_str().expect("a title").to_owned(), expression }
    })
    .collect()
}

fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| ["lanekeeper_", "rabbitmq_"].iter().any(|prefix| word.starts_with(prefix)))
}
