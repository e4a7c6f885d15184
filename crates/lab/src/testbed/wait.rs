//! Waiting for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A condition did not hold in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited {} s for {what}; last seen: {seen}", limit.as_secs())]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub limit: Duration,
    /// The condition's last error.
    pub seen: String,
}

/// Tries `condition` until it returns `Ok`, and returns that value. An `Err` says what was seen instead.
///
/// # Errors
/// [`TimedOut`] if it still returns `Err` after `limit`.
pub async fn wait_until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + limit;
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() > deadline => {
                return Err(TimedOut { what: what.to_owned(), limit, seen });
            }
            Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}
