//! A target behind an HTTP proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper::config::TargetConfig;
use lanekeeper::http::client::{HttpTargets, Names};
use lanekeeper::http::{Attempt, SendGuard, Target};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::template::UrlTemplate;
use tokio::net::TcpListener;

use crate::proxy_server::ConnectProxy;
use crate::server::{Server, answer};
use crate::{TEST_TIMEOUT, attempt_of, target_at, targets, update};

/// A target at a name that nobody here can resolve, behind this proxy.
fn behind(proxy: &str, lines: &str) -> TargetConfig {
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut config = target_at(nowhere, &format!("proxy = \"{proxy}\"\n{lines}"));
    config.url = UrlTemplate::parse("http://crm.invalid/customers/{record_key}").unwrap();
    config
}

async fn attempt(config: TargetConfig) -> Outcome {
    crate::attempt(config).await
}

#[tokio::test]
async fn updates_go_through_the_proxy_and_it_learns_host_and_port_alone() {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let proxy = ConnectProxy::start(server.address).await;
    let url = format!("http://app:s3cr%40t@{}", proxy.address);
    let targets = targets(behind(&url, "")).unwrap();
    for _ in 0..3 {
        assert_eq!(targets.attempt(attempt_of(update("k"))).await, Outcome::Applied);
        let request = server.next_request().await;
        assert!(request.starts_with("PUT /customers/k HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("\r\nhost: crm.invalid\r\n"), "{request}");
        assert!(!request.to_lowercase().contains("proxy-"), "{request}");
    }
    let [asked] = &proxy.asked()[..] else { panic!("{:?}", proxy.asked()) };
    assert!(asked.starts_with("CONNECT crm.invalid:80 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("host: crm.invalid:80\r\n"), "{asked}");
    assert!(asked.contains("proxy-authorization: Basic YXBwOnMzY3JAdA==\r\n"), "{asked}");
    assert!(!asked.contains("Bearer") && !asked.contains("customers"), "{asked}");
}

#[tokio::test]
async fn what_a_proxy_answers_is_not_the_answer_of_the_target() {
    let server = Server::answering(answer("204 No Content", "", ""), false).await;
    let check = async |said: &'static str, refused: bool, words: &str| {
        let proxy = ConnectProxy::answering(server.address, said).await;
        let ended = attempt(behind(&format!("http://app:s3cret@{}", proxy.address), "")).await;
        let (Failure { cause, detail }, is_refused) = match ended {
            Outcome::Refused(failure) => (failure, true),
            Outcome::Retryable { failure, .. } => (failure, false),
            other => panic!("{said:?}: {other:?}"),
        };
        assert_eq!((cause, is_refused), (Cause::Connection, refused), "{said:?}: {detail}");
        let expected = format!("the proxy {} ", proxy.address);
        assert!(detail.contains(&expected) && detail.contains(words), "{said:?}: {detail}");
        assert!(!detail.contains("s3cret"), "{detail}");
    };
    let authenticate = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 2\r\n\r\nno";
    check(authenticate, true, "it answered 407: it wants other user and password").await;
    check("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", true, "it answered 403").await;
    check("HTTP/1.1 302 Found\r\nlocation: http://h/\r\n\r\n", true, "it answered 302").await;
    check("HTTP/1.1 502 Bad Gateway\r\n\r\n", false, "it cannot reach the target").await;
    check("HTTP/1.1 503 Service Unavailable\r\n\r\n", false, "does not connect us to crm.invalid:80").await;
    check("SSH-2.0-OpenSSH_9.6\r\n", false, "does not answer CONNECT as an HTTP proxy does").await;
    check("", false, "does not answer CONNECT as an HTTP proxy does").await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_is_away_or_silent_is_named() {
    let refusing = attempt(behind("http://127.0.0.1:1", "")).await;
    let Outcome::Retryable { failure, .. } = refusing else { panic!("{refusing:?}") };
    assert_eq!(failure.detail, "the proxy 127.0.0.1:1 cannot be reached: connection refused by 127.0.0.1:1");
    // The kernel accepts; nobody reads the request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = behind(&format!("http://{}", listener.local_addr().unwrap()), "");
    config.connect_timeout = Duration::from_millis(400);
    let since = Instant::now();
    let silent = attempt(config).await;
    let Outcome::Retryable { failure, .. } = silent else { panic!("{silent:?}") };
    assert_eq!(failure.cause, Cause::Timeout);
    assert!(failure.detail.contains("did not answer CONNECT within 400ms"), "{failure:?}");
    assert!(since.elapsed() < TEST_TIMEOUT / 4, "{:?}", since.elapsed());
}

#[tokio::test]
async fn the_next_address_of_a_proxy_is_tried() {
    let server = Server::answering(answer("204 No Content", "", ""), false).await;
    let proxy = ConnectProxy::start(server.address).await;
    let port = proxy.address.port();
    // Nobody listens at the first one. The port of `proxy` replaces theirs.
    let addresses = [SocketAddr::from(([127, 0, 0, 2], 0)), ([127, 0, 0, 1], 0).into()];
    let names: Names = Arc::new(move |name: &str| (name == "proxy.example").then(|| addresses.to_vec()));
    let config = behind(&format!("http://proxy.example:{port}"), "");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let targets = HttpTargets::with_names(&[config], &names).unwrap();
    assert_eq!(targets.attempt(attempt_of(update("k"))).await, Outcome::Applied);
}

#[tokio::test]
async fn the_send_guard_is_asked_behind_a_proxy_too() {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let proxy = ConnectProxy::start(server.address).await;
    let targets = targets(behind(&format!("http://{}", proxy.address), "")).unwrap();
    let denied = Attempt { send_guard: SendGuard::new(|| false), ..attempt_of(update("k")) };
    assert_eq!(targets.attempt(denied).await, Outcome::Withheld);
    assert_eq!(proxy.asked().len(), 1, "the connection was made");
    assert_eq!(targets.attempt(attempt_of(update("other"))).await, Outcome::Applied);
    assert!(server.next_request().await.starts_with("PUT /customers/other "), "the other one was not sent");
}
