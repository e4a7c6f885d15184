//! Concurrent calls share a batch: the calls that arrive while one batch is processed are the next batch.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::error::LedgerError;

/// Calls in one batch. A larger batch would only make its callers wait longer.
const BATCH_MAX: usize = 512;

/// Bytes of bodies in one batch, except for a single larger body: as much as a slow disk writes within the time limit of
/// a commit.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Calls in the queue; further callers wait until there is room.
const WAITING_MAX: usize = 4096;

/// A call, and where its answer goes.
type Call<Asked, Answer> = (Asked, oneshot::Sender<Result<Answer, LedgerError>>);

/// The queue of a task that answers calls in batches. The task starts a batch as soon as it is idle and there is a call. It
/// ends when the queue is dropped.
#[derive(Debug)]
pub struct Batcher<Asked, Answer> {
    calls: mpsc::Sender<Call<Asked, Answer>>,
}

impl<Asked, Answer> Batcher<Asked, Answer>
where
    Asked: Send + Sync + 'static,
    Answer: Send + 'static,
{
    /// Starts the task. `work` returns an answer for every call of a batch, in order, or one error for all of them.
    /// `bytes` returns the size of a call's body.
    pub fn start<Work, Batch>(bytes: fn(&Asked) -> usize, mut work: Work) -> Self
    where
        Work: FnMut(Arc<[Asked]>) -> Batch + Send + 'static,
        Batch: Future<Output = Result<Vec<Answer>, LedgerError>> + Send,
    {
        let (calls, mut waiting) = mpsc::channel::<Call<Asked, Answer>>(WAITING_MAX);
        tokio::spawn(async move {
            let mut received = Vec::with_capacity(BATCH_MAX);
            // Calls that did not fit into the last batch come first.
            while !received.is_empty() || waiting.recv_many(&mut received, BATCH_MAX).await > 0 {
                let mut room = BATCH_BYTES_MAX;
                let fitting = received.iter().take_while(|(asked, _)| match room.checked_sub(bytes(asked)) {
                    Some(left) => {
                        room = left;
                        true
                    }
                    None => false,
                });
                let calls = fitting.count().max(1);
                let (asked, callers): (Vec<_>, Vec<_>) = received.drain(..calls).unzip();
                let callers = callers.into_iter();
                // Sending fails if the caller has been dropped.
                match work(asked.into()).await {
                    Ok(answers) => {
                        assert_eq!(answers.len(), callers.len(), "every call has an answer");
                        callers.zip(answers).for_each(|(caller, answer)| drop(caller.send(Ok(answer))));
                    }
                    Err(error) => callers.for_each(|caller| drop(caller.send(Err(error.clone())))),
                }
            }
        });
        Self { calls }
    }

    /// Adds the call to the next batch and waits for its answer.
    pub async fn call(&self, asked: Asked) -> Result<Answer, LedgerError> {
        let (caller, answer) = oneshot::channel();
        self.calls.send((asked, caller)).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_waits_during_one_batch_is_the_next_and_a_failure_is_everybodys() {
        let gate = Arc::new(Semaphore::new(0));
        let (sizes, mut seen) = mpsc::unbounded_channel();
        let opened = Arc::clone(&gate);
        let batcher = Batcher::start(
            |_| 0,
            move |asked: Arc<[u32]>| {
                sizes.send(asked.len()).unwrap();
                let gate = Arc::clone(&opened);
                async move {
                    gate.acquire().await.unwrap().forget();
                    if asked.contains(&13) { Err(LedgerError::Closed) } else { Ok(asked.to_vec()) }
                }
            },
        );
        let batcher = Arc::new(batcher);
        let call = |asked| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move { batcher.call(asked).await })
        };
        let first = call(1);
        assert_eq!(seen.recv().await, Some(1), "an idle task begins at once");
        let second: Vec<_> = [11, 12, 13].map(call).into();
        while batcher.calls.capacity() > WAITING_MAX - 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        for caller in second {
            assert!(caller.await.unwrap().is_err());
        }
        assert_eq!(seen.recv().await, Some(3));
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes_and_keeps_the_order_of_its_calls() {
        let (sender, mut seen) = mpsc::unbounded_channel();
        let batcher = Batcher::start(
            |asked: &usize| *asked,
            move |asked: Arc<[usize]>| {
                sender.send(asked.to_vec()).unwrap();
                async move { Ok(asked.to_vec()) }
            },
        );
        let third = BATCH_BYTES_MAX / 3;
        let sizes = [third, third + 1, third + 2, 2 * BATCH_BYTES_MAX, 0];
        // All are waiting before the task runs: it is on this thread.
        let answers = futures_util::future::join_all(sizes.map(|size| batcher.call(size))).await;
        assert!(answers.into_iter().zip(sizes).all(|(answer, size)| answer.unwrap() == size));
        let mut all = Vec::new();
        while all.len() < sizes.len() {
            let batch = seen.recv().await.unwrap();
            assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= BATCH_BYTES_MAX, "{batch:?}");
            all.extend(batch);
        }
        assert_eq!(all, sizes);
    }
}
