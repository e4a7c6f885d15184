//! Fetches the token of one target, for all of its attempts at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::super::SendGuard;
use super::super::answer;
use super::super::connect::Connector;
use super::super::deadline::{Deadline, TimeUp};
use super::super::exchange::exchange;
use super::super::judge::{BodyEnd, Bounds};
use super::super::renewed_client::RenewedClient;
use super::token_answer::{self, NewToken};
use super::token_cache::{LogEvent, Refusal, Step, TOO_SOON, Token, TokenCache};
use super::token_request::TokenRequest;
use super::{Renewal, no_credential};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::secret::MASK;

/// From the first byte of a request to the end of its answer. Attempts wait for no longer than their own `connect_timeout`; a
/// slower server has its token ready for the next ones.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A longer answer has no token that can be sent.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Connections to the token server are not used for longer: a new one looks up the name again.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// What is shorter is not looked for in texts of the server.
const SECRET_BYTES_MIN: usize = 4;

/// The token of one target, and how it is fetched.
#[derive(Debug)]
pub(in crate::http) struct Tokens {
    /// Name of the target.
    target: String,
    request: TokenRequest,
    client: RenewedClient,
    connect_timeout: Duration,
    shared: Arc<SharedCache>,
}

#[derive(Debug, Default)]
struct SharedCache {
    cache: Mutex<TokenCache>,
    /// Changes when a fetch ends.
    ended: watch::Sender<()>,
}

impl SharedCache {
    fn cache(&self) -> MutexGuard<'_, TokenCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    /// `before`: the one whose token is used on.
    pub(super) fn new(
        target: &str,
        request: TokenRequest,
        connector: Connector,
        before: Option<&Self>,
    ) -> Self {
        Self {
            target: target.to_owned(),
            request,
            connect_timeout: connector.connect_timeout(),
            client: RenewedClient::new(connector, CONNECTION_AGE_MAX),
            shared: before.map(|before| Arc::clone(&before.shared)).unwrap_or_default(),
        }
    }

    /// The token, if there is one that is good. Begins a fetch if it is to be renewed.
    pub(super) fn at_hand(self: &Arc<Self>) -> Option<Token> {
        let mut cache = self.shared.cache();
        if !cache.has_good(Instant::now()) {
            return None;
        }
        match cache.next_step(Instant::now()) {
            Step::Use(token) => Some(token),
            Step::UseAndFetch(token) => {
                self.begin_fetch();
                Some(token)
            }
            Step::Fetch | Step::Wait | Step::Fail(_) => None,
        }
    }

    /// Waits for a token.
    pub(super) async fn wait(self: &Arc<Self>, deadline: &mut Deadline) -> Result<Token, Outcome> {
        loop {
            let mut ended = {
                let mut cache = self.shared.cache();
                match cache.next_step(Instant::now()) {
                    Step::Use(token) => return Ok(token),
                    Step::UseAndFetch(token) => {
                        self.begin_fetch();
                        return Ok(token);
                    }
                    Step::Fetch => self.begin_fetch(),
                    Step::Wait => {}
                    Step::Fail(why) => return Err(no_credential(why)),
                }
                // Subscribed under the lock, so that no end is missed.
                self.shared.ended.subscribe()
            };
            match deadline.wait_for_credential(ended.changed()).await {
                Ok(_) => {}
                Err(TimeUp) => return Err(no_credential(self.fault("no token yet within connect_timeout"))),
            }
        }
    }

    /// The target has refused this token: there may be another one.
    pub(super) async fn renew(self: &Arc<Self>, refused: &Token, deadline: &mut Deadline) -> Renewal {
        let refusal = self.shared.cache().refused(refused, Instant::now());
        match refusal {
            Refusal::Replaced => Renewal::Renewed,
            Refusal::TooSoon => Renewal::Failed(no_credential(TOO_SOON.to_owned())),
            Refusal::Dropped => match self.wait(deadline).await {
                Ok(token) if token.header == refused.header => Renewal::Unchanged,
                Ok(_) => Renewal::Renewed,
                Err(outcome) => Renewal::Failed(outcome),
            },
        }
    }

    pub(super) fn accepted(&self, token: &Token) {
        self.shared.cache().accepted(token);
    }

    /// The caller has noted in the cache that a fetch is under way.
    fn begin_fetch(self: &Arc<Self>) {
        let tokens = Arc::clone(self);
        tokio::spawn(async move {
            let began = Instant::now();
            let ended = tokens.fetch().await.map_err(|why| tokens.fault(&why));
            let fault = ended.as_ref().err().cloned();
            let event = tokens.shared.cache().fetched(began, Instant::now(), ended);
            tokens.shared.ended.send_replace(());
            let target_name = &tokens.target;
            match (event, fault) {
                (LogEvent::FailsWhileGood, Some(fault)) => {
                    warn!(
                        target_name,
                        fault,
                        "the token cannot be renewed, using the old one while it is good and trying again"
                    );
                }
                (LogEvent::WorksAgain, _) => info!(target_name, "the token server gives tokens again"),
                (LogEvent::None | LogEvent::FailsWhileGood, _) => {}
            }
        });
    }

    /// Asks for a token.
    async fn fetch(&self) -> Result<NewToken, String> {
        let prepared = self.request.prepare(SystemTime::now())?;
        let mut deadline = Deadline::new(self.connect_timeout, ANSWER_TIMEOUT);
        let exchanged = exchange(&self.client, prepared.request, &SendGuard::always(), &mut deadline).await;
        let mut response = exchanged.map_err(|outcome| in_words(&outcome))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let bounds = Bounds { kept_max: ANSWER_BYTES_MAX, read_max: ANSWER_BYTES_MAX };
        match answer::read(response.body_mut(), &mut body, bounds, false, &mut deadline).await {
            BodyEnd::Complete => {}
            BodyEnd::Longer => {
                return Err(format!("status {status}: the answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
            BodyEnd::Broken(outcome) => {
                return Err(format!("status {status}: the answer breaks off: {}", in_words(&outcome)));
            }
        }
        token_answer::parse(status, &body).map_err(|why| without(&prepared.secrets, why))
    }

    fn fault(&self, why: &str) -> String {
        format!("token server {}: {why}", self.request.url())
    }
}

/// Why there was no answer.
fn in_words(outcome: &Outcome) -> String {
    match outcome.failure() {
        // The words are those for targets.
        Some(failure) if !failure.detail.is_empty() => failure.detail.replace("the target", "the server"),
        _ => "no answer in time".to_owned(),
    }
}

/// A server may repeat in its description what it was sent.
fn without(secrets: &[String], text: String) -> String {
    let long = secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN);
    long.fold(text, |text, secret| text.replace(secret.as_str(), MASK))
}
