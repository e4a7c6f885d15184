//! Waiting for a condition: the only place that sleeps, and never to synchronize.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Long enough for a machine that has other work; a test that needs it all has failed.
pub const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Lets time pass, where that is the matter itself: how long an outage lasts, how fast a publisher is. Nothing may be
/// expected to have happened afterwards.
pub async fn pace(lasts: Duration) {
    sleep(lasts).await;
}

/// Looks until the condition holds, and answers with what it gave.
///
/// # Panics
/// After [`PATIENCE`], with what was last seen.
#[track_caller]
pub fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match condition().await {
                Ok(seen) => return seen,
                Err(seen) if Instant::now() > deadline => {
                    panic!("{caller}: waited {PATIENCE:?} for {what}; last seen: {seen}")
                }
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }
}
