//! `/inquiry`: questions of other processes and of commands, when the broker carries none. `inspect/admin_ports.rs` asks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Parts;
use super::connections::Client;
use super::guard;
use super::problem::{AdminProblem, ProblemCode};
use crate::inspect::question::InspectionQuery;
use crate::inspect::report::Answer;
use crate::inspect::signature::{InquiryKey, SIGNATURE};

/// Questions that are answered at a time. Further ones wait: a driver is not to spend its time on questions.
const AT_A_TIME: usize = 1;
/// How long they wait.
const TURN_TIMEOUT: Duration = Duration::from_millis(300);

/// Answers a question.
pub type Answerer = Arc<dyn Fn(InspectionQuery) -> BoxFuture<'static, Answer> + Send + Sync>;

/// What answers questions: another one after each change of the config; none before partitions are attached. Cheap to clone.
#[derive(Clone)]
pub struct AnswererSlot(Arc<SlotState>);

struct SlotState {
    turns: Semaphore,
    answerer: Mutex<Option<(String, Answerer)>>,
}

impl Default for AnswererSlot {
    fn default() -> Self {
        Self(Arc::new(SlotState { turns: Semaphore::new(AT_A_TIME), answerer: Mutex::default() }))
    }
}

impl fmt::Debug for AnswererSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswererSlot")
    }
}

impl AnswererSlot {
    /// From now on this answers. `url`: where others reach the port.
    pub fn set(&self, url: String, answerer: Answerer) {
        *self.0.answerer.lock().unwrap_or_else(PoisonError::into_inner) = Some((url, answerer));
    }

    fn get(&self) -> Result<(String, Answerer), AdminProblem> {
        let answerer = self.0.answerer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        answerer.ok_or_else(|| {
            AdminProblem::new(
                ProblemCode::Starting,
                "this process has not reached its ledger and its broker yet",
            )
        })
    }
}

/// `POST /inquiry`: the question as it stands in the stream of members. If there is a read token, it is signed, and so is the
/// answer.
pub(super) async fn answer(State(parts): State<Parts>, mut request: Request) -> Response {
    let client = request.extensions().get::<Client>().expect("the server sets it").clone();
    let answered = async {
        if parts.access.is_closed() {
            return Err(guard::closed());
        }
        let host = guard::host(request.headers())?.to_owned();
        guard::no_foreign_page(request.headers(), &host, true)?;
        if parts.access.without_token().is_some() && !guard::is_of_this_host(&host) {
            return Err(guard::not_of_this_host());
        }
        let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok());
        let signature = signature.unwrap_or_default().to_owned();
        let question = guard::body(&mut request, "application/json").await?;
        let (url, answerer) = parts.answerer.get()?;
        let key = parts.config.borrow().admin.read_token.as_ref().map(InquiryKey::new);
        if let Some(key) = &key {
            let is_right = key.is_question(&url, &question, &signature, SystemTime::now());
            guard::check_signature(&parts.access, &client, is_right)?;
        }
        let question: InspectionQuery = guard::JsonBody(question).parse()?;
        let turn = timeout(TURN_TIMEOUT, parts.answerer.0.turns.acquire()).await;
        let _turn = turn.map_err(|_| {
            AdminProblem::new(ProblemCode::TooManyStreams, "too many processes ask at a time").retry_after(1)
        })?;
        let answer = serde_json::to_vec(&answerer(question).await).expect("an answer is plain data");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            let signature = HeaderValue::try_from(key.sign_answer(&signature, &answer));
            headers.insert(SIGNATURE, signature.expect("it is ASCII"));
        }
        Ok((headers, answer).into_response())
    };
    guard::with_security(answered.await.unwrap_or_else(AdminProblem::into_response))
}
