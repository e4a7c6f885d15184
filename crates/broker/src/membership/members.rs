//! The stream of members: claims on partitions and who consumes them. A claim's offset is the number of its tenure, the
//! same for all processes and growing, with no database.
//!
//! Read on the connection that consumes, so that whoever reads its own claim back has also heard the broker there;
//! published on the one that publishes, since an alarm freezes that one.

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

/// What this process knows of the replicas, and tells them. Stops when it is dropped.
#[derive(Clone, Debug)]
pub struct Members {
    state: Arc<State>,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

impl Members {
    /// Declares the stream, reads it and publishes to it, for as long as this lives. `process` tells replicas of one
    /// instance apart; made anew at each start.
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

    /// What is known of a partition, as it changes.
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

    /// Tells the others that we consume the partition.
    pub(crate) fn announce(&self, partition: PartitionNumber) {
        self.want(Kind::Attached, partition, 0);
    }

    /// Claims the partition. Answers what the claim is known by; [`Known::ours`] has it once it was read back.
    pub(crate) fn claim(&self, partition: PartitionNumber) -> u64 {
        let claim = self.state.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
        self.want(Kind::Claimed, partition, claim);
        claim
    }

    /// The tenure that has claimed the partition is over: a claim that is not published must not stand behind another's.
    pub(crate) fn withdraw(&self, partition: PartitionNumber) {
        self.state.wanted().remove(&(partition, Kind::Claimed));
    }

    /// Tells the others that keys have moved. Done once they can read it; after a few seconds in any case: they look for
    /// themselves as well.
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

    /// Tells operators what is held of a partition.
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
