//! The replicas of a layout know of each other by a stream of the broker, the stream of members: who consumes and claims
//! which partition, and what is held of it. A claim's epoch and offset are the number of its tenure, the same for all processes
//! and growing, with no database ([`lanekeeper_core::numbering`]).
//!
//! Every quarter of a heartbeat each process publishes a note. A note that is read back renews the lease without which no
//! request leaves: it proves that a majority of the stream's replicas took it, and that no other process's claim stands before
//! it that was not read. [`lanekeeper_core::tenures`] says what a claim counts for and what a new owner waits for.
//!
//! The stream is read on the connection that consumes: a process that reads its own note back knows that the broker answers
//! on it. It is published to on a connection of its own: an alarm freezes it, and dead letters would hold it up.

mod believe;
mod claims;
mod inquiry;
mod lease;
mod message;
mod notes;
mod publisher;
mod reader;
mod seen;
mod state;
mod status_query;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub(crate) use believe::believe;
pub(crate) use claims::PartitionClaims;
pub use inquiry::Inquired;
pub(crate) use inquiry::{ANSWER_BYTES_MAX, inquire};
pub use message::{PartitionStatus, RetriedRecord};
pub(crate) use message::{READING, parse};
pub use seen::SeenProcess;
pub(crate) use seen::last_seen;
pub(crate) use status_query::ask;
pub use status_query::{STATUS_TIMEOUT, StatusAnswer, StatusAnswers};

use self::lease::Lease;
use self::message::{MemberMessage, MessageKind, PublishedEnd, PublishedTerms, ReplicaId, millis};
use self::notes::{observe_answers, publish_notes};
use self::publisher::{BLOCKED_POLL, publish_for_ever};
use self::reader::read_for_ever;
use self::state::{READ_BACK_TIMEOUT, State};
use crate::beliefs::Beliefs;
use crate::clock::Clock;
use crate::epochs::Epochs;
use crate::halt::Halt;
use crate::inquiries::Inquiries;
use crate::link::Link;
use crate::liveness::LivenessProbe;
use crate::names::Names;
use crate::presence::Presence;
use crate::reach::Reach;
use crate::shares::Shares;
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::tenures::{Tenures, Terms};
use lanekeeper_core::tick::Tick;

/// How long the end of a tenure may take to be read back. Without it, the next owner waits as if this one had died.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Who this process is in the stream, and what it is known by.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// `instance.name`.
    pub instance: &'a str,
    /// Another one at each start: distinguishes replicas of one name.
    pub process: Uuid,
    /// The longest time that a request of this process can be at work at a target.
    pub at_work: Duration,
    /// The clock of the process.
    pub clock: Clock,
    /// What the process knows of the numbers of tenures.
    pub epochs: &'a Epochs,
    /// What the replicas reach.
    pub reach: &'a Reach,
    /// How they divide the targets' limits.
    pub shares: &'a Shares,
    /// Which replicas are alive, and what they tell people of.
    pub presence: &'a Presence,
    /// The targets whose rejections a person believes.
    pub beliefs: &'a Beliefs,
    /// What is asked of the process.
    pub inquiries: &'a Inquiries,
    /// The URL of its admin port, for its notes.
    pub admin: Option<&'a str>,
}

/// What this process knows of the replicas of a layout, and what it publishes for them. Stops when it is dropped.
#[derive(Clone, Debug)]
pub struct Membership {
    state: Arc<State>,
    _tasks: Arc<[AbortOnDropHandle<()>; 4]>,
}

impl Membership {
    /// Declares the stream, reads it and publishes to it.
    #[must_use]
    pub fn join(
        (consuming, publishing): (Link, Link),
        names: &Names,
        layout: Layout,
        replica: Replica<'_>,
        liveness: LivenessProbe,
        halt: Halt,
    ) -> Self {
        let Replica {
            instance,
            process,
            at_work,
            clock,
            epochs,
            reach,
            shares,
            presence,
            beliefs,
            inquiries,
            admin,
        } = replica;
        let process = process.to_string();
        let terms = Terms { lease: Lease::length(consuming.heartbeat()), at_work };
        let claims = || PartitionClaims::new(Tenures::new(process.clone(), terms));
        let state = Arc::new(State {
            partitions: layout.partitions().map(|_| watch::Sender::new(claims())).collect(),
            replica: ReplicaId { instance: instance.to_owned(), process, layout: layout.number },
            consuming,
            publishing,
            stream: names.members(),
            exchange: names.public().to_owned(),
            clock,
            at_work,
            numbering: Mutex::new(epochs.numbering()),
            epochs: epochs.clone(),
            reach: reach.clone(),
            shares: shares.clone(),
            presence: presence.clone(),
            beliefs: beliefs.clone(),
            inquiries: inquiries.clone(),
            admin: admin.map(ToOwned::to_owned),
            floor_sent: Mutex::default(),
            knows_stream: AtomicBool::new(false),
            position: watch::Sender::default(),
            opened: watch::Sender::default(),
            caught_up: watch::Sender::default(),
            lease_until: watch::Sender::default(),
            lease: Mutex::default(),
            owned: Mutex::default(),
            alarms_at_end: Mutex::default(),
            claims_made: AtomicU64::new(0),
            outgoing: Mutex::default(),
            wake: Notify::new(),
            read_back: Notify::new(),
            halt,
        });
        let reader = AbortOnDropHandle::new(tokio::spawn(read_for_ever(Arc::clone(&state))));
        let publisher = AbortOnDropHandle::new(tokio::spawn(publish_for_ever(Arc::clone(&state))));
        let notes = AbortOnDropHandle::new(tokio::spawn(publish_notes(Arc::clone(&state))));
        let answers = AbortOnDropHandle::new(tokio::spawn(observe_answers(Arc::clone(&state), liveness)));
        Self { state, _tasks: Arc::new([reader, publisher, notes, answers]) }
    }

