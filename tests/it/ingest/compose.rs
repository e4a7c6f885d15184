//! The door of docker-compose.yml, as its config and its first request stand there: only hosts, ports and the exchange are
//! replaced.

use reqwest::StatusCode;
use serde_json::Value;

use super::{Ingest, WithJson as _, answer};
use crate::harness::{World, assert_flawless, http};

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const CONFIG: &str = include_str!("../../../config/compose-door.toml");

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("there is {before}"));
    rest.split_once(after).unwrap_or_else(|| panic!("there is {after}")).0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_that_the_compose_file_shows_is_accepted() {
    let world = World::new("ingest-compose").await;
    let _dispatcher = world.dispatcher("").await;
    let token = between(COMPOSE, "DOOR_TOKEN: ${DOOR_TOKEN:-", "}");
    let url = between(CONFIG, "url = \"", "\"");
    let config = CONFIG
        .replace(url, world.broker.url())
        .replace("0.0.0.0:9419", "127.0.0.1:0")
        .replace("0.0.0.0:9480", "127.0.0.1:0")
        .replace("${DOOR_TOKEN}", token);
    let config = format!("updates.exchange = \"{}\"\n{config}", world.exchange);
    let door = Ingest::start_with(&world, &config).await;
    door.process.ready().await;
    let path = between(COMPOSE, "curl -X PUT http://127.0.0.1:9480", " ");
    let body: Value = serde_json::from_str(between(COMPOSE, "-d '", "'")).expect("it is JSON");
    let shown = between(COMPOSE, "Authorization: Bearer ", "'");
    let request = http().put(format!("http://{}{path}", door.address)).bearer_auth(shown).json(&body);
    let (status, answered) = answer(request).await;
    assert_eq!((status, &answered["state"]), (StatusCode::ACCEPTED, &Value::from("accepted")), "{answered}");
    assert_flawless(&world.applied(1).await, 1);
}
