//! Why a measurement did not come about. (That order was broken is no failure of this kind, but its result.)

use std::io;

use crate::Exit;
use lanekeeper::config::Faults;
use lanekeeper_broker::publisher::PublishError;
use lanekeeper_broker::{ConnectError, SourceError};

/// Why a measurement did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("stopped by a signal")]
    Interrupted,
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
    #[error(
        "there is no {path} here: run this in Lanekeeper's sources, which start a private server, or name a broker with --broker"
    )]
    NoScript { path: &'static str },
    #[error("{script} failed: {output}")]
    Script { script: &'static str, output: String },
    #[error("{path} is not there: build it with `cargo build --release --example bare`")]
    NoBareLoop { path: String },
    #[error("{who} ended before its work was done; its log ends with:\n{tail}")]
    Ended { who: String, tail: String },
    #[error("the receiver did not say where it listens")]
    ReceiverSilent,
    #[error("the receiver's report cannot be read: {0}")]
    Report(String),
    #[error("the config made for this is not right, which is a fault of ours: {0}")]
    Config(Faults),
}

impl Failure {
    pub(super) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Connect(_) | Self::Source(_) | Self::Publish(_) => Exit::Broker,
            _ => Exit::Other,
        }
    }
}
