//! Credentials that never change: which header carries them.

use lanekeeper::config::{AuthConfig, Secret};
use lanekeeper::http::Target;
use lanekeeper_core::outcome::Outcome;

use crate::server::{Server, answer};
use crate::{attempt_of, target, targets, update};

async fn check(auth: AuthConfig, name: &str, expected: &str) {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let mut config = target(server.address);
    config.headers.clear();
    config.auth = auth;
    // What the publisher sets does not count.
    let mut update = update("k");
    update.headers = vec![(name.to_owned(), "evil".to_owned())];
    assert_eq!(targets(config).unwrap().attempt(attempt_of(update)).await, Outcome::Applied);
    let request = server.next_request().await;
    let values: Vec<&str> =
        request.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
    assert_eq!(values, [expected], "{request}");
}

#[tokio::test]
async fn each_way_sets_its_header_once() {
    let secret = |text: &str| Secret::new(text);
    check(AuthConfig::Bearer { token: secret("t") }, "authorization", "Bearer t").await;
    // RFC 7617, section 2.1, has the second.
    for (user, password, expected) in [
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123\u{a3}", "Basic dGVzdDoxMjPCow=="),
        ("key", "", "Basic a2V5Og=="),
    ] {
        let auth = AuthConfig::Basic { user: secret(user), password: secret(password) };
        check(auth, "authorization", expected).await;
    }
    let auth = AuthConfig::Header { name: "x-api-key".into(), value: secret("k") };
    check(auth, "x-api-key", "k").await;
}
