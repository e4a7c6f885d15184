//! The replicas of a layout know of each other by a stream of the broker, the stream of members: who consumes and claims
//! which partition, and what is held of it. A claim's offset is the number of its tenure, the same for all processes and
//! growing, with no database.
//!
//! The stream is read on the connection that consumes, so that a process which reads its own claim back knows that the
//! broker answers on it; it is published to on the other connection, since an alarm freezes that one.

mod claims;
mod message;
mod publisher;
mod reader;
mod state;
mod status_query;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub(crate) use claims::PartitionClaims;
pub use message::PartitionStatus;
pub(crate) use message::{READING, parse};
pub(crate) use status_query::ask;
pub use status_query::{STATUS_TIMEOUT, StatusAnswer, StatusAnswers};

use self::message::{MemberMessage, MessageKind, ReplicaId};
use self::publisher::{BLOCKED_POLL, publish_for_ever};
use self::reader::read_for_ever;
use self::state::{OutgoingMessage, READ_BACK_TIMEOUT, State};
use crate::halt::Halt;
use crate::link::Link;
use crate::names::Names;
use lanekeeper_core::layout::{Layout, PartitionNumber, rank};

/// What this process knows of the replicas of a layout, and what it publishes for them. Stops when it is dropped.
#[derive(Clone, Debug)]
pub struct Membership {
    state: Arc<State>,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

impl Membership {
    /// Declares the stream, reads it and publishes to it. `process`: another one at each start, which distinguishes replicas
    /// of one instance.
    #[must_use]
    pub fn join(
        (consuming, publishing): (Link, Link),
        names: &Names,
        layout: Layout,
        (instance, process): (&str, Uuid),
        halt: Halt,
    ) -> Self {
        let state = Arc::new(State {
            replica: ReplicaId {
                instance: instance.to_owned(),
                process: process.to_string(),
                layout: layout.number,
            },
            consuming,
            publishing,
            stream: names.members(),
            exchange: names.public().to_owned(),
            partitions: layout.partitions().map(|_| watch::Sender::default()).collect(),
            position: watch::Sender::default(),
            claims_made: AtomicU64::new(0),
            outgoing: Mutex::default(),
            wake: Notify::new(),
            halt,
        });
        let reader = AbortOnDropHandle::new(tokio::spawn(read_for_ever(Arc::clone(&state))));
        let publisher = AbortOnDropHandle::new(tokio::spawn(publish_for_ever(Arc::clone(&state))));
        Self { state, _tasks: Arc::new([reader, publisher]) }
    }

    /// The claims on a partition, as they change.
    pub(crate) fn watch(&self, partition: PartitionNumber) -> watch::Receiver<PartitionClaims> {
        self.state.partitions[usize::from(partition.0)].subscribe()
    }

    /// The priority that this process consumes the partition with.
    pub(crate) fn priority(&self, partition: PartitionNumber) -> i32 {
        rank(&self.state.replica.instance, partition)
    }

    /// How far the stream is read: what comes later has this offset or a higher one. Waits until it can be read at all.
    pub(crate) async fn position(&self) -> u64 {
        let mut position = self.state.position.subscribe();
        match position.wait_for(Option::is_some).await.map(|position| *position) {
            Ok(Some(position)) => position,
            _ => std::future::pending().await, // the process ends
        }
    }

    /// Publishes that this process consumes the partition.
    pub(crate) fn announce(&self, partition: PartitionNumber) {
        self.send(MessageKind::Attached, partition, 0);
    }

    /// Claims the partition. Returns the number of the claim within this process; [`PartitionClaims::ours`] has it once it was read
    /// back.
    pub(crate) fn claim(&self, partition: PartitionNumber) -> u64 {
        let claim = self.state.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
        self.send(MessageKind::Claimed, partition, claim);
        claim
    }

    /// The tenure that has claimed the partition is over: a claim that is not published yet must not come after another
    /// process's.
    pub(crate) fn withdraw(&self, partition: PartitionNumber) {
        self.state.outgoing().remove(&(partition, MessageKind::Claimed));
    }

    /// Publishes that keys have moved. Returns once it was read back, after five seconds in any case: the other processes
    /// compare witnesses themselves as well.
    pub async fn notify_moved(&self) {
        let partition = PartitionNumber(0);
        self.send(MessageKind::Moved, partition, 0);
        let last_logged = async {
            while self.state.outgoing().contains_key(&(partition, MessageKind::Moved)) {
                tokio::time::sleep(BLOCKED_POLL).await;
            }
        };
        let _ = timeout(READ_BACK_TIMEOUT, last_logged).await;
    }

    /// Publishes for operators what is held of a partition.
    pub(crate) fn publish_status(&self, partition: PartitionNumber, status: PartitionStatus) {
        let message =
            self.state.replica.message(MessageKind::StatusReport, partition, self.priority(partition), 0);
        let outgoing =
            OutgoingMessage { message: MemberMessage { status: Some(status), ..message }, published: None };
        self.state.outgoing().insert((partition, MessageKind::StatusReport), outgoing);
        self.state.wake.notify_one();
    }

    fn send(&self, kind: MessageKind, partition: PartitionNumber, claim: u64) {
        let message = self.state.replica.message(kind, partition, self.priority(partition), claim);
        let outgoing = OutgoingMessage { message, published: None };
        self.state.outgoing().insert((partition, kind), outgoing);
        self.state.wake.notify_one();
    }
}
