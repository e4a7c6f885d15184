//! Moves updates between the caller, the outbox and the broker, and connects again whenever the connection is lost.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::confirms::{AnsweredPublish, BrokerAnswer, Confirms};
use super::error::PublishError;
use super::session::{self, PublisherSession, SessionEvent};
use super::settings::PublisherSettings;
use crate::backoff::Backoff;
use crate::connection::Address;
use crate::log_on_change::LogOnChange;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::publish::outbox::{Outbox, PublishReceipt, Refusal, SubmissionId};
use lanekeeper_core::publish::outgoing::Outgoing;
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

/// After a stop, unconfirmed updates have this long to be confirmed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// After a connection was lost, what it had confirmed before is looked at for this long.
const LAST_CONFIRMS_TIMEOUT: Duration = Duration::from_millis(500);

/// Orders taken from the channel at once.
const ORDERS_AT_ONCE_MAX: usize = 64;

/// Waits between connects.
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(100);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);

/// Waits between publishes of a refused update; the last repeats.
const WAITS_MS: [u64; 7] = [100, 200, 400, 800, 1_600, 3_200, 5_000];
const WAIT_JITTER: f64 = 0.2;

/// An update for [`Publisher::run`].
#[derive(Clone, Debug)]
pub struct Submission {
    /// Comes back in the receipt.
    pub submission_id: SubmissionId,
    /// The update.
    pub outgoing: Outgoing,
}

/// What [`Publisher::run`] is to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// To publish an update.
    Submit(Submission),
    /// To publish these no more, as [`Outbox::withdraw`] says.
    Withdraw(Vec<(RecordKey, SubmissionId)>),
}

impl From<Submission> for Order {
    fn from(submission: Submission) -> Self {
        Self::Submit(submission)
    }
}

/// The connection, as far as the caller wants to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// Connected, perhaps again.
    Up,
    /// The broker has an alarm (memory, disk): it takes nothing, and publishing waits.
    Blocked {
        /// What the broker says.
        reason: String,
    },
    /// The alarm is over.
    Unblocked,
    /// The connection is lost; it is being made again.
    Down {
        /// What happened.
        cause: String,
    },
}

/// What happens while publishing.
#[derive(Clone, Debug)]
pub enum PublisherEvent {
    /// An update went to the broker; `again` if it had before.
    Published {
        /// Not for the first time.
        again: bool,
    },
    /// An update is confirmed, or counts as not confirmed.
    PublishReceipt(PublishReceipt),
    /// An update that was withdrawn is in flight: its receipt comes when it is known, and it is not published again.
    WithdrawnInFlight(SubmissionId),
    /// The connection changed.
    Connection(ConnectionEvent),
    /// The broker has refused an update, which is published again. `is_new`: it has not refused one for this reason since the
    /// last confirm.
    Refused {
        /// How.
        refusal: Refusal,
        /// For the first time since the last confirm.
        is_new: bool,
    },
}

/// How publishing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublisherExit {
    /// Every submission has its receipt, and no more came.
    Finished,
    /// The caller stopped it.
    Stopped,
    /// Over [`OutboxLimits::abandoned_max`](super::OutboxLimits::abandoned_max) records were given up.
    Abandoned,
}

/// A connection to publish on, which is made again whenever it is lost.
pub struct Publisher {
    settings: PublisherSettings,
    address: Address,
    /// `None`: there was none yet.
    session: Option<PublisherSession>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<PublisherSession, PublishError>> + Send>>;

#[expect(clippy::large_enum_variant, reason = "there is one, and it is moved once per event")]
enum ConnectionState {
    Up { session: PublisherSession, confirms: Confirms<lapin::Error> },
    Down { connecting: Connecting },
}

/// What the connection brings.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and the large variant is rare")]
enum StateChange {
    Answered(Vec<AnsweredPublish<lapin::Error>>),
    Connection(SessionEvent),
    Connected(PublisherSession),
}

impl ConnectionState {
    /// The next thing that happens. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<StateChange, PublishError> {
        match self {
            Self::Up { session, confirms } => Ok(tokio::select! {
                answers = confirms.answered() => StateChange::Answered(answers),
                event = session.next_event() => StateChange::Connection(event),
            }),
            Self::Down { connecting } => connecting.await.map(StateChange::Connected),
        }
    }
}

