//! Puts back what somebody deletes while updates are dispatched: the exchange that publishers know, its binding, and the
//! exchanges behind it. Without them the broker confirms what publishers send, and drops it.
//!
//! No request of AMQP 0-9-1 shows a binding. So the two bindings that are the same for all layouts are made again in any
//! case, and a second exchange shows that the public one was deleted: the broker deletes it then, too, since it is made with
//! `auto_delete` and has one binding, to the public exchange.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::declare::{declare_inner, declare_layout, declare_public, declare_public_again};
use super::document::LayoutDocument;
use super::document_stream;
use super::follower::Follower;
use super::leftover::refuse_newer_layouts;
use super::session::TopologySession;
use super::unknown::{Unknown, unknown_objects};
use crate::connection::Address;
use crate::error::SourceError;
use crate::link::Link;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::error::error_chain;

/// How often it looks: some ten requests, which take a few milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks until it is dropped.
#[derive(Debug)]
pub struct BindingGuard(#[expect(dead_code, reason = "held, not used")] AbortOnDropHandle<()>);

impl BindingGuard {
    /// Looks on this link, which must not be one that publishes: an alarm would block it. For what takes the lock it makes a
    /// connection of its own.
    #[must_use]
    pub fn begin(link: Link, address: Address, names: &Names, instance: &str, follower: &Follower) -> Self {
        let guard = Guard {
            link,
            address,
            names: names.clone(),
            instance: instance.to_owned(),
            documents: follower.watch(),
            was_watched: false,
            has_alternate: true,
            log: LogOnChange::default(),
        };
        Self(AbortOnDropHandle::new(tokio::spawn(guard.look_for_ever())))
    }
}

struct Guard {
    link: Link,
    address: Address,
    names: Names,
    instance: String,
    documents: watch::Receiver<LayoutDocument>,
    /// This process has seen the exchange that is deleted together with the public one.
    was_watched: bool,
    /// The public exchange had its alternate exchange when it was declared last.
    has_alternate: bool,
    log: LogOnChange,
}

impl Guard {
    async fn look_for_ever(mut self) {
        loop {
            let fault = match self.look_on_one_connection().await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            let error = error_chain(&fault);
            if fault.can_heal() {
                if self.log.is_new(error.clone()) {
                    warn!(error, "cannot check the exchanges before the queues, trying again every 5 s");
                }
            } else if self.log.is_new(error.clone()) {
                error!(
                    error,
                    "the exchanges before the queues are not as they must be, and cannot be put right: publishes may be confirmed and lost; trying again every 5 s"
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn look_on_one_connection(&mut self) -> Result<Infallible, SourceError> {
        let (number, connection) = self.link.connected().await;
        let (link, names, instance) = (self.link.clone(), self.names.clone(), self.instance.clone());
        let mut session = TopologySession::new(&connection, &names, &instance);
        let looking = async {
            loop {
                self.look(&mut session).await?;
                if self.log.cleared() {
                    info!("the exchanges before the queues are as they must be again");
                }
                sleep(LOOK_EVERY).await;
            }
        };
        link.while_up(number, looking).await
    }

    async fn look(&mut self, session: &mut TopologySession<'_>) -> Result<(), SourceError> {
        let names = session.names();
        let layout = self.documents.borrow().layouts.in_force.number;
        let exchanges =
            [names.public().to_owned(), names.ingress(), names.handoff(), names.dead(), names.layout(layout)];
        for exchange in exchanges {
            if !session.knows_exchange(&exchange).await? {
                return self.restore().await;
            }
        }
        if self.was_watched && !session.knows_exchange(&names.watch()).await? {
            error!(
                exchange = names.public(),
                "the exchange for publishers was deleted and declared again, binding it again: what was published to it since then and was not mandatory was confirmed and lost"
            );
        }
        declare_public_again(session, &mut self.has_alternate).await?;
        session.bind_queue(&names.dead(), &names.dead()).await?;
        self.was_watched = true;
        Ok(())
    }

    /// Declares the missing exchanges again, with their bindings.
    async fn restore(&mut self) -> Result<(), SourceError> {
        let connection = self.address.connect(&format!("lanekeeper {} layout", self.instance)).await?;
        let mut session = TopologySession::new(&connection, &self.names, &self.instance);
        let restored = restore_locked(&mut session).await;
        // With it goes the lock.
        let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
        match restored {
            // Another replica does it, or changes the layout.
            Err(SourceError::Locked { .. }) => Ok(()),
            // With the public exchange the watch was gone, and there is nothing more to say of it.
            Ok(()) => {
                self.was_watched = false;
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }
}

/// The exchange of the layout is bound to the ingress after its queues are bound to it, so that no key goes to another queue
/// than before.
async fn restore_locked(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    session.lock().await?;
    let Some(document) = document_stream::read_proven(session).await? else {
        return Err(SourceError::NoLayout { exchange: session.names().public().to_owned() });
    };
    // The change is brought to its end by whoever holds the lock next, and declares what is missing.
    if document.layouts.changing.is_some() {
        return Ok(());
    }
    refuse_newer_layouts(session, &document).await?;
    let layout = document.layouts.in_force;
    let Unknown { others, queues } = unknown_objects(session, layout).await?;
    if let Some(queue) = queues.first() {
        return Err(SourceError::Missing { text: format!("the queue {queue} is missing, too") });
    }
    if others.is_empty() {
        return Ok(());
    }
    error!(
        missing = others.join(", "),
        "somebody has deleted what lies before the queues, declaring and binding it again: what was published since then and was not mandatory may have been confirmed and lost"
    );
    declare_inner(session).await?;
    declare_layout(session, layout).await?;
    declare_public(session).await?;
    session.unlock().await
}
