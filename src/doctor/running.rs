//! Asks the process of ours that listens at `admin.listen` on this host what it is, and what its config file would change.

#![expect(clippy::disallowed_types, reason = "it asks a process of ours on this host")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, redirect};

use crate::admin::ConfigAnswer;
use crate::config::AdminConfig;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// It can be another program that answers.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It starts or stops.
    #[error(
        "it takes in changes once it has reached its broker, and it is starting or stopping (see /readyz), or its files cannot \
         be read in time"
    )]
    NotReady,
    /// Nothing of ours answers, or not to us.
    #[error("{0}")]
    NoAnswer(String),
}

/// Where a client on this host reaches what listens there.
pub fn of_this_host(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Asks at this address, with TLS if `admin` has it.
///
/// # Errors
/// There is no answer of a process of ours.
pub async fn ask(admin: &AdminConfig, address: SocketAddr) -> Result<ConfigAnswer, AskError> {
    let no_answer = |why: String| AskError::NoAnswer(why);
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(ANSWER_TIMEOUT)
        // Its certificate has the name that others call it by. We call it on this host, by address, and send no secret.
        .tls_danger_accept_invalid_certs(true)
        .build();
    let client = client.map_err(|error| no_answer(error.to_string()))?;
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let answer = client.get(format!("{scheme}://{address}/config/changes")).send().await;
    let answer = answer.map_err(|error| no_answer(lanekeeper_core::error::error_chain(&error)))?;
    match answer.status() {
        StatusCode::OK => {
            let body = body(answer).await.map_err(no_answer)?;
            serde_json::from_slice(&body)
                .map_err(|error| no_answer(format!("its answer is not understood ({error})")))
        }
        StatusCode::NOT_FOUND => Err(no_answer(
            "it answers 404: only clients of its own host get the answer, and programs of before have none"
                .to_owned(),
        )),
        StatusCode::SERVICE_UNAVAILABLE => Err(AskError::NotReady),
        status => Err(no_answer(format!("it answers {status}"))),
    }
}

async fn body(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
