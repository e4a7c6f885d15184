//! Why a demo does not come to its end.

use std::io;
use std::process::ExitStatus;

use reqwest::StatusCode;

use crate::command::Exit;
use crate::receiver::{OpenStoreError, StoreError};
use crate::testbed::ProcessError;
use lanekeeper::config::Faults;
use lanekeeper::http::client::TargetsFault;
use lanekeeper_broker::publisher::PublishError;
use lanekeeper_broker::{ConnectError, SourceError};

/// Why a demo does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("stopped by {0}")]
    Interrupted(&'static str),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("RabbitMQ did not confirm {0} updates")]
    NotConfirmed(u64),
    #[error("waited for {what}, but nothing has changed for {seconds} s; last seen: {seen}")]
    Stuck { what: &'static str, seconds: u64, seen: String },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the dispatcher ended with {0} after SIGTERM: it has to end with success")]
    Drain(ExitStatus),
    #[error("cannot {step}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the demo's own config is wrong, which is a bug: {0}")]
    Config(Faults),
    #[error(transparent)]
    Targets(#[from] TargetsFault),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error("the API's store cannot be emptied")]
    NotEmptied(#[from] StoreError),
    #[error("the API answered {status} to a request of the second writer")]
    Refused { status: StatusCode },
    #[error("the second writer cannot reach the API")]
    Unreachable(#[from] reqwest::Error),
}

impl DemoError {
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