/// Why the session in hand is of no more use.
enum SessionFault {
    Lost { cause: String },
    Fatal(PublishError),
}

impl Publisher {
    /// Connects, and makes sure that the exchange exists. Tries once: whoever starts this wants to know.
    ///
    /// # Errors
    /// Every variant of [`PublishError`].
    pub async fn connect(settings: PublisherSettings) -> Result<Self, PublishError> {
        let address = Address::new(&settings.connection)?;
        let session = PublisherSession::open(&address, &settings).await?;
        Ok(Self { settings, address, session: Some(session) })
    }

    /// Connects when it runs, and tries until the broker is there and somebody has declared the exchange.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn unconnected(settings: PublisherSettings) -> Result<Self, PublishError> {
        let address = Address::new(&settings.connection)?;
        Ok(Self { settings, address, session: None })
    }

    /// Where it connects to. Users that are changed there are used for the next connection.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Does what comes out of `orders` until that is closed and everything has its receipt, or until
    /// `stop` ends, after which unconfirmed updates have five seconds left. Submission ids must grow.
    ///
    /// When it has returned, every submission sent has had exactly one receipt, in every case. `on_event` is
    /// called between two steps: it must not block.
    ///
    /// # Errors
    /// The exchange is gone, or the broker refuses what is published. A lost connection is no error: it is made
    /// again, until it is there.
    pub async fn run<O: Into<Order>>(
        self,
        mut orders: mpsc::Receiver<O>,
        on_event: impl FnMut(PublisherEvent),
        stop: impl Future<Output = ()>,
    ) -> Result<PublisherExit, PublishError> {
        let schedule = schedule();
        let mut run = PublisherRun {
            outbox: Outbox::new(self.settings.limits.clone(), schedule),
            settings: self.settings,
            address: self.address,
            on_event,
            is_blocked: false,
            refused: None,
            started: Instant::now(),
        };
        let result = run.run(self.session, &mut orders, stop).await;
        run.outbox.end();
        orders.close();
        while let Some(order) = orders.recv().await {
            run.carry_out(order.into());
        }
        run.report_receipts();
        result
    }
}

fn schedule() -> Schedule {
    Schedule::new(WAITS_MS.map(Duration::from_millis).to_vec(), WAIT_JITTER)
}

struct PublisherRun<F> {
    settings: PublisherSettings,
    address: Address,
    outbox: Outbox,
    on_event: F,
    /// The broker has an alarm. What is published now would wait in a socket, and nobody could take it back.
    is_blocked: bool,
    /// The refusal that the caller knows of, until something is confirmed.
    refused: Option<Refusal>,
    started: Instant,
}

