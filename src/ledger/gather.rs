//! Calls that come together are done together: what waits while one batch is at work is the next batch.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::error::LedgerError;

/// Most calls in one batch: a commit that takes longer only delays the callers in it.
pub const BATCH_MAX: usize = 512;

/// Most calls that wait for their batch; further callers wait in front of the queue.
const WAITING_MAX: usize = 4096;

/// A call and who waits for its answer.
type Call<Asked, Answer> = (Asked, oneshot::Sender<Result<Answer, LedgerError>>);

/// The queue before one task that answers in batches. No call waits while the task is idle. The task ends with the queue.
#[derive(Debug)]
pub struct Gather<Asked, Answer> {
    calls: mpsc::Sender<Call<Asked, Answer>>,
}

impl<Asked, Answer> Gather<Asked, Answer>
where
    Asked: Send + Sync + 'static,
    Answer: Send + 'static,
{
    /// Starts the task. `work` answers every call of a batch, in its order, or fails for all of them.
    pub fn start<Work, Batch>(mut work: Work) -> Self
    where
        Work: FnMut(Arc<[Asked]>) -> Batch + Send + 'static,
        Batch: Future<Output = Result<Vec<Answer>, LedgerError>> + Send,
    {
        let (calls, mut waiting) = mpsc::channel::<Call<Asked, Answer>>(WAITING_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
                let (asked, callers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
                let callers = callers.into_iter();
                // A caller that has gone away wants no answer.
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

    /// Joins the next batch and waits for its answer.
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
        let gather = Gather::start(move |asked: Arc<[u32]>| {
            sizes.send(asked.len()).unwrap();
            let gate = Arc::clone(&opened);
            async move {
                gate.acquire().await.unwrap().forget();
                if asked.contains(&13) { Err(LedgerError::Closed) } else { Ok(asked.to_vec()) }
            }
        });
        let gather = Arc::new(gather);
        let call = |asked| {
            let gather = Arc::clone(&gather);
            tokio::spawn(async move { gather.call(asked).await })
        };
        let first = call(1);
        assert_eq!(seen.recv().await, Some(1), "an idle task begins at once");
        let second: Vec<_> = [11, 12, 13].map(call).into();
        while gather.calls.capacity() > WAITING_MAX - 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        for caller in second {
            assert!(caller.await.unwrap().is_err());
        }
        assert_eq!(seen.recv().await, Some(3));
    }
}
