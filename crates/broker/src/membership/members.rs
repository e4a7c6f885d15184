//! The stream of members: claims on partitions and who consumes them. A claim's offset is the number of its tenure, the
//! same for all processes and growing, with no database.
//!
//! The stream is read on the connection that consumes, so that a process which reads its own claim back knows that the
//! broker answers on it; it is published to on the other connection, since an alarm freezes that one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::known::Known;
use super::message::{Holding, Kind, Note, Oneself};
use super::publisher::{BLOCKED_POLL, publish_for_ever};
use super::reader::read_for_ever;
use super::state::{READ_BACK_TIMEOUT, State, Wanted};
use crate::halt::Halt;
use crate::link::Link;
use crate::names::Names;
use lanekeeper_core::layout::{Layout, PartitionNumber, rank};

/// What this process knows of the replicas of a layout, and what it publishes for them. Stops when it is dropped.
#[derive(Clone, Debug)]
pub struct Members {
    state: Arc<State>,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

impl Members {
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
            oneself: Oneself {
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
            wanted: Mutex::default(),
            news: Notify::new(),
            halt,
        });
        let reader = AbortOnDropHandle::new(tokio::spawn(read_for_ever(Arc::clone(&state))));
        let publisher = AbortOnDropHandle::new(tokio::spawn(publish_for_ever(Arc::clone(&state))));
        Self { state, _tasks: Arc::new([reader, publisher]) }
    }

    /// The claims on a partition, as they change.
    pub(crate) fn watch(&self, partition: PartitionNumber) -> watch::Receiver<Known> {
        self.state.partitions[usize::from(partition.0)].subscribe()
    }

    /// The priority that this process consumes the partition with.
    pub(crate) fn priority(&self, partition: PartitionNumber) -> i32 {
        rank(&self.state.oneself.instance, partition)
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
        self.want(Kind::Attached, partition, 0);
    }

    /// Claims the partition. Returns the number of the claim within this process; [`Known::ours`] has it once it was read
    /// back.
    pub(crate) fn claim(&self, partition: PartitionNumber) -> u64 {
        let claim = self.state.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
        self.want(Kind::Claimed, partition, claim);
        claim
    }

    /// The tenure that has claimed the partition is over: a claim that is not published yet must not come after another
    /// process's.
    pub(crate) fn withdraw(&self, partition: PartitionNumber) {
        self.state.wanted().remove(&(partition, Kind::Claimed));
    }

    /// Publishes that keys have moved. Returns once it was read back, after five seconds in any case: the other processes
    /// compare witnesses themselves as well.
    pub async fn tell_moved(&self) {
        let partition = PartitionNumber(0);
        self.want(Kind::Moved, partition, 0);
        let told = async {
            while self.state.wanted().contains_key(&(partition, Kind::Moved)) {
                tokio::time::sleep(BLOCKED_POLL).await;
            }
        };
        let _ = timeout(READ_BACK_TIMEOUT, told).await;
    }

    /// Publishes for operators what is held of a partition.
    pub(crate) fn tell_holding(&self, partition: PartitionNumber, holding: Holding) {
        let note = self.state.oneself.note(Kind::Holds, partition, self.priority(partition), 0);
        let wanted = Wanted { note: Note { holding: Some(holding), ..note }, published: None };
        self.state.wanted().insert((partition, Kind::Holds), wanted);
        self.state.news.notify_one();
    }

    fn want(&self, kind: Kind, partition: PartitionNumber, claim: u64) {
        let note = self.state.oneself.note(kind, partition, self.priority(partition), claim);
        let wanted = Wanted { note, published: None };
        self.state.wanted().insert((partition, kind), wanted);
        self.state.news.notify_one();
    }
}
