//! Reads bodies, bounded in size and time, and in bytes for all requests together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::problem::{DoorProblem, DoorProblemCode};

/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read and thrown away of a body that is too large: most senders read no answer before they have sent their body.
const DISCARDED_MAX: usize = 16 * 1024 * 1024;

/// Bytes of bodies that are being read. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// Holds the bytes of one body until it is dropped.
#[derive(Debug)]
struct HeldBytes {
    budget: BodyBudget,
    bytes: usize,
}

impl BodyBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(BudgetState { bytes: AtomicUsize::new(0), bytes_max }))
    }

    /// Reads a body of at most `bytes_max`.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
    ) -> Result<Bytes, DoorProblem> {
        let stated =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if stated.is_some_and(|bytes| bytes > bytes_max as u64) {
            discard(body.into_data_stream());
            return Err(too_large(bytes_max));
        }
        let mut held = HeldBytes { budget: self.clone(), bytes: 0 };
        timeout(BODY_TIMEOUT, held.collect(body, bytes_max)).await.unwrap_or_else(|_| {
            let seconds = BODY_TIMEOUT.as_secs();
            Err(DoorProblem::new(
                DoorProblemCode::Slow,
                format!("the body was not complete within {seconds} s"),
            ))
        })
    }
}

impl HeldBytes {
    async fn collect(&mut self, body: Body, bytes_max: usize) -> Result<Bytes, DoorProblem> {
        let mut collected = BytesMut::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| DoorProblem::new(DoorProblemCode::Slow, "the body broke off"))?;
            if collected.len() + chunk.len() > bytes_max {
                discard(chunks);
                return Err(too_large(bytes_max));
            }
            self.add(chunk.len())?;
            collected.extend_from_slice(&chunk);
        }
        Ok(collected.freeze())
    }

    fn add(&mut self, bytes: usize) -> Result<(), DoorProblem> {
        let state = &self.budget.0;
        self.bytes += bytes;
        if state.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > state.bytes_max {
            let detail = "too many bytes are being read";
            return Err(DoorProblem::new(DoorProblemCode::Full, detail).retry_after(1));
        }
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the rest of a body while its sender is answered. The connection ends with what is larger or slower.
fn discard(mut chunks: BodyDataStream) {
    let discarding = async move {
        let mut left = DISCARDED_MAX;
        while let Some(Ok(chunk)) = chunks.next().await
            && let Some(less) = left.checked_sub(chunk.len())
        {
            left = less;
        }
    };
    tokio::spawn(timeout(BODY_TIMEOUT, discarding));
}

fn too_large(bytes_max: usize) -> DoorProblem {
    DoorProblem::new(DoorProblemCode::BodyTooLarge, format!("the body has over {bytes_max} bytes"))
}
