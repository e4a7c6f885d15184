//! Why nothing could be measured. (Broken order is not an error of this kind, but the result of a run.)

use std::error::Error;
use std::io;

use crate::command::Exit;
use crate::testbed::{ProcessError, ServerError};
use lanekeeper::config::Faults;
use lanekeeper_broker::publisher::PublishError;
use lanekeeper_broker::{ConnectError, SourceError};

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    #[error("stopped by {0}")]
    Interrupted(&'static str),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("cannot {step}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{0}; or name a broker with --broker")]
    NoBroker(ServerError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{path} is not there: build it with `cargo build --release --package lanekeeper-lab`")]
    NoBareLoop { path: String },
    #[error("an update was not accepted: {answer}")]
    NotAccepted { answer: String },
    #[error("the receiver did not say where it listens")]
    ReceiverSilent,
    #[error("cannot get the receiver's report")]
    Report(#[source] Box<dyn Error + Send + Sync>),
    #[error("the benchmark's own config is wrong, which is a bug: {0}")]
    Config(Faults),
}

impl BenchError {
    pub(super) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    pub(super) fn no_broker(error: ServerError) -> Self {
        match error {
            ServerError::NoScript { .. } => Self::NoBroker(error),
            other => Self::Server(other),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Connect(_) | Self::Source(_) | Self::Publish(_) => Exit::Broker,
            _ => Exit::Other,
        }
    }
}
