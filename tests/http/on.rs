//! What `[[target.on]]` makes of updates of some types.

use lanekeeper::config::IfMatch;
use lanekeeper::http::Target;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::update::Update;

use crate::server::{Server, answer};
use crate::{attempt_of, target_with, targets, update};

/// One API whose methods and URLs depend on what happened to the customer.
fn rows(server: &Server) -> String {
    let api = format!("http://{}", server.address);
    format!(
        r#"
url = "{api}/customers/{{record_key}}"
headers = {{ authorization = "Bearer s3cret", prefer = "return=representation" }}

[[target.on]]
types = ["customer.created"]
method = "POST"
url = "{api}/customers"
headers = {{ Prefer = "return=minimal", x-new = "1" }}

[[target.on]]
types = ["customer.deleted"]
method = "DELETE"

[[target.on]]
types = ["customer.*"]
method = "PATCH"
"#
    )
}

async fn requests_of(types: &[Option<&str>]) -> Vec<String> {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let targets = targets(target_with(&rows(&server))).unwrap();
    let mut requests = Vec::new();
    for update_type in types {
        let update = Update { update_type: update_type.map(ToOwned::to_owned), ..update("k") };
        assert_eq!(targets.attempt(attempt_of(update)).await, Outcome::Applied);
        requests.push(server.next_request().await);
    }
    assert_eq!(server.connections(), 1, "all of them go to one API");
    requests
}

#[tokio::test]
async fn the_first_row_with_the_type_gives_method_and_url() {
    let check = async |update_type: Option<&str>, expected: &str| {
        let request = requests_of(&[update_type]).await.remove(0);
        assert_eq!(request.lines().next().unwrap(), format!("{expected} HTTP/1.1"), "{update_type:?}");
    };
    check(Some("customer.created"), "POST /customers").await;
    check(Some("customer.deleted"), "DELETE /customers/k").await;
    check(Some("customer.updated"), "PATCH /customers/k").await;
    check(Some("customer.created.again"), "PATCH /customers/k").await;
    check(Some("order.paid"), "PUT /customers/k").await;
    check(None, "PUT /customers/k").await;
    requests_of(&[Some("customer.created"), Some("customer.updated"), Some("customer.deleted")]).await;
}

#[tokio::test]
async fn headers_of_a_row_are_added_and_replace_those_of_the_target() {
    let created = requests_of(&[Some("customer.created")]).await.remove(0);
    for line in ["authorization: Bearer s3cret", "prefer: return=minimal", "x-new: 1"] {
        assert!(created.contains(&format!("{line}\r\n")), "{line} in {created}");
    }
    assert_eq!(created.matches("prefer: ").count(), 1, "{created}");
    let deleted = requests_of(&[Some("customer.deleted")]).await.remove(0);
    assert!(deleted.contains("prefer: return=representation\r\n") && !deleted.contains("x-new"), "{deleted}");
}

#[tokio::test]
async fn an_etag_is_fetched_from_the_url_of_the_target() {
    let mut server = Server::answering(answer("200 OK", "etag: \"v1\"\r\n", ""), false).await;
    let mut config = target_with(&rows(&server));
    config.if_match = IfMatch::Auto;
    let update = Update { update_type: Some("customer.created".into()), ..update("k") };
    assert_eq!(targets(config).unwrap().attempt(attempt_of(update)).await, Outcome::Applied);
    assert!(server.next_request().await.starts_with("GET /customers/k HTTP/1.1\r\n"));
    let request = server.next_request().await;
    assert!(request.starts_with("POST /customers HTTP/1.1\r\n") && request.contains("if-match: \"v1\"\r\n"));
}
