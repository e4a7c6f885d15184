//! Why the situations cannot be set up.

use std::io;

use crate::command::Exit;
use crate::testbed::ProcessError;
use lanekeeper_broker::SourceError;

/// Why the situations cannot be set up, or not be cleared away.
#[derive(Debug, thiserror::Error)]
pub(super) enum StuckError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("lanekeeper publish failed: {0}")]
    Publish(String),
    #[error("cannot {step}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl StuckError {
    pub(super) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Source(_) => Exit::Broker,
            Self::Process(_) | Self::Publish(_) | Self::System { .. } => Exit::Other,
        }
    }
}
