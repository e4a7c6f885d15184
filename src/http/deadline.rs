//! The two times that an attempt has: one to get open connections, and one for its requests.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::SendGuard;
use super::send_guard::SendCheck;

/// How long an answer is waited for after the deadline, if this process itself was late.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long the reason is waited for why there is no connection.
const REASON_MAX: Duration = Duration::from_millis(50);
/// Used instead of a time that the clock cannot represent.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time is up.
#[derive(Debug)]
pub(super) struct TimeUp;

/// What is left of the times of an attempt, over all of its requests.
#[derive(Debug)]
pub(super) struct Deadline {
    /// To wait for connections.
    connect: Duration,
    /// From the first byte of a request to the end of its answer.
    timeout: Duration,
    /// When `timeout` is over for the request that was written last.
    answer_by: Option<Instant>,
    /// Later than `answer_by` by as much as this process was late: stopped, or starved of CPU time. An answer that came
    /// in the meantime is still in the socket, and to treat it as a timeout would send the update a second time.
    extended: Option<Instant>,
    /// What was spent of `connect` on waiting for a credential.
    for_credential: Duration,
}

impl Deadline {
    pub(super) fn new(connect: Duration, timeout: Duration) -> Self {
        Self { connect, timeout, answer_by: None, extended: None, for_credential: Duration::ZERO }
    }

    /// The check of the next request, which is withheld once the time for connecting is over.
    pub(super) fn check(&self, send_guard: SendGuard) -> SendCheck {
        SendCheck::new(send_guard, after(Instant::now(), self.connect))
    }

    /// Waits for what the next request needs before it can be sent, within the time for connecting.
    pub(super) async fn wait_for_credential<F: Future>(
        &mut self,
        credential: F,
    ) -> Result<F::Output, TimeUp> {
        let begun = Instant::now();
        self.pause(begun);
        let ended = timeout_at(after(begun, self.connect), credential).await.map_err(|_| TimeUp);
        let took = begun.elapsed();
        self.for_credential += took;
        self.connect = self.connect.saturating_sub(took);
        ended
    }

    /// Returns true if more was spent on waiting for a credential than is left for connecting.
    pub(super) fn waited_for_credential(&self) -> bool {
        self.for_credential > self.connect
    }

    /// The time of the answers stands still until the next request is written.
    fn pause(&mut self, now: Instant) {
        if let Some(answer_by) = self.answer_by.take() {
            self.timeout = answer_by.saturating_duration_since(now);
            self.extended = None;
        }
    }

    /// Waits for `exchange`, which sends the request of `check` and ends with the head of its answer.
    pub(super) async fn wait_for_head<F: Future>(
        &mut self,
        check: &SendCheck,
        exchange: F,
    ) -> Result<F::Output, TimeUp> {
        let begun = Instant::now();
        self.pause(begun);
        let mut exchange = pin!(exchange);
        let written_at = loop {
            if let Some(written_at) = check.written_at() {
                break written_at;
            }
            let now = Instant::now();
            if self.timeout.is_zero() {
                return Err(TimeUp);
            }
            if now >= check.write_by() {
                // Nothing is written any more. The connector, which began a little later, may still say what it waited for.
                return timeout_at(now + REASON_MAX, exchange).await.map_err(|_| TimeUp);
            }
            // If the request is written before this, its own deadline is not before this.
            let look_again = check.write_by().min(after(now, self.timeout));
            if let Ok(head) = timeout_at(look_again, exchange.as_mut()).await {
                self.written(begun, check.written_at().unwrap_or_else(Instant::now));
                return Ok(head);
            }
        };
        self.written(begun, written_at);
        self.wait_for_answer(exchange).await
    }

    fn written(&mut self, begun: Instant, at: Instant) {
        self.connect = self.connect.saturating_sub(at.saturating_duration_since(begun));
        self.answer_by = Some(after(at, self.timeout));
    }

    /// Waits for a part of the answer to a request that was written.
    pub(super) async fn wait_for_answer<F: Future>(&mut self, answer: F) -> Result<F::Output, TimeUp> {
        let mut answer = pin!(answer);
        let answer_by = self.answer_by.expect("a request was written");
        if self.extended.is_none()
            && let Ok(answer) = timeout_at(answer_by, answer.as_mut()).await
        {
            return Ok(answer);
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(answer_by).min(LATE_MAX);
        let extended = *self.extended.get_or_insert(now + late);
        timeout_at(extended, answer).await.map_err(|_| TimeUp)
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now + TIMEOUT_MAX)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_credential_takes_is_missing_for_connecting() {
        let seconds = Duration::from_secs;
        let mut deadline = Deadline::new(seconds(5), seconds(10));
        let left = |deadline: &Deadline| deadline.check(SendGuard::always()).write_by() - Instant::now();
        assert!(deadline.wait_for_credential(tokio::time::advance(seconds(2))).await.is_ok());
        assert_eq!((left(&deadline), deadline.waited_for_credential()), (seconds(3), false));
        assert!(deadline.wait_for_credential(tokio::time::advance(seconds(1))).await.is_ok());
        assert_eq!((left(&deadline), deadline.waited_for_credential()), (seconds(2), true));
        let began = Instant::now();
        assert!(deadline.wait_for_credential(pending::<()>()).await.is_err());
        assert_eq!((began.elapsed(), left(&deadline)), (seconds(2), seconds(0)));
    }

    /// Between two requests of an attempt, the time of their answers does not run.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_answers_stands_still_while_a_credential_is_waited_for() {
        let seconds = Duration::from_secs;
        let mut deadline = Deadline::new(seconds(50), seconds(10));
        for waited in [4, 5] {
            let check = deadline.check(SendGuard::always());
            let written = check.clone();
            let exchange = async move {
                written.written();
                tokio::time::advance(seconds(waited)).await;
            };
            assert!(deadline.wait_for_head(&check, exchange).await.is_ok());
            assert!(deadline.wait_for_credential(tokio::time::advance(seconds(20))).await.is_ok());
        }
        let check = deadline.check(SendGuard::always());
        let written = check.clone();
        let exchange = async move {
            written.written();
            pending::<()>().await;
        };
        let began = Instant::now();
        assert!(deadline.wait_for_head(&check, exchange).await.is_err());
        assert_eq!(began.elapsed(), seconds(1));
    }
}
