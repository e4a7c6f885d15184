//! The HTTP client of one target: its pool of connections, and how long they are used.

#![expect(clippy::disallowed_types, reason = "this is the HTTP client of the targets")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::connect::Connector;
use super::gate::{EarlyAlerts, GatedBody};

/// Idle connections kept per host. It matters only when the load goes down, and is above the number of attempts that a
/// dispatcher usually has in flight (`in_flight_max` × partitions).
const IDLE_PER_HOST_MAX: usize = 1024;
/// We close idle connections before usual servers do (nginx 75 s, AWS load balancers 60 s): an attempt on a connection
/// that the server is just closing fails, and nobody knows whether the update was applied.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP/2: unread bytes of one answer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2: unread bytes of all answers of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2: headers of one answer. For HTTP/1 the client has a bound of its own, about 400 KiB.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// HTTP/1: headers of one answer.
const HEADERS_MAX: usize = 1000;
/// HTTP/2: how often a connection with requests is asked for a sign of life (PING), and how long that may take. Without it,
/// all requests that share a dead connection end with their timeouts, and the next ones go to it too.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The client follows no redirects, knows no proxies of the environment, and sends a request a second time in one case only: if a connection
/// of the pool turns out to be closed before the request was queued at it. Then no byte was written and the check was not
/// asked; it is asked where the request is written.
fn client(connector: Connector) -> Client<Connector, GatedBody> {
    Client::builder(TokioExecutor::new())
        .http2_only(connector.is_http2_only())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // RFC 9112, section 5.2: the lines are joined.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_max_headers(HEADERS_MAX)
        .build(connector)
}

/// A client that is replaced by another one when its connections may be too old: requests go on to a new connection, and look
/// up the name again. Requests on the old ones end as they would have.
#[derive(Debug)]
pub(super) struct RenewedClient {
    connector: Connector,
    age_max: Duration,
    current: Mutex<(Instant, Client<Connector, GatedBody>)>,
}

impl RenewedClient {
    pub(super) fn new(connector: Connector, age_max: Duration) -> Self {
        let current = Mutex::new((Instant::now(), client(connector.clone())));
        Self { connector, age_max, current }
    }

    pub(super) fn early_alerts(&self) -> &EarlyAlerts {
        self.connector.early_alerts()
    }

    pub(super) fn get(&self) -> Client<Connector, GatedBody> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0.elapsed() >= self.age_max {
            *current = (Instant::now(), client(self.connector.clone()));
        }
        current.1.clone()
    }
}
