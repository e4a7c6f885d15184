//! Everything that Lanekeeper does with RabbitMQ, over AMQP 0-9-1. The only crate of the product that uses lapin.
//!
//! Begin with [`source`](Source): the two traits by which a driver of the product sees a partition's queue. Then:
//!
//! - `connection` makes a connection, behind a screen that keeps one hostile message from ending it; `link` keeps it up.
//! - `channel` is what everything does on a channel: publish with confirms, consume, read a stream. A consumer is never
//!   cancelled and its deliveries are never requeued, since both break order: a channel is closed instead.
//! - `topology` has the exchanges, queues and streams of one `updates.exchange`, and changes the layout. Begin with
//!   `topology/session.rs`, through which each step goes, and `topology/ensure.rs`.
//! - `membership` is how replicas know of each other: a stream in which they claim partitions, and in which their notes renew
//!   the lease without which they send nothing.
//! - `deliveries` consumes the queue of a partition, decodes what comes, acks what is settled, publishes dead letters.
//! - [`publisher`] publishes updates, for `lanekeeper publish` and for doors. A [`DoorReporter`] publishes what a door says of
//!   itself, and dispatchers [take that in](take_door_reports).
//! - [`Operator`] and [`inspect`] read and change a topology for a person, and [`probe_exchange`] looks at an exchange as a
//!   publisher.
//!
//! Modules use those before them in this list, never those after them, and no two files use each other.

mod answers;
mod backoff;
mod beliefs;
mod channel;
mod clock;
mod connection;
mod deliveries;
mod depths;
mod door_reporter;
mod door_reports;
mod epochs;
mod error;
mod exchange_probe;
mod halt;
mod inquiries;
mod inspection;
mod link;
mod liveness;
mod log_on_change;
mod membership;
mod message_size;
mod names;
mod operator;
mod presence;
pub mod publisher;
mod reach;
mod settings;
mod shares;
mod source;
mod topology;

pub use answers::AnswerPublisher;
pub use beliefs::{BELIEF_MAX, Beliefs};
pub use clock::Clock;
pub use connection::{Address, ConnectError, Connection};
pub use deliveries::{AmqpSource, DeadLetters, Decoder, SourceContext};
pub use depths::ready_messages;
pub use door_reporter::{DOOR_REPORT_BYTES_MAX, DOOR_REPORT_EVERY, DoorReporter, ReportKind};
pub use door_reports::{DoorEvent, take_door_reports};
pub use epochs::Epochs;
pub use error::SourceError;
pub use exchange_probe::{ExchangeProbe, ExchangePublishing, probe_exchange};
pub use halt::Halt;
pub use inquiries::{Inquiries, Inquiry};
pub use inspection::{Inspection, Object, ObjectState, Publishing, Role, inspect};
pub use link::Link;
pub use liveness::LivenessProbe;
pub use log_on_change::LogOnChange;
pub use membership::{
    Inquired, Membership, PartitionStatus, Replica, RetriedRecord, STATUS_TIMEOUT, SeenProcess, StatusAnswer,
    StatusAnswers,
};
pub use message_size::{MESSAGE_SIZE_TRIED_MAX, MessageSize, try_message_size, try_message_size_at};
pub use names::{HASH_EXCHANGE_TYPE, Names};
pub use operator::Operator;
pub use presence::{AnnouncedEvents, Notices, Presence, PresentReplica};
pub use reach::Reach;
pub use settings::ConnectionSettings;
pub use shares::{LIMITS_SHARED_MAX, Shares};
pub use source::{Deliveries, Gone, Lost, Received, Source, SourceEvent};
pub use topology::{
    Adopted, AutoApply, BindingGuard, DELIVERY_LIMIT, Depth, DocumentLock, FirstLayout, Follower,
    LayoutDocument, LayoutReconciler, Majority, Markers, Obstacle, Obstacles, Reconciled, Stuck, Witnesses,
    definitions, ensure as ensure_topology, remove as remove_topology,
};
