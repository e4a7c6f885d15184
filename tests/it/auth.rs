//! A target that takes short-lived tokens only, with a token server that fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use lanekeeper_lab::receiver::ReceiverSettings;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::{Broker, World, assert_flawless, http, pace, updates};

/// How long a token is good.
const LIFE: Duration = Duration::from_secs(2);
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What tokens there are, for the server that gives them and the gateway that looks at them.
struct Tokens {
    given: AtomicUsize,
    good_until: Mutex<BTreeMap<String, Instant>>,
    refused: AtomicUsize,
    /// Behind the gateway.
    receiver: String,
}

impl Tokens {
    fn is_good(&self, token: &str) -> bool {
        let until = self.good_until.lock().unwrap().get(token).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    fn revoke_all(&self) {
        self.good_until.lock().unwrap().clear();
    }
}

async fn give(State(tokens): State<Arc<Tokens>>) -> String {
    let token = format!("token-{}", tokens.given.fetch_add(1, Ordering::SeqCst) + 1);
    tokens.good_until.lock().unwrap().insert(token.clone(), Instant::now() + LIFE);
    format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{}}}"#, LIFE.as_secs())
}

/// Passes requests with a good token on to the receiver.
async fn pass(State(tokens): State<Arc<Tokens>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let token = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    if !token.is_some_and(|token| tokens.is_good(token)) {
        tokens.refused.fetch_add(1, Ordering::SeqCst);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body: Bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await.expect("bodies are small");
    let mut headers = head.headers;
    headers.remove(header::HOST);
    let url = format!("{}{}", tokens.receiver, head.uri);
    let answer = http().request(head.method, url).headers(headers).body(body).send().await;
    let answer = answer.expect("the receiver answers");
    (answer.status(), answer.bytes().await.expect("the answer has an end")).into_response()
}

async fn serve(address: &str, router: Router) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.expect("the port is free");
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    (address, serving)
}

/// Tokens expire all the time, all are revoked once, and their server is away for longer than a token lives.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_and_a_token_server_that_is_away_park_nothing_and_keep_order() {
    const RECORDS: usize = 20;
    let mut world = World::on(Broker::shared(), "tokens", ReceiverSettings::default()).await;
    let tokens = Arc::new(Tokens {
        given: AtomicUsize::new(0),
        good_until: Mutex::default(),
        refused: AtomicUsize::new(0),
        receiver: world.target.clone(),
    });
    let token_server = || Router::new().fallback(give).with_state(Arc::clone(&tokens));
    let (address, serving) = serve("127.0.0.1:0", token_server()).await;
    let gateway = Router::new().fallback(pass).with_state(Arc::clone(&tokens));
    world.target = format!("http://{}", serve("127.0.0.1:0", gateway).await.0);

    // An update with a budget that any failure of the target would use up.
    let budget = "retry.delay_initial = \"100ms\"\nretry.delay_max = \"500ms\"\nretry.elapsed_max = \"1s\"\n\
        retry.attempts_max = 1\nupdates.partitions = 4\n";
    let auth = format!(
        "[target.auth.oauth2]\ntoken_url = \"http://{address}/token\"\nclient_id = \"lanekeeper\"\n\
         client_secret = \"s3cret\"\n"
    );
    let mut dispatcher = world.start(&(world.config(&(world.ledger() + budget)) + &auth));
    dispatcher.ready().await;

    let publish = async |from: usize, to: usize| {
        world.publish(updates(RECORDS, to).skip(RECORDS * from)).await;
    };
    for round in 0..4 {
        publish(10 * round, 10 * (round + 1)).await;
        world.applied((RECORDS * 10 * (round + 1)) as u64).await;
        pace(LIFE / 2).await;
    }
    assert!(tokens.given.load(Ordering::SeqCst) > 1, "tokens have expired");

    tokens.revoke_all();
    publish(40, 60).await;
    world.applied((RECORDS * 60) as u64).await;

    serving.abort();
    let _ = serving.await;
    tokens.revoke_all();
    publish(60, 80).await;
    dispatcher.logged("no token for the requests of a target").await;
    dispatcher.logged("connection refused by").await;
    dispatcher.logged("target shut").await;
    pace(2 * LIFE).await;
    assert!(world.receiver.report(0).counts.updates < (RECORDS * 80) as u64);
    serve(&address.to_string(), token_server()).await;
    let report = world.applied((RECORDS * 80) as u64).await;

    assert_flawless(&report, (RECORDS * 80) as u64);
    assert!(dispatcher.log().iter().all(|line| !line.contains("s3cret") && !line.contains("token-")));
    assert!(tokens.refused.load(Ordering::SeqCst) > 0, "a revoked token was refused");
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
}
