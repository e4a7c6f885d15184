//! Takes the questions that come by the stream of members, and publishes the answers.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::InspectedProcess;
use crate::inspect::question::InspectionQuery;
use lanekeeper_broker::{AnswerPublisher, Inquiry as Asked, Link, LogOnChange};
use lanekeeper_core::error::error_chain;

/// Answers until what this returns is dropped. `asked` outlives it: the next one goes on with what is in it.
pub fn answer_questions(
    asked: Arc<Mutex<Receiver<Asked>>>,
    process: Arc<InspectedProcess>,
    link: Link,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut asked = asked.lock().await;
        let (mut answers, mut log) = (AnswerPublisher::new(link), LogOnChange::default());
        while let Some(Asked { reply_to, text }) = asked.recv().await {
            // A program of another version may ask what this one does not know: it learns that nobody answers.
            let Ok(question) = serde_json::from_str::<InspectionQuery>(&text) else {
                debug!("a question was passed over that this version does not understand");
                continue;
            };
            let body = serde_json::to_vec(&process.answer(question).await).expect("an answer is plain data");
            match answers.publish(&reply_to, &body).await {
                Ok(()) => {
                    log.cleared();
                }
                Err(fault) => {
                    let error = error_chain(&fault);
                    if log.is_new(error.clone()) {
                        warn!(
                            error,
                            "cannot answer a question of `lanekeeper status`, `lanekeeper why` or a page: it is told that this process did not answer"
                        );
                    }
                }
            }
        }
    }))
}