impl<F: FnMut(PublisherEvent)> PublisherRun<F> {
    async fn run<O: Into<Order>>(
        &mut self,
        session: Option<PublisherSession>,
        orders: &mut mpsc::Receiver<O>,
        stop: impl Future<Output = ()>,
    ) -> Result<PublisherExit, PublishError> {
        let mut stop = pin!(stop);
        let mut stop_by: Option<Instant> = None;
        let mut all_read = false;
        let mut taken = Vec::with_capacity(ORDERS_AT_ONCE_MAX);
        let mut state = match session {
            Some(session) => ConnectionState::Up { session, confirms: Confirms::new() },
            None => ConnectionState::Down {
                connecting: Box::pin(connect_first(self.address.clone(), self.settings.clone())),
            },
        };
        loop {
            self.publish_ready(&mut state);
            self.report_receipts();
            let stopped = self.outbox.is_stopped();
            if self.outbox.is_empty() && (all_read || stopped) {
                if let ConnectionState::Up { session, .. } = state {
                    session.close().await;
                }
                return Ok(match (stop_by.is_some(), stopped) {
                    (true, _) => PublisherExit::Stopped,
                    (false, true) => PublisherExit::Abandoned,
                    (false, false) => PublisherExit::Finished,
                });
            }
            let room = self.outbox.room().min(ORDERS_AT_ONCE_MAX);
            let deadline = self.outbox.next_deadline();
            tokio::select! {
                change = state.next() => state = self.handle(state, change?).await?,
                count = orders.recv_many(&mut taken, room), if room > 0 && !all_read && !stopped => {
                    all_read = count == 0;
                    for order in taken.drain(..) {
                        self.carry_out(order.into());
                    }
                }
                () = sleep_until(self.started, deadline), if deadline.is_some() => {}
                () = &mut stop, if stop_by.is_none() => {
                    stop_by = Some(Instant::now() + STOP_TIMEOUT);
                    self.outbox.stop();
                }
                () = tokio::time::sleep_until(stop_by.unwrap_or(self.started)), if stop_by.is_some() => {
                    return Ok(PublisherExit::Stopped);
                }
            }
            self.outbox.wake(self.now());
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Submit(Submission { submission_id, outgoing }) => {
                self.outbox.push(submission_id, Arc::new(outgoing));
            }
            Order::Withdraw(withdrawn) => {
                for submission_id in self.outbox.withdraw(&withdrawn) {
                    (self.on_event)(PublisherEvent::WithdrawnInFlight(submission_id));
                }
            }
        }
    }

    async fn handle(
        &mut self,
        state: ConnectionState,
        change: StateChange,
    ) -> Result<ConnectionState, PublishError> {
        let connection_event = match change {
            StateChange::Answered(answers) => {
                return match self.apply(answers) {
                    Some(fault) => self.fail(state, fault).await,
                    None => Ok(state),
                };
            }
            StateChange::Connection(SessionEvent::Lost(error)) => {
                let fault = self.fault(&error);
                return self.fail(state, fault).await;
            }
            StateChange::Connection(SessionEvent::Blocked(reason)) => {
                warn!(reason, "the broker takes no publishes because of an alarm, waiting until it ends");
                self.is_blocked = true;
                ConnectionEvent::Blocked { reason }
            }
            StateChange::Connection(SessionEvent::Unblocked) => {
                info!("the broker takes publishes again");
                self.is_blocked = false;
                self.outbox.forgive();
                ConnectionEvent::Unblocked
            }
            StateChange::Connected(session) => {
                info!("broker connected");
                (self.on_event)(PublisherEvent::Connection(ConnectionEvent::Up));
                return Ok(ConnectionState::Up { session, confirms: Confirms::new() });
            }
        };
        (self.on_event)(PublisherEvent::Connection(connection_event));
        Ok(state)
    }

    fn now(&self) -> Tick {
        Tick::ZERO.after(self.started.elapsed())
    }

    fn publish_ready(&mut self, state: &mut ConnectionState) {
        if let ConnectionState::Up { session, confirms } = state {
            while !self.is_blocked && !confirms.must_settle() {
                let Some(in_flight) = self.outbox.publish_next() else { break };
                (self.on_event)(PublisherEvent::Published { again: in_flight.again });
                confirms.push(session.publish(in_flight));
            }
        }
    }

    fn report_receipts(&mut self) {
        while let Some(receipt) = self.outbox.next_receipt() {
            (self.on_event)(PublisherEvent::PublishReceipt(receipt));
        }
    }

