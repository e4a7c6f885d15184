//! A token server and a target that takes its tokens.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lanekeeper::config::{Environment, Purpose, TargetConfig};
use lanekeeper::http::Target;
use lanekeeper::http::client::HttpTargets;
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use tokio::sync::Semaphore;

use crate::server::{Server, answer};
use crate::{attempt_of, targets, update};

/// Gives the tokens t1, t2, … and takes those that are good.
pub struct World {
    pub token_server: Server,
    pub target: Server,
    pub shared: Arc<ServerState>,
}

pub struct ServerState {
    /// Answers that the token server may give: it waits for a permit before each.
    pub gate: Semaphore,
    /// Tokens so far.
    pub given: AtomicUsize,
    /// What the target takes.
    pub good: Mutex<BTreeSet<String>>,
    /// What the target has seen: the token and what it answered.
    pub seen: Mutex<Vec<(String, u16)>>,
    /// Requests that the target waits for before it answers the first.
    pub together: tokio::sync::Barrier,
}

/// How a world behaves.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// `expires_in`; 0: it is not given.
    pub life: u64,
    /// The target takes tokens from this one on.
    pub good_from: usize,
    /// The token server always gives t1.
    pub always_the_same: bool,
    /// Requests that the target answers together.
    pub together: usize,
    /// Answers that the token server gives at once.
    pub open: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { life: 3600, good_from: 1, always_the_same: false, together: 1, open: 1_000_000 }
    }
}

impl World {
    pub async fn new(behaviour: Behaviour) -> Self {
        let shared = Arc::new(ServerState {
            gate: Semaphore::new(behaviour.open),
            given: AtomicUsize::new(0),
            good: Mutex::default(),
            seen: Mutex::default(),
            together: tokio::sync::Barrier::new(behaviour.together),
        });
        let of_server = Arc::clone(&shared);
        let token_server = Server::start(move |mut connection| {
            let shared = Arc::clone(&of_server);
            async move {
                while connection.request().await {
                    shared.gate.acquire().await.unwrap().forget();
                    let body = shared.next_token(behaviour);
                    connection.send(answer("200 OK", "", &body).as_bytes()).await;
                }
            }
        });
        let of_target = Arc::clone(&shared);
        let target = Server::start(move |mut connection| {
            let shared = Arc::clone(&of_target);
            async move {
                while let Some(request) = connection.next_request().await {
                    shared.together.wait().await;
                    connection.send(shared.answer_to(&request).as_bytes()).await;
                }
            }
        });
        Self { token_server: token_server.await, target: target.await, shared }
    }

    pub fn config(&self, extra: &str) -> TargetConfig {
        config(self.target.address, self.token_server.address, extra)
    }

    pub fn targets(&self) -> HttpTargets {
        targets(self.config("")).unwrap()
    }

    pub fn given(&self) -> usize {
        self.shared.given.load(Ordering::SeqCst)
    }

    /// The target takes this one no longer.
    pub fn revoke(&self, token: &str) {
        assert!(self.shared.good.lock().unwrap().remove(token), "{token} was good");
    }

    /// Tokens and answers since the last call.
    pub fn seen(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }
}

impl ServerState {
    fn next_token(&self, behaviour: Behaviour) -> String {
        let number = self.given.fetch_add(1, Ordering::SeqCst) + 1;
        let token = if behaviour.always_the_same { "t1".to_owned() } else { format!("t{number}") };
        if number >= behaviour.good_from {
            self.good.lock().unwrap().insert(token.clone());
        }
        match behaviour.life {
            0 => format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#),
            life => format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{life}}}"#),
        }
    }

    fn answer_to(&self, request: &str) -> String {
        let token = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
        let token = token.unwrap_or("-").to_owned();
        let status = if self.good.lock().unwrap().contains(&token) { 200 } else { 401 };
        self.seen.lock().unwrap().push((token, status));
        match status {
            200 => answer("200 OK", "etag: \"v1\"\r\n", ""),
            _ => answer("401 Unauthorized", "", "who are you?"),
        }
    }
}

/// A target with a token server at this address.
pub fn config(target: SocketAddr, token_server: SocketAddr, extra: &str) -> TargetConfig {
    let text = format!(
        "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"http://{target}/customers/{{record_key}}\"\n\
         timeout = \"20s\"\n{}{extra}\n[target.auth.oauth2]\ntoken_url = \"http://{token_server}/token?key=qu3ry\"\n\
         client_id = \"lanekeeper\"\nclient_secret = \"s3cret\"\n",
        if extra.contains("connect_timeout") { "" } else { "connect_timeout = \"20s\"\n" }
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let loaded = lanekeeper::config::load(Some(file.path()), &Environment::default(), Purpose::Dispatch);
    loaded.unwrap_or_else(|faults| panic!("{faults}")).config.targets.remove(0)
}

pub async fn attempt(targets: &HttpTargets) -> Outcome {
    let attempt = targets.attempt(attempt_of(update("k")));
    tokio::time::timeout(crate::TEST_TIMEOUT * 3, attempt).await.expect("an attempt ends within its times")
}

/// So many at once.
pub async fn attempts(targets: &Arc<HttpTargets>, count: usize) -> Vec<Outcome> {
    let attempts: Vec<_> = (0..count)
        .map(|_| {
            let targets = Arc::clone(targets);
            tokio::spawn(async move { attempt(&targets).await })
        })
        .collect();
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.unwrap());
    }
    outcomes
}

/// The detail of an outcome that says that there is no credential.
pub fn why_without(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused(Failure { cause: Cause::NoCredential, detail }) => detail,
        other => panic!("{other:?}"),
    }
}
