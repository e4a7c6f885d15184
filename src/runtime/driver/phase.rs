//! The states of a driver: on its way to a channel, at work on it, on its way from it.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Input;
use super::status::StatusReporter;
use lanekeeper_broker::{Deliveries, Gone, Source};
use lanekeeper_core::message::Tenure;
use lanekeeper_core::tick::Tick;

/// The way to a partition's deliveries.
type Attaching<D> = Pin<Box<dyn Future<Output = Result<D, Gone>> + Send>>;

/// Why a driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverExit {
    /// It was asked to.
    Stopped,
    /// The partition's layout drains, and it holds nothing more.
    Drained,
    /// The partition's layout drains, and its queue is not there any more.
    Gone,
}

/// What a driver does.
pub(super) enum Phase<D> {
    /// A channel is being opened. Leaves to `Attached`; to `Leaving` if the driver is to end.
    Attaching(Attaching<D>),
    /// The broker hands over deliveries. Leaves to `Attaching` when the channel is lost; to `Leaving` if the partition is to
    /// be handed back, or the driver is to end.
    Attached(Session<D>),
    /// Nothing more is taken; what is in flight ends, what is resolved is written down and settled. Leaves to `Attaching`
    /// when all of that is done or the channel is lost, unless the driver is to end; to `Aborting` if it takes too long.
    Leaving {
        /// `None`: there was none, or its channel was lost.
        session: Option<Session<D>>,
        /// From when on it takes too long.
        until: Tick,
        then: Then,
    },
    /// It took too long: the driver ends, and drops the attempts that are out.
    Aborting { session: Option<Session<D>>, exit: DriverExit },
    /// Between two of the others, and at the end.
    Detached,
}

/// What comes after a session that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The next session.
    Attach,
    /// The end of the driver.
    Exit(DriverExit),
}

/// One attachment to the partition's queue, from opening a channel to losing it.
pub(super) struct Session<D> {
    pub(super) tenure: Tenure,
    pub(super) deliveries: D,
    /// The core knows that the oldest delivery is held for too long.
    pub(super) held_too_long: bool,
    pub(super) status: StatusReporter,
}

impl<D: Deliveries> Session<D> {
    pub(super) fn new(tenure: Tenure, deliveries: D) -> Self {
        Self { tenure, deliveries, held_too_long: false, status: StatusReporter::default() }
    }

    pub(super) fn next_ack_at(&mut self) -> Option<Instant> {
        self.deliveries.next_ack_at()
    }

    /// When the oldest delivery will be held for too long; `None`: there is none, or the core knows.
    pub(super) fn held_until(&self, held_max: Duration) -> Option<Instant> {
        self.deliveries.oldest_received_at().filter(|_| !self.held_too_long).map(|came| came + held_max)
    }
}

impl<D: Deliveries> Phase<D> {
    /// Begins to open a channel.
    pub(super) fn attaching<S: Source<Deliveries = D>>(source: &Arc<S>) -> Self {
        let source = Arc::clone(source);
        Self::Attaching(Box::pin(async move { source.attach().await }))
    }

    pub(super) fn session(&mut self) -> Option<&mut Session<D>> {
        match self {
            Self::Attached(session) => Some(session),
            Self::Leaving { session, .. } | Self::Aborting { session, .. } => session.as_mut(),
            Self::Attaching(_) | Self::Detached => None,
        }
    }

    /// The session of this tenure, if it has not ended.
    pub(super) fn session_of(&mut self, tenure: Tenure) -> Option<&mut Session<D>> {
        self.session().filter(|session| session.tenure == tenure)
    }

    /// Takes the session out: it ends. Returns also what comes after it. Leaves `Detached` behind.
    pub(super) fn end(&mut self) -> (Option<Session<D>>, Then) {
        match mem::replace(self, Self::Detached) {
            Self::Attached(session) => (Some(session), Then::Attach),
            Self::Leaving { session, then, .. } => (session, then),
            Self::Aborting { session, exit } => (session, Then::Exit(exit)),
            Self::Attaching(_) | Self::Detached => (None, Then::Attach),
        }
    }

    /// Takes the session out, whose channel is lost. Leaves `Detached` behind, unless the driver is to end.
    pub(super) fn lose(&mut self) -> Option<Session<D>> {
        match self {
            Self::Leaving { session, then: Then::Exit(_), .. } | Self::Aborting { session, .. } => {
                session.take()
            }
            _ => self.end().0,
        }
    }

    /// Takes no more deliveries from now on, whatever the phase was.
    pub(super) fn leave(&mut self, until: Tick, then: Then) {
        let (session, _) = self.end();
        *self = Self::Leaving { session, until, then };
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self, Self::Leaving { .. } | Self::Aborting { .. })
    }

    /// Returns true if the driver ends after this.
    pub(super) fn is_exiting(&self) -> bool {
        matches!(self, Self::Leaving { then: Then::Exit(_), .. } | Self::Aborting { .. })
    }

    /// Returns true if the session is to be left now. `quiet`: nothing is in flight or being written down.
    pub(super) fn is_over(&self, quiet: bool) -> bool {
        match self {
            Self::Leaving { .. } => quiet,
            Self::Aborting { .. } => true,
            Self::Attaching(_) | Self::Attached(_) | Self::Detached => false,
        }
    }

    /// From when on leaving takes too long; `None`: the driver is not leaving.
    pub(super) fn leaving_until(&self) -> Option<Tick> {
        match self {
            Self::Leaving { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// What comes next of the source. Nothing is lost when the future is dropped. It never ends in a phase that takes
    /// nothing.
    pub(super) async fn next(&mut self) -> Input<D> {
        match self {
            Self::Attaching(attaching) => Input::Attached(attaching.await),
            Self::Attached(session) => match session.deliveries.next().await {
                Ok(event) => Input::Source(event),
                Err(lost) => Input::ChannelLost(lost),
            },
            Self::Leaving { .. } | Self::Aborting { .. } | Self::Detached => std::future::pending().await,
        }
    }
}
