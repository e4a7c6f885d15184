//! `http_version`: without TLS, HTTP/2 is spoken because the config says so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lanekeeper::http::{Attempt, SendGuard, Target};
use lanekeeper_core::outcome::Outcome;
use tokio::net::TcpListener;

use crate::proxy_server::ConnectProxy;
use crate::server::{Server, answer};
use crate::{attempt, attempt_of, target_at, targets, update};

type SeenRequests = Arc<Mutex<Vec<(Version, String)>>>;

/// A server that speaks HTTP/2 alone, without TLS, and remembers versions and paths.
async fn http2_server() -> (SocketAddr, SeenRequests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), SeenRequests::default());
    let of_server = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&of_server);
            let service = service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                seen.lock().unwrap().push((request.version(), path));
                async { Ok::<_, Infallible>(Response::new(String::new())) }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    (address, seen)
}

async fn check(address: SocketAddr, seen: &SeenRequests, lines: &str) {
    let targets = targets(target_at(address, &format!("http_version = \"2\"\n{lines}"))).unwrap();
    let denied = Attempt { send_guard: SendGuard::new(|| false), ..attempt_of(update("denied")) };
    assert_eq!(targets.attempt(denied).await, Outcome::Withheld);
    for key in ["a", "b"] {
        assert_eq!(targets.attempt(attempt_of(update(key))).await, Outcome::Applied);
    }
    let expected = ["/customers/a", "/customers/b"].map(|path| (Version::HTTP_2, path.to_owned()));
    assert_eq!(*seen.lock().unwrap(), expected, "{lines}");
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_and_the_send_guard_is_asked() {
    let (address, seen) = http2_server().await;
    check(address, &seen, "").await;
}

#[tokio::test]
async fn http_2_is_spoken_through_a_proxy() {
    let (address, seen) = http2_server().await;
    let proxy = ConnectProxy::start(address).await;
    check(address, &seen, &format!("proxy = \"http://{}\"", proxy.address)).await;
    assert!(!proxy.asked().is_empty());
}

#[tokio::test]
async fn a_server_of_http_1_does_not_understand_http_2() {
    let server = Server::answering(answer("400 Bad Request", "", ""), true).await;
    let ended = attempt(target_at(server.address, "http_version = \"2\"")).await;
    assert!(matches!(ended, Outcome::Retryable { .. }), "{ended:?}");
    let ended = attempt(target_at(server.address, "http_version = \"1.1\"")).await;
    assert!(matches!(ended, Outcome::Rejected(_)), "{ended:?}");
}
