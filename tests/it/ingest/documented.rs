//! The quick start of docs/ingest.md, as its config and its first request stand there: only ports, the address of the broker and
//! the exchange are replaced.

use reqwest::StatusCode;
use serde_json::Value;

use super::{Ingest, TOKEN, WithJson as _, answer, between, config_in};
use crate::harness::{World, http};

const PAGE: &str = include_str!("../../../docs/ingest.md");

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_of_the_quick_start_is_answered_as_it_says() {
    let world = World::new("ingest-quick-start").await;
    let _dispatcher = world.dispatcher("").await;
    let config = config_in(PAGE, "Quick start")
        .replace("127.0.0.1:9421", "127.0.0.1:0")
        .replace("${CRM_DOOR_TOKEN}", TOKEN);
    let (url, exchange) = (world.broker.url(), &world.exchange);
    let config = format!(
        "broker.url = \"{url}\"\nupdates.exchange = \"{exchange}\"\ningest.listen = \"127.0.0.1:0\"\n{config}"
    );
    let door = Ingest::start_with(&world, &config).await;
    door.process.ready().await;
    let path = between(PAGE, "curl -X PUT 'http://127.0.0.1:9480", "'");
    let body: Value = serde_json::from_str(between(PAGE, " -d '", "'")).expect("it is JSON");
    let request = http().put(format!("http://{}{path}", door.address)).bearer_auth(TOKEN).json(&body);
    let shown: Value = serde_json::from_str(between(PAGE, "```json\n", "```")).expect("it is JSON");
    assert_eq!(answer(request).await, (StatusCode::ACCEPTED, shown));
    assert_eq!(world.applied(1).await.counts.updates, 1);
}
