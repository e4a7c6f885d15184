//! What can go wrong with the broker. There is a variant for each thing that a person does about it.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use super::connection::ConnectError;
use super::names::HASH_EXCHANGE_TYPE;

/// A fault of the broker, of its topology, or of the connection to it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker has no hash exchange.
    #[error(
        "the broker does not know the exchange type {HASH_EXCHANGE_TYPE}; it is in the plugin rabbitmq_sharding, \
         which ships with RabbitMQ: run `rabbitmq-plugins enable rabbitmq_sharding` on every node"
    )]
    HashExchangeMissing,
    /// Something exists with other properties than it must have.
    #[error(
        "{object} exists with {argument} = {found}, but it must be {expected}; delete it when it is empty, or use \
         another updates.exchange"
    )]
    Differs {
        /// What it is, with its name.
        object: String,
        /// The property.
        argument: String,
        /// As it must be.
        expected: String,
        /// As it is.
        found: String,
    },
    /// The user may not do what the topology needs.
    #[error(
        "the broker does not permit it: {text}; grant configure, write and read on {exchange} and {exchange}.*, and \
         write on amq.default"
    )]
    NotPermitted {
        /// The broker's words.
        text: String,
        /// `updates.exchange`.
        exchange: String,
    },
    /// A queue or exchange of the topology was deleted.
    #[error(
        "{text}; it was deleted by hand: updates may have been lost with it, and without it keys go to other partitions. \
         Find out what it held (the publishers know), then start `lanekeeper run` again, which declares it again"
    )]
    Missing {
        /// The broker's words.
        text: String,
    },
    /// A witness is in another queue than when the layout was made.
    #[error(
        "keys have moved: the exchange {exchange} routes {key} to {found}, and routed it to {recorded} when the layout \
         was made; all dispatch stops, since an update can now overtake an older one of its record. `rabbitmqctl \
         list_bindings` shows what is bound to {exchange}: bind exactly the queues of the layout, once each, then start \
         again"
    )]
    Moved {
        /// The hash exchange of the layout.
        exchange: String,
        /// The routing key of the witness.
        key: String,
        /// The queue that the layout document names.
        recorded: String,
        /// The queue that it was in now.
        found: String,
    },
    /// Another process has found [`Self::Moved`].
    #[error(
        "{instance} has found that keys have moved to other queues; all dispatch stops. Its log names the key and says \
         what to do"
    )]
    MovedElsewhere {
        /// Who has found it.
        instance: String,
    },
    /// A witness of a new layout is in none of its queues.
    #[error(
        "the exchange {exchange} routes {key} to none of the layout's queues, or somebody else consumes them; \
         `rabbitmqctl list_bindings` shows what is bound to {exchange}: remove the bindings of other queues"
    )]
    Astray {
        /// The hash exchange of the layout.
        exchange: String,
        /// The routing key of the witness.
        key: String,
    },
    /// The broker confirmed a publish negatively.
    #[error("the broker refused what was published to {exchange}")]
    NotTaken {
        /// Where to.
        exchange: String,
    },
    /// The document in the topology stream is not one that this version can read.
    #[error("the layout document in the stream {stream} cannot be read: {fault}")]
    Document {
        /// The stream.
        stream: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Another ledger belongs to the exchange.
    #[error(
        "another ledger ({recorded}) belongs to this exchange, and this one does not know which records are parked there. Set \
         ledger.url to that ledger (for several hosts: PostgreSQL); if it is lost, start `lanekeeper run --adopt-ledger` once"
    )]
    OtherLedger {
        /// Its identity.
        recorded: uuid::Uuid,
    },
    /// There is no layout to change.
    #[error(
        "there is no layout of the exchange {exchange} yet; the first `lanekeeper run` makes it, with updates.partitions \
         and dispatch.prefetch of its config"
    )]
    NoLayout {
        /// `updates.exchange`.
        exchange: String,
    },
    /// Another process holds the lock for changing the layout.
    #[error("the lock {lock} is held by another connection; the RabbitMQ UI shows its owner, under Queues")]
    Locked {
        /// The lock's queue.
        lock: String,
    },
    /// Everything else that the client reports.
    #[error("broker: {step}")]
    Amqp {
        /// What was being done.
        step: &'static str,
        /// The client's error.
        #[source]
        source: Box<lapin::Error>,
    },
    /// The connection was lost before the broker answered.
    #[error("broker: the connection was lost")]
    ConnectionLost,
    /// The broker did not answer in time.
    #[error("broker: {step}: no answer within {seconds} s")]
    Silent {
        /// What was being done.
        step: &'static str,
        /// How long we waited.
        seconds: u64,
    },
}

