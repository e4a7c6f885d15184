//! Counts wrong tokens and signatures by the address that they come from.
//!
//! A right one is always taken, whatever else came from its address: behind a load balancer all senders have one address, and
//! nobody who guesses may keep the others out. So the count decides only how a wrong one is answered.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::request;

use super::problem::{DoorProblem, DoorProblemCode};
use crate::wrong_tokens::WrongTokens;

/// The address that a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Wrong tokens and signatures. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Guesses(Arc<Mutex<WrongTokens>>);

impl Guesses {
    /// Counts a wrong token or signature. It is answered `wrong`, or 429 if there were too many of its address; then the
    /// connection is closed, so that each further guess needs a new one.
    pub(super) fn refuse(&self, parts: &request::Parts, wrong: DoorProblem) -> DoorProblem {
        let Peer(ip) = *parts.extensions.get::<Peer>().expect("the server sets it");
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.add(ip, Instant::now()) {
            None => wrong,
            Some(wait) => {
                let detail =
                    "too many wrong tokens or signatures came from this address: a right one is taken";
                DoorProblem::new(DoorProblemCode::TooManyWrongTokens, detail).retry_after(wait.as_secs() + 1)
            }
        }
    }
}
