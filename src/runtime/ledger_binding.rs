//! One exchange, one ledger: two ledgers would not know of each other's parked records and applied updates, and two exchanges
//! would mix theirs in one.
//!
//! Each names the other one: the layout document the ledger, the ledger the topology. And each start writes a new mark, first
//! into the ledger and then into the document. A file that was copied before a start, or a backup from before it, does not have
//! the mark of the document.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::step_down::ReachWatch;
use lanekeeper_broker::{Address, Connection, DocumentLock, Epochs, LayoutDocument, Names, SourceError};
use lanekeeper_core::error::error_chain;
use lanekeeper_ledger::{AnyLedger, BoundTopology, Ledger, LedgerBinding, LedgerError, TopologyPlace};

/// How often a running process looks at its ledger. Until then a copy can be written to, and what it parks is not seen by
/// others.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A ledger that nobody has used for so long can be taken over by an exchange that was made again.
const UNUSED_MIN: Duration = Duration::from_secs(20);
/// How long a start may take for the mark: an alarm of the broker keeps the document from being written.
const MARK_TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The ledger and the exchange do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingFault {
    /// Another ledger belongs to the exchange.
    #[error(
        "another ledger ({recorded}) belongs to this exchange, and this one does not know which records are parked there. Set \
         ledger.url to that ledger (for several hosts: PostgreSQL); if it is lost, start `lanekeeper run --adopt-ledger` once"
    )]
    OtherLedger {
        /// Its identity.
        recorded: Uuid,
    },
    /// The exchange has a ledger, and this process has none.
    #[error(
        "a ledger ({recorded}) belongs to this exchange, and ledger.url is \"none\": what is parked in it would be overtaken. Set \
         ledger.url to that ledger; if it is lost, start `lanekeeper run --adopt-ledger` once"
    )]
    NoLedger {
        /// Its identity.
        recorded: Uuid,
    },
    /// The ledger belongs to another exchange of the same name.
    #[error(
        "this ledger belongs to another exchange with the same names ({place}): to one that was deleted and made again while \
         this process ran, or to that of another broker whose cluster has the same name. In the first case start again; in the \
         second give each broker a ledger of its own (ledger.url). If the other exchange is gone for good, start `lanekeeper run \
         --adopt-ledger` once"
    )]
    Namesake {
        /// Of both.
        place: String,
    },
    /// The ledger belongs to another exchange.
    #[error(
        "this ledger belongs to {bound}, not to {own}: parked updates and ids of the two would mix, and released updates could go to \
         the targets of the other one. Give each exchange a ledger of its own (ledger.url); if the other exchange is gone for \
         good, start `lanekeeper run --adopt-ledger` once"
    )]
    OtherTopology {
        /// Which, as the ledger says.
        bound: String,
        /// Which one this process is for.
        own: String,
    },
    /// The ledger is a copy.
    #[error(
        "this ledger is a copy, or was restored from a backup: it does not have the mark {mark} that the last start of a \
         dispatcher wrote into the ledger of this exchange. Set ledger.url to the ledger that was used then (for several \
         hosts: PostgreSQL). If that one is lost, start `lanekeeper run --adopt-ledger` once: what was parked or applied since \
         the copy was made is not known to it"
    )]
    Copy {
        /// That of the layout document.
        mark: Uuid,
    },
}

/// Why a ledger cannot be bound now.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// Of the broker.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Of the ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A dispatcher of another exchange with the same names has used the ledger a moment ago.
    #[error(
        "dispatchers of another exchange with the same names ({place}) used this ledger until a moment ago: waiting until they \
         have stopped for {} s. If that is the exchange of another broker, give this one a ledger of its own (ledger.url)",
        UNUSED_MIN.as_secs()
    )]
    InUse {
        /// Of both.
        place: String,
    },
    /// A person must act.
    #[error(transparent)]
    Fault(#[from] BindingFault),
}