impl SourceError {
    /// Returns true if waiting can heal it. At the start, any other fault ends the process with exit code 3; later, all are
    /// retried, since the partition would otherwise have no owner.
    #[must_use]
    pub fn can_heal(&self) -> bool {
        match self {
            Self::Connect(error) => error.can_heal(),
            Self::ConnectionLost | Self::Silent { .. } | Self::Locked { .. } | Self::NotTaken { .. } => true,
            Self::Amqp { source, .. } => !is_final(source),
            Self::HashExchangeMissing
            | Self::Differs { .. }
            | Self::NotPermitted { .. }
            | Self::Missing { .. }
            | Self::Moved { .. }
            | Self::MovedElsewhere { .. }
            | Self::Astray { .. }
            | Self::Document { .. }
            | Self::NoLayout { .. }
            | Self::OtherLedger { .. } => false,
        }
    }

    /// Returns true if a queue was deleted by hand. If its node is merely down, the broker says so in other words ("home node
    /// … is down", RabbitMQ 3.10), and the queue comes back.
    pub(crate) fn is_deleted_queue(&self) -> bool {
        matches!(self, Self::Missing { text } if text.contains("no queue '"))
    }

    /// Returns true if an exchange was not deleted because something is bound to it ("exchange 'x' in vhost '/' in use", 3.10.8).
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::Amqp { source, .. } if source.to_string().contains("in use"))
    }

    /// The client's error, as it is, at this step.
    pub(crate) fn amqp(step: &'static str) -> impl Fn(lapin::Error) -> Self + Copy {
        move |source| Self::Amqp { step, source: Box::new(source) }
    }

    /// Sorts the client's error by what a person does about it. `object` names what `step` was about.
    pub(crate) fn from_amqp(step: &'static str, object: &str, exchange: &str, source: lapin::Error) -> Self {
        let ErrorKind::ProtocolError(error) = source.kind() else {
            return Self::amqp(step)(source);
        };
        let text = error.get_message().to_string();
        match error.kind() {
            // Hard in RabbitMQ 3.10, soft in 4.0.
            AMQPErrorKind::Hard(AMQPHardError::COMMANDINVALID)
            | AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                if text.contains(&format!("exchange type '{HASH_EXCHANGE_TYPE}'")) =>
            {
                Self::HashExchangeMissing
            }
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => match inequivalence(&text) {
                Some((argument, expected, found)) => {
                    Self::Differs { object: object.to_owned(), argument, expected, found }
                }
                None => Self::amqp(step)(source),
            },
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self::Missing { text },
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                Self::NotPermitted { text, exchange: exchange.to_owned() }
            }
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => Self::Locked { lock: object.to_owned() },
            _ => Self::amqp(step)(source),
        }
    }
}

/// The broker's words for a stream that is declared but not started: another dispatcher has declared it this moment, or
/// the broker itself has just started (RabbitMQ 4.0.5 and 3.10.8, measured).
const STREAM_NOT_STARTED: [&str; 2] =
    ["does not have a running replica", "does not have a replica on the local node"];

/// Returns true if the broker has answered, and would answer the same again. All other errors are of the connection.
fn is_final(source: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = source.kind() else { return false };
    match error.kind() {
        AMQPErrorKind::Soft(_) => {
            let text = error.get_message().as_str();
            !STREAM_NOT_STARTED.iter().any(|words| text.contains(words))
        }
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => true,
        AMQPErrorKind::Hard(_) => false,
    }
}

/// The broker's word for the value of an argument that is not there.
pub(crate) const NO_ARGUMENT: &str = "none";

/// Takes the broker's sentence apart:
/// `inequivalent arg 'x' for queue 'q' in vhost '/': received the value 'a' of type 't' but current is the value 'b' …`.
/// "Received" is what we asked for.
fn inequivalence(text: &str) -> Option<(String, String, String)> {
    let rest = text.split_once("inequivalent arg '")?.1;
    let (argument, rest) = rest.split_once('\'')?;
    let (_, rest) = rest.split_once("received ")?;
    let (expected, found) = rest.split_once(" but current is ")?;
    Some((argument.to_owned(), value(expected), value(found)))
}

/// `the value 'a' of type 'longstr'` → `a`; `none` stays.
fn value(text: &str) -> String {
    let inner = text.split_once('\'').and_then(|(_, rest)| rest.split_once('\''));
    inner.map_or_else(|| text.trim().to_owned(), |(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences of RabbitMQ 3.10 and 4.0.
    #[test]
    fn the_difference_is_spelled_out() {
        let check = |text: &str, argument: &str, expected: &str, found: &str| {
            let found_values = inequivalence(text).expect(text);
            assert_eq!(found_values, (argument.to_owned(), expected.to_owned(), found.to_owned()), "{text}");
        };
        check(
            "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'updates.l1.p000' in vhost '/': \
             received the value '1000000' of type 'signedint' but current is none",
            "x-delivery-limit",
            "1000000",
            "none",
        );
        check(
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'updates' in vhost '/': received 'fanout' but \
             current is 'topic'",
            "type",
            "fanout",
            "topic",
        );
        check(
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'updates.dead' in vhost '/': received the \
             value 'quorum' of type 'longstr' but current is the value 'classic' of type 'longstr'",
            "x-queue-type",
            "quorum",
            "classic",
        );
        assert_eq!(inequivalence("PRECONDITION_FAILED - something else"), None);
    }
}
