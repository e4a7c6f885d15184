//! The overview as server-sent events. However many pages follow it, the processes are asked once.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::Parts;
use super::super::guard::Visitor;
use super::super::page;
use super::super::parked::body::too_many;
use super::super::problem::AdminProblem;
use super::super::serve::LONG_LIFE_MAX;
use super::Live;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A page that hears nothing for so long could not tell if the process is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who follows.
#[derive(Debug)]
pub(super) struct Following {
    /// What the pages show; empty: not looked at yet.
    shown: watch::Sender<Arc<str>>,
    /// A task looks. Whoever begins or ends to look, or to follow for the first time, has this lock.
    looks: Mutex<bool>,
}

impl Default for Following {
    fn default() -> Self {
        Self { shown: watch::Sender::new(Arc::from("")), looks: Mutex::new(false) }
    }
}

impl Following {
    /// What is shown, from now on. The first who follows begins the looks; they end with the last one.
    fn follow(self: &Arc<Self>, live: &Live) -> watch::Receiver<Arc<str>> {
        let mut looks = self.looks();
        if !*looks {
            self.shown.send_replace(Arc::from(""));
        }
        let receiver = self.shown.subscribe();
        if !std::mem::replace(&mut *looks, true) {
            tokio::spawn(look(Arc::clone(self), live.clone()));
        }
        receiver
    }

    fn looks(&self) -> MutexGuard<'_, bool> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if nobody follows any more. Then the looks have ended.
    fn is_over(&self) -> bool {
        let mut looks = self.looks();
        *looks = self.shown.receiver_count() > 0;
        !*looks
    }
}

async fn look(following: Arc<Following>, live: Live) {
    let mut every = interval(LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !following.is_over() {
        every.tick().await;
        let fragment = match live.status().await {
            Ok(report) => page::overview::fragment(&report),
            Err(problem) => page::overview::not_known(&problem),
        };
        following.shown.send_replace(Arc::from(fragment.into_string()));
    }
}

/// `GET /events`.
pub(in super::super) async fn events(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, AdminProblem> {
    let permit = visitor.client.answers_long().ok_or_else(too_many)?;
    let shown = parts.live.following.follow(&parts.live);
    let events = Events { shown, visitor, _permit: permit };
    let stream = stream::unfold(events, Events::next);
    let mut answer = Body::from_stream(stream).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // A proxy that collects the answer would show nothing.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}

struct Events {
    shown: watch::Receiver<Arc<str>>,
    visitor: Visitor,
    _permit: OwnedSemaphorePermit,
}

impl Events {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let changed = timeout(KEEP_ALIVE, self.shown.changed()).await;
        // Who was logged out sees no more.
        if !self.visitor.may_still_read() || matches!(changed, Ok(Err(_))) {
            return None;
        }
        let event = match changed {
            Ok(_) => event("overview", &self.shown.borrow_and_update()),
            Err(_) => ":\n\n".to_owned(),
        };
        Some((Ok(event.into()), self))
    }
}

/// An event as it is sent. Each line of the text is a line of its data.
fn event(name: &str, text: &str) -> String {
    let mut event = format!("event: {name}\n");
    for line in text.split(['\n', '\r']) {
        let _ = writeln!(event, "data: {line}");
    }
    event + "\n"
}

const _: () = assert!(KEEP_ALIVE.as_secs() < LONG_LIFE_MAX.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_an_event() {
        assert_eq!(event("a", "b"), "event: a\ndata: b\n\n");
        assert_eq!(
            event("a", "b\n\nevent: c\r\rdata: d"),
            "event: a\ndata: b\ndata: \ndata: event: c\ndata: \ndata: data: d\n\n"
        );
    }
}