    /// Tells the outbox; returns the first fault that says why, or any.
    fn apply(&mut self, answers: Vec<AnsweredPublish<lapin::Error>>) -> Option<SessionFault> {
        let now = self.now();
        let mut fault = None;
        for AnsweredPublish { record_key, in_flight, answer } in answers {
            match answer {
                BrokerAnswer::Confirmed => {
                    self.refused = None;
                    self.outbox.confirmed(&record_key, in_flight);
                }
                BrokerAnswer::Refused(refusal) => {
                    self.outbox.refused(&record_key, in_flight, refusal, now);
                    let is_new = self.refused.replace(refusal) != Some(refusal);
                    if is_new {
                        warn!(?refusal, "the broker refuses updates, publishing them again after a wait");
                    }
                    (self.on_event)(PublisherEvent::Refused { refusal, is_new });
                }
                BrokerAnswer::Lost(error) => {
                    if !matches!(fault, Some(SessionFault::Fatal(_))) {
                        fault = Some(self.fault(&error));
                    }
                }
            }
        }
        fault
    }

    fn fault(&self, error: &lapin::Error) -> SessionFault {
        match session::fatal(error, &self.settings.exchange) {
            Some(error) => SessionFault::Fatal(error),
            None => SessionFault::Lost { cause: error_chain(error) },
        }
    }

    /// Takes what the lost session has still confirmed, and begins to connect again.
    async fn fail(
        &mut self,
        state: ConnectionState,
        fault: SessionFault,
    ) -> Result<ConnectionState, PublishError> {
        let mut fault = fault;
        if let ConnectionState::Up { mut confirms, .. } = state {
            let last = async {
                while !confirms.is_empty() {
                    let answers = confirms.answered().await;
                    if let Some(found @ SessionFault::Fatal(_)) = self.apply(answers) {
                        fault = found;
                    }
                }
            };
            let _ = tokio::time::timeout(LAST_CONFIRMS_TIMEOUT, last).await;
        }
        match fault {
            SessionFault::Fatal(error) => Err(error),
            SessionFault::Lost { cause } => {
                self.outbox.disconnected();
                self.is_blocked = false;
                warn!(cause, "broker connection lost, reconnecting");
                (self.on_event)(PublisherEvent::Connection(ConnectionEvent::Down { cause }));
                Ok(ConnectionState::Down {
                    connecting: Box::pin(reconnect(self.address.clone(), self.settings.clone())),
                })
            }
        }
    }
}

/// Tries until the broker lets us in, unless that would not help.
async fn reconnect(address: Address, settings: PublisherSettings) -> Result<PublisherSession, PublishError> {
    let mut backoff = Backoff::new(RECONNECT_DELAY_MIN, RECONNECT_DELAY_MAX);
    loop {
        backoff.wait().await;
        match PublisherSession::open(&address, &settings).await {
            // A broker that starts refuses logins and virtual hosts for a while.
            Err(PublishError::Connect(error)) if !error.is_of_the_url() => {
                debug!(error = error_chain(&error), "cannot connect to the broker, trying again");
            }
            done => return done,
        }
    }
}

/// Tries until the broker lets us in and the exchange is there: whoever declares it may start at the same time.
async fn connect_first(
    address: Address,
    settings: PublisherSettings,
) -> Result<PublisherSession, PublishError> {
    let mut backoff = Backoff::new(RECONNECT_DELAY_MIN, RECONNECT_DELAY_MAX);
    let mut log = LogOnChange::default();
    loop {
        match PublisherSession::open(&address, &settings).await {
            Err(error @ (PublishError::Connect(_) | PublishError::ExchangeMissing { .. })) if !matches!(&error, PublishError::Connect(error) if error.is_of_the_url()) =>
            {
                let text = error_chain(&error);
                if log.is_new(text.clone()) {
                    warn!(error = text, "nothing can be published yet, trying again");
                }
            }
            done => return done,
        }
        backoff.wait().await;
    }
}

async fn sleep_until(started: Instant, deadline: Option<Tick>) {
    tokio::time::sleep_until(started + deadline.unwrap_or_default().since(Tick::ZERO)).await;
}
