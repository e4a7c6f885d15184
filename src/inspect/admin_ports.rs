//! Asks processes by their admin ports, when the broker carries no questions: during an alarm it takes no publishes.

#![expect(clippy::disallowed_types, reason = "this is the HTTP client of the admin ports")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use futures_util::future::join_all;
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::report::Answer;
use super::signature::{InquiryKey, SIGNATURE};
use crate::config::AdminConfig;
use lanekeeper_broker::SeenProcess;
use lanekeeper_core::error::error_chain;

/// The path that questions are sent to.
pub const PATH: &str = "/inquiry";
/// As many ports are asked at most.
const ASKED_MAX: usize = 64;
/// Of one answer, and of all answers to a question together.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of an answer that says why there is none.
const PROBLEM_BYTES_MAX: usize = 16 * 1024;

/// What came of it.
#[derive(Debug, Default)]
pub struct AskedByPorts {
    /// The answers, by the process that each is of.
    pub answers: BTreeMap<String, Vec<u8>>,
    /// Why there is none of a process.
    pub faults: BTreeMap<String, String>,
}

/// What one port said.
struct PortAnswer {
    process: String,
    instance: String,
    body: Vec<u8>,
}

/// Asks all of them at once, and the process of this config, which may have started after the broker took its last note.
pub async fn ask_by_ports(
    config: &AdminConfig,
    seen: &BTreeMap<String, SeenProcess>,
    question: &str,
    until: Instant,
) -> AskedByPorts {
    let mut asked = AskedByPorts::default();
    let urls = urls(config, seen);
    let client = match client(config, &urls) {
        Ok(client) => client,
        Err(fault) => {
            asked.faults = seen.keys().map(|process| (process.clone(), error_chain(&fault))).collect();
            return asked;
        }
    };
    let (key, bytes) = (config.read_token.as_ref().map(InquiryKey::new), AtomicUsize::new(0));
    let asking = urls.into_iter().map(|url| {
        let (client, key, bytes) = (&client, key.as_ref(), &bytes);
        async move {
            let asking = timeout_at(until, ask(client, &url, key, question, bytes));
            let answer = asking.await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            (url, answer)
        }
    });
    let mut by_url = BTreeMap::new();
    for (url, answer) in join_all(asking).await {
        let known = answer.map(|PortAnswer { process, instance, body }| {
            asked.answers.insert(process, body);
            instance
        });
        by_url.insert(url, known);
    }
    for (process, SeenProcess { admin, instance, .. }) in seen {
        if asked.answers.contains_key(process) {
            continue;
        }
        let fault = match admin {
            None => "it has no admin port".to_owned(),
            Some(url) => match by_url.get(url) {
                Some(Err(fault)) => format!("{url}: {fault}"),
                // It has started again since its last note, and the new process has answered.
                Some(Ok(answered)) if answered == instance => continue,
                Some(Ok(answered)) => format!("{url}: the process of {answered} answers there"),
                None => format!("{url} was not asked, since no more than {ASKED_MAX} ports are"),
            },
        };
        asked.faults.insert(process.clone(), fault);
    }
    asked
}

/// Our own port first, then those of owners.
fn urls(config: &AdminConfig, seen: &BTreeMap<String, SeenProcess>) -> Vec<String> {
    let mut by_rank: Vec<&SeenProcess> = seen.values().collect();
    by_rank.sort_by_key(|process| process.owned.is_empty());
    let mut urls: Vec<String> = config.url().into_iter().collect();
    for url in by_rank.into_iter().filter_map(|process| process.admin.as_ref()) {
        if urls.len() < ASKED_MAX && !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    urls
}

fn client(config: &AdminConfig, urls: &[String]) -> reqwest::Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy();
    if !urls.iter().any(|url| url.starts_with("https:")) {
        // A host need not have certificates of authorities for plain HTTP.
        return builder.tls_certs_only([]).build();
    }
    // Processes that run with one config show one certificate, or those of one authority.
    for certificate in config.tls.iter().flat_map(|tls| &tls.chain) {
        builder = builder.add_root_certificate(Certificate::from_der(certificate)?);
    }
    builder.build()
}

async fn ask(
    client: &Client,
    url: &str,
    key: Option<&InquiryKey>,
    question: &str,
    bytes: &AtomicUsize,
) -> Result<PortAnswer, String> {
    let mut request = client
        .post(url.to_owned() + PATH)
        .header("content-type", "application/json")
        .body(question.to_owned());
    let signature = key.map(|key| key.sign_question(url, question.as_bytes(), SystemTime::now()));
    if let Some(signature) = &signature {
        request = request.header(SIGNATURE, signature);
    }
    let answer = request.send().await.map_err(|fault| error_chain(&fault.without_url()))?;
    if answer.status() != StatusCode::OK {
        return Err(problem(answer).await);
    }
    let answer_signature = answer.headers().get(SIGNATURE).and_then(|value| value.to_str().ok());
    let answer_signature = answer_signature.unwrap_or_default().to_owned();
    let body = read(answer, ANSWER_BYTES_MAX, bytes).await?;
    if let Some((key, signature)) = key.zip(signature)
        && !key.is_answer(&signature, &body, &answer_signature)
    {
        return Err("its answer is not signed with our admin.read_token".to_owned());
    }
    let read: Answer =
        serde_json::from_slice(&body).map_err(|fault| format!("its answer is not understood ({fault})"))?;
    Ok(PortAnswer { process: read.process().to_owned(), instance: read.instance().to_owned(), body })
}

/// Why there is no answer, as the port says it.
async fn problem(answer: Response) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    let status = answer.status();
    let body = read(answer, PROBLEM_BYTES_MAX, &AtomicUsize::new(0)).await.unwrap_or_default();
    match serde_json::from_slice(&body) {
        Ok(Problem { detail }) => format!("it answers {}: {detail}", status.as_u16()),
        Err(_) => format!("it answers {status}"),
    }
}

async fn read(mut answer: Response, max: usize, bytes: &AtomicUsize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|fault| error_chain(&fault.without_url()))? {
        if body.len() + part.len() > max {
            return Err(format!("its answer has more than {max} bytes"));
        }
        if bytes.fetch_add(part.len(), Ordering::Relaxed) > ANSWERS_BYTES_MAX {
            return Err(format!("all answers together have more than {ANSWERS_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
