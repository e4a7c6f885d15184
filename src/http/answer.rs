//! Reads an answer up to a bound and makes an outcome of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::{Response, Version};
use hyper::body::{Body as _, Incoming};
use rustls::AlertDescription;

use super::deadline::{Deadline, TimeUp};
use super::error::ConnectFault;
use super::judge::{self, Answer, BodyEnd, Bounds, Judgement};
use super::{AttemptReceipt, detail, quota};
#[cfg(doc)]
use crate::config::AnswerBody;
use crate::config::TargetConfig;
use lanekeeper_core::outcome::{Cause, Failure, Outcome, OutcomeKind};
use lanekeeper_core::pacing::Quota;

/// A longer `ETag` is ignored: it would be kept and sent with every update.
const ETAG_BYTES_MAX: usize = 1024;

/// Reads as much of an answer's body as its meaning needs, and judges it. `answers`: the rows of the target's `answers` count.
/// Returns the number of the row that matched, too.
///
/// A success counts only if its body is complete (or longer than the bound): one that breaks off may come from a proxy
/// that has lost its target. A body that has no end but that of the connection is complete then, with and without the
/// farewell of TLS: nothing shows whether anything is missing. With [`AnswerBody::Ignore`] a success counts by its status
/// alone, as a failure does in any case; its body is only the reason.
pub(super) async fn judge(
    mut response: Response<Incoming>,
    config: &TargetConfig,
    answers: bool,
    deadline: &mut Deadline,
) -> Judgement {
    let status = response.status().as_u16();
    let lasts_to_the_end = lasts_to_the_end(&response);
    let bounds = judge::bounds(config, status, answers);
    let mut body = Vec::new();
    let end = read(response.body_mut(), &mut body, bounds, lasts_to_the_end, deadline).await;
    let answer = Answer { status, headers: response.headers(), body: &body, end };
    if answers {
        judge::judge(config, &answer)
    } else {
        Judgement { outcome: judge::by_status(config, &answer), row: None }
    }
}

/// Whether the end of the connection is the end of the body (RFC 9112, section 6.3, rule 8).
fn lasts_to_the_end(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    matches!(response.version(), Version::HTTP_10 | Version::HTTP_11)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Whether the target closed the connection in order, but for the farewell of TLS (`close_notify`). Over plain TCP, this end
/// is no error.
fn is_end_of_stream(error: &(dyn Error + 'static)) -> bool {
    io_kinds(error).any(|kind| kind == io::ErrorKind::UnexpectedEof)
}

/// The kinds of the IO errors among an error and its causes.
fn io_kinds<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = io::ErrorKind> + 'a {
    detail::causes(error).filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// What an answer says in addition to its outcome. `outcomes` are the target's own.
pub(super) fn receipt_of(
    response: &Response<Incoming>,
    outcomes: &BTreeMap<u16, OutcomeKind>,
) -> AttemptReceipt {
    let etag = text(response.headers(), ETAG).filter(|etag| etag.len() <= ETAG_BYTES_MAX);
    let status = response.status().as_u16();
    let content_type = text(response.headers(), CONTENT_TYPE).unwrap_or("");
    let of_target = outcomes.contains_key(&status) || detail::is_problem(content_type);
    let quota = quota::quota_of(response.headers(), SystemTime::now());
    AttemptReceipt {
        status,
        etag: etag.map(ToOwned::to_owned),
        of_target,
        quota: (quota != Quota::default()).then(|| Box::new(quota)),
    }
}

/// No complete answer before the deadline.
pub(super) fn time_up() -> Outcome {
    let failure = Failure { cause: Cause::Timeout, detail: String::new() };
    Outcome::Retryable { failure, retry_after: None }
}

/// The connection could not be made, or failed.
pub(super) fn broken(error: &(dyn Error + 'static)) -> Outcome {
    let no_connection = detail::causes(error).find_map(|error| error.downcast_ref::<ConnectFault>());
    let timed_out = no_connection.is_some_and(ConnectFault::timed_out)
        || io_kinds(error).any(|kind| kind == io::ErrorKind::TimedOut);
    let cause = if timed_out { Cause::Timeout } else { Cause::Connection };
    let failure = Failure { cause, detail: detail::of_error(error) };
    // As a 401: whatever the update, and no update is at fault.
    if no_connection.is_some_and(ConnectFault::is_refusal) {
        return Outcome::Refused(failure);
    }
    let alert = detail::causes(error).find_map(|error| error.downcast_ref());
    if let Some(rustls::Error::AlertReceived(alert)) = alert
        && let Some(refused) = refused_handshake(*alert)
    {
        return refused;
    }
    Outcome::Retryable { failure, retry_after: None }
}

/// The server has refused the TLS handshake; `None`: its alert does not say so. It has read no request: after an alert there is
/// no session.
pub(super) fn refused_handshake(alert: AlertDescription) -> Option<Outcome> {
    let detail = detail::words_of_alert(alert)?.to_owned();
    Some(Outcome::Refused(Failure { cause: Cause::Connection, detail }))
}

/// Reads to the end or to the bound, and keeps the start. If it stops early, dropping the response closes the connection
/// (HTTP/1) or the stream (HTTP/2).
pub(super) async fn read(
    body: &mut Incoming,
    kept: &mut Vec<u8>,
    bounds: Bounds,
    lasts_to_the_end: bool,
    deadline: &mut Deadline,
) -> BodyEnd {
    let Bounds { kept_max, read_max } = bounds;
    let is_reason = (1..read_max).contains(&kept_max);
    if body.size_hint().lower() > read_max as u64 && !is_reason {
        return BodyEnd::Longer;
    }
    let mut read = 0;
    loop {
        let chunk = match deadline.wait_for_answer(chunk(body)).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return BodyEnd::Complete,
            Ok(Err(error)) if lasts_to_the_end && is_end_of_stream(&error) => return BodyEnd::Complete,
            Ok(Err(error)) => return BodyEnd::Broken(broken(&error)),
            Err(TimeUp) => return BodyEnd::Broken(time_up()),
        };
        let room = kept_max - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        read += chunk.len();
        if read > read_max {
            return BodyEnd::Longer;
        }
    }
}

/// The next part of a body; `None`: it is complete. Trailers are passed over.
async fn chunk(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    loop {
        let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.transpose()?
        else {
            return Ok(None);
        };
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