    /// The claims on a partition, as they change.
    pub(crate) fn watch(&self, partition: PartitionNumber) -> watch::Receiver<PartitionClaims> {
        self.state.partitions[usize::from(partition.0)].subscribe()
    }

    /// Until when this process may begin requests. Who sees a value sees every claim that stands before the note by which it
    /// was renewed.
    #[must_use]
    pub fn lease_until(&self) -> watch::Receiver<Tick> {
        self.state.lease_until.subscribe()
    }

    /// The clock that leases and waits count on.
    pub(crate) fn clock(&self) -> Clock {
        self.state.clock
    }

    /// The priority that this process consumes the partition with.
    pub(crate) fn priority(&self, partition: PartitionNumber) -> i32 {
        self.state.priority(partition)
    }

    /// How far the stream is read: what comes later has this offset or a higher one. Waits until all was read that stood there
    /// when this process began.
    pub(crate) async fn position(&self) -> u64 {
        let mut caught_up = self.state.caught_up.subscribe();
        if caught_up.wait_for(|caught_up| *caught_up).await.is_err() {
            return std::future::pending().await; // the process ends
        }
        *self.state.position.borrow()
    }

    /// Publishes that this process consumes the partition.
    pub(crate) fn announce(&self, partition: PartitionNumber) {
        self.send(MessageKind::Attached, partition, 0);
    }

    /// Claims the partition. Returns the number of the claim within this process; the [`Tenures`] have it once it was read
    /// back.
    pub(crate) fn claim(&self, partition: PartitionNumber) -> u64 {
        let claim = self.state.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
        let message =
            self.state.replica.message(MessageKind::Claimed, partition, self.priority(partition), claim);
        let read = Some(*self.state.position.borrow());
        let terms = Some(PublishedTerms::of(self.state.terms()));
        let epoch = Some(self.state.numbering().epoch());
        self.state.send(MemberMessage { read, terms, epoch, ..message });
        claim
    }

    /// A tenure of ours begins. Returns true if an alarm has kept claims on the partition from being published since the last
    /// one: others may have owned it without a trace.
    pub(crate) fn claims_kept_back(&self, partition: PartitionNumber) -> bool {
        self.state.claims_kept_back(partition)
    }

    /// The claim counts: notes name it from now on.
    pub(crate) fn own(&self, partition: PartitionNumber, number: TenureNumber) {
        self.state.owned().insert(partition, number);
    }

    /// The tenure that has claimed the partition is over, in order or not: notes do not name it any more, and its claim, if it
    /// is not published yet, must not come after another process's.
    pub(crate) fn withdraw(&self, partition: PartitionNumber) {
        self.state.owned().remove(&partition);
        self.state.withdraw(partition);
    }

    /// Publishes that the tenure is over, and that for so long requests can still be at work, of it or of a tenure that it had
    /// waited for.
    pub(crate) fn publish_end(&self, partition: PartitionNumber, number: TenureNumber, rest: Duration) {
        let message =
            self.state.replica.message(MessageKind::TenureEnded, partition, self.priority(partition), 0);
        let end = Some(PublishedEnd { tenure: number.0, rest_ms: millis(rest) });
        self.state.send(MemberMessage { end, ..message });
    }

    /// Returns once the end of a tenure of the partition was read back, after two seconds in any case. Under an alarm it is
    /// not waited for.
    pub(crate) async fn end_read_back(&self, partition: PartitionNumber) {
        let key = (partition, MessageKind::TenureEnded);
        let read_back = async {
            loop {
                let notified = self.state.read_back.notified();
                if !self.state.outgoing().contains_key(&key) || self.state.publishing.is_blocked() {
                    return;
                }
                notified.await;
            }
        };
        let _ = timeout(END_TIMEOUT, read_back).await;
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

    /// Publishes that this process ends, or goes on under another id: nobody is to wait for its answers.
    pub fn end(&self) {
        self.send(MessageKind::ProcessEnded, PartitionNumber(0), 0);
    }

    /// Publishes for operators what is held of a partition.
    pub(crate) fn publish_status(&self, partition: PartitionNumber, status: PartitionStatus) {
        let message =
            self.state.replica.message(MessageKind::StatusReport, partition, self.priority(partition), 0);
        self.state.send(MemberMessage { status: Some(status), ..message });
    }

    fn send(&self, kind: MessageKind, partition: PartitionNumber, claim: u64) {
        self.state.send(self.state.replica.message(kind, partition, self.priority(partition), claim));
    }
}
