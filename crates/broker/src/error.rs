//! What can go wrong with the broker. There is a variant for each thing that a person does about it.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use tracing::debug;

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
    /// The node that this process is connected to is cut off from the others, or is alone while the cluster starts.
    #[error(
        "no quorum, {step}: the node of this connection reaches no majority of the cluster's nodes, since the cluster starts or is \
         split; nothing is declared, deleted or taken for deleted until it does. `rabbitmqctl cluster_status` shows the nodes \
         that it sees"
    )]
    NoQuorum {
        /// What was being done.
        step: &'static str,
    },
    /// A stream that is there has no replica on this node that could answer: it starts with the node, or once another
    /// dispatcher has declared it.
    #[error(
        "no running replica of the {stream} on the node of this connection. It starts soon after the node or the stream; if this \
         lasts, the node joined the cluster after the stream was made, and `rabbitmq-streams add_replica --vhost VHOST {} NODE` \
         gives it one (`rabbitmqctl cluster_status` names the nodes)",
        .stream.trim_start_matches("stream ")
    )]
    NoReplica {
        /// Which, such as "stream updates.topology".
        stream: String,
    },
    /// The first layout cannot be made on this broker.
    #[error("no layout is made: {what}; {fix}")]
    NoRoom {
        /// What is in its way.
        what: String,
        /// What removes that.
        fix: String,
    },
    /// A queue is there, and its nodes are down.
    #[error(
        "the node of the {queue} is down, and the queue comes back with it; `rabbitmqctl cluster_status` shows the nodes"
    )]
    NodeDown {
        /// Which, such as "queue updates.l1.p000".
        queue: String,
    },
    /// The node of this connection does not know the layout that the other nodes have.
    #[error(
        "the queue {queue} is consumed, but the node of this connection knows no layout: the stream with the layout document was \
         deleted, or a split of the cluster is over and the node still has its own view. No layout is made. If `rabbitmqctl \
         cluster_status` shows something under Network Partitions, restart the node; otherwise stop all dispatchers, then start \
         them again"
    )]
    OutOfStep {
        /// A queue of the layout.
        queue: String,
    },
    /// Another process has changed the layout document at the same time, as both sides of a split can begin to.
    #[error(
        "{changed_by} has changed the layout document at the same time; what this process has written does not count"
    )]
    Outrun {
        /// Whose document counts.
        changed_by: String,
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
    /// There is no layout document, and a layout that only a document can name.
    #[error(
        "there is no layout document in the stream {stream}, but {what}: the stream was deleted, or definitions were imported \
         that were exported at a later layout. No layout is made, since each update would go two ways. To keep the layout that is \
         there, stop all dispatchers, call `lanekeeper topology adopt`, and start them again. To begin with another one, once \
         `rabbitmqctl list_queues --vhost VHOST name messages consumers` shows its queues empty and unused, delete them \
         (`rabbitmqctl delete_queue --vhost VHOST {exchange}.lN.pNNN`) and the exchange (`rabbitmqadmin --vhost=VHOST delete \
         exchange name={exchange}.lN`)"
    )]
    DocumentGone {
        /// The stream.
        stream: String,
        /// `updates.exchange`.
        exchange: String,
        /// What is there.
        what: String,
    },
    /// The layout document is older than the objects in the broker.
    #[error(
        "the layout document in the stream {stream} is older than the broker's objects: {what}. Nothing is declared, bound or \
         deleted, since updates could be lost or go two ways. The broker has lost the newest documents, as a power loss or a \
         copy of its data can do. Stop all dispatchers, call `lanekeeper topology adopt`, and start them again"
    )]
    DocumentOlder {
        /// The stream.
        stream: String,
        /// What the document does not know.
        what: String,
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
            Self::ConnectionLost
            | Self::Silent { .. }
            | Self::Locked { .. }
            | Self::NotTaken { .. }
            | Self::NoQuorum { .. }
            | Self::NoReplica { .. }
            | Self::NodeDown { .. }
            | Self::OutOfStep { .. }
            | Self::Outrun { .. } => true,
            Self::Amqp { source, .. } => !is_final(source),
            Self::HashExchangeMissing
            | Self::Differs { .. }
            | Self::NotPermitted { .. }
            | Self::Missing { .. }
            | Self::Moved { .. }
            | Self::MovedElsewhere { .. }
            | Self::Astray { .. }
            | Self::Document { .. }
            | Self::DocumentGone { .. }
            | Self::DocumentOlder { .. }
            | Self::NoLayout { .. }
            | Self::NoRoom { .. } => false,
        }
    }

    /// Returns true if the broker knows no such queue: it was deleted by hand, if a majority of the cluster's nodes was reached
    /// between two such answers. A node that is cut off answers so, too.
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

    /// As [`Self::from_amqp`], of the request to consume a queue or stream. A queue that reaches no leader is answered with
    /// 541 and no further words, after 20 to 30 s (RabbitMQ 3.10.8 and 4.0.5, measured on the smaller side of a split).
    pub(crate) fn from_consuming(
        step: &'static str,
        object: &str,
        exchange: &str,
        source: lapin::Error,
    ) -> Self {
        let is_wordless = matches!(source.kind(), ErrorKind::ProtocolError(error)
            if matches!(error.kind(), AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR))
                && error.get_message().as_str() == "INTERNAL_ERROR");
        if is_wordless {
            return Self::NoQuorum { step };
        }
        Self::from_amqp(step, object, exchange, source)
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
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                if has_one_of(&text, &STREAM_NOT_STARTED) =>
            {
                Self::NoReplica { stream: object.to_owned() }
            }
            AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR | AMQPHardError::RESOURCEERROR)
                if has_one_of(&text, &NO_MAJORITY) =>
            {
                debug!(step, text, "the broker has no majority");
                Self::NoQuorum { step }
            }
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) if text.contains(NODE_DOWN) => {
                Self::NodeDown { queue: object.to_owned() }
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

/// The broker's words on the smaller side of a split, each after 20 to 30 s (RabbitMQ 3.10.8 and 4.0.5, measured on three
/// nodes): to the declaration of a quorum queue, to that of a stream and its deletion (541 `INTERNAL_ERROR`), and to a publish
/// to a stream (506 `RESOURCE_ERROR`). What the smaller side knows, it declares as on any other day: a passive look and a
/// declaration succeed there, with zero messages whatever the queue holds. So do an exchange, a binding, an exclusive
/// queue, and the deletion of a quorum queue, which the larger side keeps.
const NO_MAJORITY: [&str; 4] = [
    "cluster_not_formed",
    "coordinator_unavailable",
    "Stream coordinator unavailable",
    "Cannot declare quorum queue",
];

/// The broker's words for a classic queue, or a queue of 3.10, whose node is down; the code is that of "not there"
/// (`rabbit_amqqueue` of RabbitMQ 3.10).
const NODE_DOWN: &str = "down or inaccessible";

fn has_one_of(text: &str, words: &[&str]) -> bool {
    words.iter().any(|words| text.contains(words))
}

/// Returns true if the broker has answered, and would answer the same again. All other errors are of the connection.
fn is_final(source: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = source.kind() else { return false };
    match error.kind() {
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => true,
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
mod tests;