impl BindingError {
    /// Returns true if a later try can succeed, without a person.
    pub(super) fn can_heal(&self) -> bool {
        match self {
            Self::Source(fault) => fault.can_heal(),
            Self::Ledger(fault) => fault.can_heal(),
            Self::InUse { .. } => true,
            Self::Fault(_) => false,
        }
    }
}

/// How a ledger and an exchange that fit each other stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Neither uses the other: there is no ledger.
    NoLedger,
    /// They name each other.
    Bound,
    /// They belong together from now on.
    New,
    /// The exchange was made again, and its ledger was kept.
    TopologyRecreated,
    /// A person wants it.
    Adopted,
}

/// The one comparison of what the document says of the ledger with what the ledger says of the exchange. Pure.
fn compare(
    document: &LayoutDocument,
    ledger: Option<(Uuid, &LedgerBinding)>,
    place: &TopologyPlace,
    adopt: bool,
) -> Result<Fit, BindingFault> {
    let Some((identity, binding)) = ledger else {
        return match document.ledger {
            None => Ok(Fit::NoLedger),
            Some(_) if adopt => Ok(Fit::Adopted),
            Some(recorded) => Err(BindingFault::NoLedger { recorded }),
        };
    };
    let is_recorded = match document.ledger {
        Some(recorded) if recorded != identity => {
            return if adopt { Ok(Fit::Adopted) } else { Err(BindingFault::OtherLedger { recorded }) };
        }
        recorded => recorded.is_some(),
    };
    let fit = match &binding.topology {
        None => Fit::New,
        Some(bound) if document.identity == Some(bound.identity) => Fit::Bound,
        // A document without an identity is new, or an older program has written it.
        Some(bound) if document.identity.is_none() && bound.place.can_be(place) => {
            if is_recorded {
                Fit::New
            } else {
                Fit::TopologyRecreated
            }
        }
        Some(_) if adopt => Fit::Adopted,
        Some(bound) => {
            let (bound, own) = (bound.place.to_string(), place.to_string());
            return Err(if bound == own {
                BindingFault::Namesake { place: own }
            } else {
                BindingFault::OtherTopology { bound, own }
            });
        }
    };
    match document.ledger_mark.filter(|mark| is_recorded && !binding.marks.contains(mark)) {
        None => Ok(fit),
        Some(_) if adopt => Ok(Fit::Adopted),
        Some(mark) => Err(BindingFault::Copy { mark }),
    }
}

/// A ledger, and the exchange that it is for.
pub struct LedgerAndExchange<'a> {
    pub ledger: Option<&'a AnyLedger>,
    pub place: &'a TopologyPlace,
    pub names: &'a Names,
    pub instance: &'a str,
    /// Are told of the highest tenure number in the ledger, each time that it is read.
    pub epochs: &'a Epochs,
    /// If true, the ledger belongs to the exchange from now on, whatever was used before.
    pub adopt: bool,
}

