//! Why a crash test comes to no judgement. (That updates were lost or reordered is not an error of this kind, but its
//! result.)

use std::io;
use std::process::ExitStatus;

use crate::command::Exit;
use crate::testbed::{ProcessError, ServerError};

#[derive(Debug, thiserror::Error)]
pub(super) enum ChaosError {
    #[error("stopped by {0}")]
    Interrupted(&'static str),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("a replica ended with {0} after SIGTERM: it has to end with success, whatever the broker does")]
    Drain(ExitStatus),
    #[error("`lanekeeper publish` ended with {0}: it has to wait until every update is confirmed")]
    Publisher(ExitStatus),
    #[error("`lanekeeper topology apply` ended with {0} again and again")]
    Change(ExitStatus),
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl ChaosError {
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Server(_) => Exit::Broker,
            _ => Exit::Other,
        }
    }
}
