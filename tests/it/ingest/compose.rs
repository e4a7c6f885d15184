//! The door of docker-compose.yml, as its config, its first request and its health check stand there: only hosts, ports and
//! the exchange are replaced.

use std::process::Command;

use reqwest::StatusCode;
use serde_json::Value;

use super::{Ingest, WithJson as _, answer, between};
use crate::harness::{World, assert_flawless, http};

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const CONFIG: &str = include_str!("../../../config/compose-door.toml");

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_that_the_compose_file_shows_is_accepted() {
    let world = World::new("ingest-compose").await;
    let dispatcher = world.dispatcher("").await;
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

    let admin = door.process.admin().await;
    assert!(is_healthy(&admin), "the door is connected to the broker");
    assert!(is_healthy(&dispatcher.admin().await), "the dispatcher is ready");
    drop(door);
    assert!(!is_healthy(&admin), "nobody answers");
}

/// What the health check of the services says of a process with this `admin.listen`.
fn is_healthy(admin: &str) -> bool {
    let (_, port) = admin.rsplit_once(':').expect("it has a port");
    let test = between(COMPOSE, "test: [\"CMD\", \"bash\", \"-c\", ", "]\n");
    let script: String = serde_json::from_str(test).expect("it is a string, as in JSON");
    // Compose takes two dollars for one.
    let script = script.replace("$$", "$");
    let status = Command::new("bash").args(["-c", &script.replace("/9419", &format!("/{port}"))]).output();
    status.expect("there is bash").status.success()
}