impl LedgerAndExchange<'_> {
    async fn compare(&self, document: &LayoutDocument) -> Result<(Fit, Option<LedgerBinding>), BindingError> {
        let Some(ledger) = self.ledger else {
            return Ok((compare(document, None, self.place, self.adopt)?, None));
        };
        let binding = ledger.binding().await?;
        self.epochs.ledger_has(binding.highest);
        let fit = compare(document, Some((ledger.identity(), &binding)), self.place, self.adopt)?;
        if fit == Fit::TopologyRecreated && binding.used_ago.is_some_and(|ago| ago < UNUSED_MIN) {
            return Err(BindingError::InUse { place: self.place.to_string() });
        }
        Ok((fit, Some(binding)))
    }

    /// Compares both, writes into each that it belongs to the other, and returns the document. `known`: as it was read.
    ///
    /// If the document names the ledger already, the start goes on after [`MARK_TIMEOUT`] in any case: an alarm of the broker, or
    /// another process that holds the lock, keeps the document from being written.
    ///
    /// # Errors
    /// They do not belong together; or one of them does not answer.
    pub async fn bind(
        &self,
        address: &Address,
        known: LayoutDocument,
    ) -> Result<LayoutDocument, BindingError> {
        let (fit, _) = self.compare(&known).await?;
        if fit == Fit::NoLedger {
            return Ok(known);
        }
        let is_recorded = known.ledger.is_some() && known.ledger == self.ledger.map(Ledger::identity);
        let can_wait = is_recorded && matches!(fit, Fit::Bound | Fit::New);
        // A connection of its own: an alarm freezes one that publishes, and the lock would stay with it.
        let connection = address
            .connect(&format!("lanekeeper {} ledger", self.instance))
            .await
            .map_err(SourceError::from)?;
        let binding = self.bind_locked(&connection, &known);
        let bound = if can_wait { timeout(MARK_TIMEOUT, binding).await.ok() } else { Some(binding.await) };
        let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
        match bound {
            None => {
                debug!("the layout document cannot be written now: going on without the mark of this start");
            }
            Some(Err(error)) if can_wait && error.can_heal() => {
                debug!(error = error_chain(&error), "going on without the mark of this start");
            }
            Some(bound) => return bound,
        }
        Ok(known)
    }

    async fn bind_locked(
        &self,
        connection: &Connection,
        known: &LayoutDocument,
    ) -> Result<LayoutDocument, BindingError> {
        let mut lock = DocumentLock::take(connection, self.names, self.instance, known).await?;
        // Another process may have been faster: the lock was its too.
        let document = lock.document().clone();
        let (fit, binding) = self.compare(&document).await?;
        let bound = binding.and_then(|binding| binding.topology).map(|topology| topology.identity);
        let kept = bound.filter(|_| fit == Fit::New);
        let identity = document.identity.or(kept).unwrap_or_else(Uuid::new_v4);
        let mark = self.ledger.map(|_| Uuid::new_v4());
        if let Some((ledger, mark)) = self.ledger.zip(mark) {
            let topology = BoundTopology { identity, place: self.place.clone() };
            if !ledger.bind(bound, &topology, mark, document.ledger_mark).await? {
                // Another exchange was faster, and the next try finds it.
                return Err(BindingError::InUse { place: self.place.to_string() });
            }
        }
        let before = document.ledger;
        let ledger = self.ledger.map(Ledger::identity);
        lock.write(LayoutDocument { identity: Some(identity), ledger, ledger_mark: mark, ..document })
            .await?;
        let document = lock.release().await?;
        match fit {
            Fit::NoLedger | Fit::Bound => {}
            Fit::New => info!("the ledger and the exchange belong together from now on"),
            Fit::TopologyRecreated => warn!(
                exchange = self.place.exchange,
                vhost = self.place.vhost,
                "the exchange was made again, and its ledger was kept: this process uses it. What waited in queues that were deleted is lost: publish it again"
            ),
            Fit::Adopted => warn!(
                before = before.map(tracing::field::display),
                "adopted the ledger: updates that were parked in another ledger are not in it, and ids that were applied there are not recognised"
            ),
        }
        Ok(document)
    }

    /// The dispatchers of this process have stopped.
    pub async fn stopped(&self, document: &LayoutDocument) {
        if let Some((ledger, identity)) = self.ledger.zip(document.identity) {
            let _ = timeout(CLOSE_TIMEOUT, ledger.set_used(identity, false)).await; // it is known soon in any case
        }
    }

    /// Looks at both again and again, and returns if they belong together no longer: somebody has started a dispatcher with a
    /// copy of the ledger, has given the ledger to another exchange, or another ledger to the exchange.
    pub async fn ended(
        &self,
        documents: &watch::Receiver<LayoutDocument>,
        reached: &ReachWatch,
    ) -> BindingFault {
        let own = Self { adopt: false, ..*self }; // what it has adopted is in the document by now
        let mut interval = interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // Before the ledger is read: the ledger is written first.
            let document = documents.borrow().clone();
            match own.compare(&document).await {
                Err(BindingError::Fault(fault)) => return fault,
                Err(BindingError::Ledger(_)) => {
                    reached.asked_ledger(false);
                    continue;
                }
                Err(BindingError::Source(_) | BindingError::InUse { .. }) => continue,
                Ok(_) => reached.asked_ledger(true),
            }
            if let Some((ledger, identity)) = self.ledger.zip(document.identity)
                && let Err(fault) = ledger.set_used(identity, true).await
            {
                debug!(error = error_chain(&fault), "cannot note in the ledger that it is used");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fit::{Adopted, Bound, New, NoLedger, TopologyRecreated};

    const LEDGER: u128 = 1;
    const TOPOLOGY: u128 = 2;
    const MARK: u128 = 3;
    const OTHER: u128 = 9;

    fn place(exchange: &str) -> TopologyPlace {
        TopologyPlace { cluster: Some("c".to_owned()), vhost: "/".to_owned(), exchange: exchange.to_owned() }
    }

    /// A document as `identity ledger mark`, a ledger as `topology exchange marks`, `-` for what is missing; each by its number.
    #[track_caller]
    fn check(document: [u128; 3], ledger: Option<(u128, &str, &[u128])>, expected: Result<Fit, &str>) {
        let known = |number: u128| (number != 0).then(|| Uuid::from_u128(number));
        let [identity, of_document, mark] = document.map(known);
        let text = r#"{"version":1,"in_force":{"number":1,"partitions":1,"prefetch":1},"changed_by":"a","changed_at":1}"#;
        let document: LayoutDocument = serde_json::from_str(text).unwrap();
        let document = LayoutDocument { identity, ledger: of_document, ledger_mark: mark, ..document };
        let binding = ledger.map(|(topology, exchange, marks)| LedgerBinding {
            topology: known(topology).map(|identity| BoundTopology { identity, place: place(exchange) }),
            marks: marks.iter().copied().map(Uuid::from_u128).collect(),
            ..LedgerBinding::default()
        });
        let ledger = binding.as_ref().map(|binding| (Uuid::from_u128(LEDGER), binding));
        match (compare(&document, ledger, &place("updates"), false), expected) {
            (Ok(fit), Ok(expected)) => assert_eq!(fit, expected),
            (Err(fault), Err(part)) => assert!(fault.to_string().contains(part), "{fault}"),
            (found, _) => panic!("{found:?}, expected {expected:?}"),
        }
        let adopted = compare(&document, ledger, &place("updates"), true).expect("a person wants it");
        assert_eq!(adopted == Adopted, expected.is_err());
    }

    #[test]
    fn a_ledger_and_an_exchange_fit_or_the_fault_says_which_does_not() {
        let bound = [TOPOLOGY, LEDGER, MARK];
        check([0, 0, 0], None, Ok(NoLedger));
        check([0, LEDGER, 0], None, Err("ledger.url is \"none\""));
        check([0, 0, 0], Some((0, "", &[])), Ok(New));
        check(bound, Some((TOPOLOGY, "updates", &[7, MARK, 8])), Ok(Bound));
        check(bound, Some((TOPOLOGY, "renamed", &[MARK])), Ok(Bound));
        check([TOPOLOGY, OTHER, MARK], Some((0, "", &[])), Err("another ledger"));
        check(bound, Some((OTHER, "updates", &[MARK])), Err("another exchange with the same names"));
        check(bound, Some((OTHER, "b", &[MARK])), Err("belongs to the exchange b "));
        check([0, 0, 0], Some((OTHER, "a", &[MARK])), Err("belongs to the exchange a "));
        check([0, 0, 0], Some((OTHER, "updates", &[MARK])), Ok(TopologyRecreated));
        check(bound, Some((TOPOLOGY, "updates", &[7])), Err("is a copy"));
        // Programs of before know neither identities nor marks, and leave them out when they write.
        check([0, LEDGER, 0], Some((0, "", &[])), Ok(New));
        check([0, LEDGER, 0], Some((TOPOLOGY, "updates", &[MARK])), Ok(New));
        check([0, LEDGER, MARK], Some((TOPOLOGY, "updates", &[7])), Err("is a copy"));
    }
}
