//! `lanekeeper ingest` against a real broker: what is answered 202 arrives in order, and what is refused never does.

mod answers;
mod compose;
mod documented;
mod flood;
mod guesses;
mod held;
mod hooks;
mod hostile;
mod load;
mod loss;
mod reload;
mod salesforce;
mod sender;
mod senders;
mod shown;
mod signers;
mod workato;
mod zapier_make;

use std::path::Path;

use lanekeeper_lab::testbed::program;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::harness::{Dispatcher, World, http, lanekeeper_command, until, updates};

const TOKEN: &str = "0123456789abcdef-crm";

/// A `lanekeeper ingest`, which answers its port.
struct Ingest {
    process: Dispatcher,
    address: String,
}

/// A config for a door of this world. `extra` is TOML of `[ingest]`.
fn config(world: &World, url: &str, extra: &str) -> String {
    format!(
        "broker.url = \"{url}\"\nupdates.exchange = \"{exchange}\"\nadmin.listen = \"127.0.0.1:0\"\n\
         [ingest]\nlisten = \"127.0.0.1:0\"\n{extra}\n\
         [[ingest.client]]\nname = \"crm\"\ntokens = [\"{TOKEN}\"]\n",
        exchange = world.exchange,
    )
}

impl Ingest {
    async fn start(world: &World, extra: &str) -> Self {
        Self::start_at(world, world.broker.url(), extra).await
    }

    async fn start_at(world: &World, url: &str, extra: &str) -> Self {
        Self::start_with(world, &config(world, url, extra)).await
    }

    async fn start_with(world: &World, config: &str) -> Self {
        let path = world.dir.path().join("ingest.toml");
        std::fs::write(&path, config).expect("the config can be written");
        Self::start_file(&path).await
    }

    async fn start_file(config: &Path) -> Self {
        let mut command = program::command(Path::new(lanekeeper_command().get_program()));
        command.args(["ingest", "--config"]).arg(config);
        let process = Dispatcher::start_command(command);
        let line = process.logged("updates are taken").await;
        let address = line.split_once("address=").and_then(|(_, rest)| rest.split(' ').next());
        let address = address.expect("the line has the address").to_owned();
        Self { process, address }
    }

    /// With these clients and no others.
    async fn of_clients(world: &World, clients: &str) -> Self {
        let (url, exchange) = (world.broker.url(), &world.exchange);
        let config = format!(
            "broker.url = \"{url}\"\nupdates.exchange = \"{exchange}\"\nadmin.listen = \"127.0.0.1:0\"\n\
             ingest.listen = \"127.0.0.1:0\"\n{clients}"
        );
        let door = Self::start_with(world, &config).await;
        door.process.ready().await;
        door
    }

    async fn ready(world: &World, extra: &str) -> Self {
        let door = Self::start(world, extra).await;
        door.process.ready().await;
        door
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        http().request(method, format!("http://{}{path}", self.address)).bearer_auth(TOKEN)
    }

    /// An update of `record`, as by PUT.
    fn put(&self, record: &str, id: &str, body: &Value) -> RequestBuilder {
        self.request(Method::PUT, &format!("/updates/{record}/{id}")).json(body)
    }
}

/// The first config of a section of a page in docs/connecting.
fn config_in(page: &'static str, section: &str) -> &'static str {
    let (_, section) =
        page.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("there is {section}"));
    let (_, config) = section.split_once("```toml\n").expect("it has a config");
    config.split_once("```").expect("it ends").0
}

/// What stands between these in a document.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("there is {before}"));
    rest.split_once(after).unwrap_or_else(|| panic!("there is {after}")).0
}

/// A dispatcher with a ledger and this target alone, which the environment has variables for.
async fn dispatcher_to(world: &World, target: &str, variables: &[(&str, &str)]) -> Dispatcher {
    let config = world.config(&format!("{}updates.partitions = 2\n", world.ledger()));
    let (common, _) = config.split_once("[[target]]").expect("it has one");
    let path = world.write_config(&format!("{common}{target}"));
    let mut command = lanekeeper_command();
    command.arg("run").arg("--config").arg(path).envs(variables.iter().copied());
    let dispatcher = Dispatcher::start_command(command);
    dispatcher.ready().await;
    dispatcher
}

/// Updates for a target of a page in docs/connecting, which takes types of its own.
fn updates_to(target: &str, records: usize, each: usize) -> impl Iterator<Item = Value> {
    let update_type = format!("to-{target}.record.updated");
    updates(records, each).map(move |mut update| {
        update["type"] = Value::from(update_type.as_str());
        update
    })
}

/// reqwest has this only with serde.
trait WithJson {
    fn json(self, body: &Value) -> Self;
}

impl WithJson for RequestBuilder {
    fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

/// Status and body; and that a problem says what it is.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("the door answers");
    checked(response).await
}

async fn checked(response: Response) -> (StatusCode, Value) {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.expect("the answer is whole");
    let body: Value = serde_json::from_slice(&body).expect("every answer is JSON");
    if !status.is_success() {
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(body["status"], status.as_u16());
        let again = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers.contains_key("retry-after"), again, "{body}");
    }
    (status, body)
}

/// Waits until a metric of a door has this value.
async fn metric_is(door: &Ingest, name: &str, expected: f64) {
    until(&format!("{name} = {expected}"), || async {
        let value = door.process.metric(name).await;
        if (value - expected).abs() < 0.5 { Ok(()) } else { Err(value.to_string()) }
    })
    .await;
}
