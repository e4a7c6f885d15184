//! One request and the head of its answer, within the times of its attempt.

use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::capture_connection;

use super::SendGuard;
use super::answer;
use super::auth;
use super::deadline::{Deadline, TimeUp};
use super::gate::{self, GatedBody};
use super::renewed_client::RenewedClient;
use super::send_guard::Withheld;
use lanekeeper_core::outcome::Outcome;

/// Sends a request and waits for the head of its answer.
pub(super) async fn exchange(
    client: &RenewedClient,
    request: Request<Bytes>,
    send_guard: &SendGuard,
    deadline: &mut Deadline,
) -> Result<Response<Incoming>, Outcome> {
    let check = deadline.check(send_guard.clone());
    let (head, body) = request.into_parts();
    let mut request = Request::from_parts(head, ());
    let (connection, begun) = (capture_connection(&mut request), Instant::now());
    let request = request.map(|()| GatedBody::new(body, check.clone(), connection.clone()));
    let ended: Result<Result<_, Error>, TimeUp> =
        deadline.wait_for_head(&check, client.get().request(request)).await;
    Err(match (ended, check.withheld()) {
        (Ok(Ok(response)), _) => return Ok(response),
        (_, Some(Withheld::Denied)) => Outcome::Withheld,
        // What it waited for was a token rather than a connection.
        (Err(TimeUp), None) | (_, Some(Withheld::Late))
            if check.written_at().is_none() && deadline.waited_for_credential() =>
        {
            auth::came_too_late()
        }
        (Err(TimeUp), _) | (_, Some(Withheld::Late)) => answer::time_up(),
        (Ok(Err(error)), None) => gate::alert(&connection)
            .or_else(|| client.early_alerts().since(begun).filter(|_| gate::has_no_connection(&connection)))
            .and_then(answer::refused_handshake)
            .unwrap_or_else(|| answer::broken(&error)),
    })
}
