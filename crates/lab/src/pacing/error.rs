//! Why a case did not come to its end.

use std::io;
use std::process::ExitStatus;

use crate::testbed::{ProcessError, ServerError};

/// Why a case did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum PacingError {
    #[error("stopped by {0}")]
    Interrupted(&'static str),
    #[error("cannot {step}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the updates were not published ({status}):\n{log_tail}")]
    Publish { status: ExitStatus, log_tail: String },
    #[error("{accepted} of {published} updates were applied: too few were left")]
    NoBacklog { published: u64, accepted: u64 },
    #[error("a dispatcher does not tell its metrics: {0}")]
    Metrics(String),
    #[error("the receiver does not have these seconds any more")]
    NoSeconds,
}

impl PacingError {
    pub(super) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }
}
