//! The waits between tries of something that fails: each twice as long as the one before it, up to a maximum.

use std::time::Duration;

/// Counts the tries of one thing and gives the wait before the next one. Without chance: whoever retries here is alone
/// with the broker, or waits for a lock.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    min: Duration,
    max: Duration,
    /// `None`: nothing was tried since the start or the last [`Backoff::reset`].
    last: Option<Duration>,
}

impl Backoff {
    /// For waits after a failure: `min`, then twice as long each time, at most `max`.
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { first: min, min, max, last: None }
    }

    /// For waits before a try: none before the first one, then as with [`Backoff::new`].
    pub(crate) const fn first_at_once(min: Duration, max: Duration) -> Self {
        Self { first: Duration::ZERO, min, max, last: None }
    }

    /// The next wait.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.last.map_or(self.first, |last| (last * 2).clamp(self.min, self.max));
        self.last = Some(delay);
        delay
    }

    /// Waits as long as [`Backoff::next_delay`] says.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// The waits begin again with the shortest: it has worked, or fails for another reason.
    pub(crate) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut backoff: Backoff, expected_ms: &[u64]) {
        for _ in 0..2 {
            let delays: Vec<_> = expected_ms.iter().map(|_| backoff.next_delay()).collect();
            let expected: Vec<_> = expected_ms.iter().copied().map(Duration::from_millis).collect();
            assert_eq!(delays, expected);
            backoff.reset();
        }
    }

    #[test]
    fn each_wait_is_twice_as_long_as_the_one_before_it_up_to_the_maximum() {
        let (min, max) = (Duration::from_millis(250), Duration::from_secs(1));
        check(Backoff::new(min, max), &[250, 500, 1000, 1000]);
        check(Backoff::first_at_once(min, max), &[0, 250, 500, 1000, 1000]);
        check(Backoff::new(max, max), &[1000, 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_takes_as_long_as_the_next_delay_says() {
        let mut backoff = Backoff::first_at_once(Duration::from_millis(250), Duration::from_secs(10));
        let begun = tokio::time::Instant::now();
        for expected_ms in [0, 250, 750] {
            backoff.wait().await;
            assert_eq!(begun.elapsed(), Duration::from_millis(expected_ms));
        }
    }
}
