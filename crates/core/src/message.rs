//! Everything that can happen to a partition, and everything it can ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::layout::PartitionNumber;
use super::outcome::Outcome;
use super::policy::{Malformed, Resolution};
use super::routes::TargetId;
use super::tick::Tick;
use super::update::{RecordKey, Update};

/// One attachment to one partition, from opening a channel to losing it. The driver numbers the tenures of this process
/// upwards, from 1. During a tenure the partition may become ours, by a claim, go to another process, and come back.
/// [`TenureNumber`] is the number that others see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenure(pub u64);

/// The number of a claim, for other processes, the ledger and the targets (`lanekeeper-tenure`): the fencing token. Grows
/// with every claim on the partition, also when the stream of members is made again ([`super::numbering`]). Below 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenureNumber(pub u64);

/// A delivery of one tenure: the broker's delivery tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag(pub u64);

/// Place of a parked update in the ledger: grows in the order of parking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkedSeq(pub i64);

/// Who keeps an update until its turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The broker, as this delivery: it is settled afterwards.
    Broker(DeliveryTag),
    /// The ledger, as a parked update that was released: writing its resolution down takes it out.
    Ledger(ParkedSeq),
}

/// One attempt. A partition never uses an id twice, so that a late end is distinguished from an expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What can happen to a partition.
#[derive(Clone, Debug)]
pub enum Event {
    /// We consume the partition: deliveries of this tenure follow when no other process owns it.
    TenureBegan(Tenure),
    /// A note of this process came back from the stream of members. It belongs to the process and not to a tenure. A claim
    /// of another process that stands before the note in the stream is handed over before it
    /// ([`Event::ClaimSuperseded`]).
    LeaseRenewed {
        /// Until when requests may leave: when the note was sent, and the length of the lease.
        until: Tick,
    },
    /// Our claim on the partition was read back: attempts may start.
    Claimed {
        /// Who asked for it.
        tenure: Tenure,
        /// Its number; `None`: the broker takes no publishes now, and we go on without.
        number: Option<TenureNumber>,
        /// The newest claim of another process before it. If that is new to us, what we know of the updates is outdated.
        rival_claim: Option<TenureNumber>,
        /// Until when requests of a tenure before ours can be at work at the targets, if it has not said that nothing is:
        /// until then no head is sent that came redelivered or was released. Computed again for each claim; `None`: no
        /// head waits.
        wait_until: Option<Tick>,
    },
    /// The take-over wait that came with our claim has changed: a tenure before ours said that nothing of it is at work,
    /// or became known late.
    TakeOverWait {
        /// Whose wait it is.
        tenure: Tenure,
        /// As in [`Event::Claimed`].
        until: Option<Tick>,
    },
    /// Since our last tenure an alarm has kept claims from being published: another process may have owned the partition
    /// without a trace. What we know of its updates is outdated. Comes before [`Event::Claimed`].
    ClaimsKeptBack(Tenure),
    /// Another process has claimed the partition after us.
    ClaimSuperseded(Tenure),
    /// A consumer that the broker prefers has attached: it gives us nothing new, and waits until we hold nothing.
    Preempted(Tenure),
    /// A delivery has been held for so long that the broker's acknowledgement timeout comes near.
    HeldTooLong(Tenure),
    /// The broker has taken back what this channel holds, and delivers it again on the same channel: what is held is void,
    /// and the acks of it settle nothing ([`DeliveryCountWatch`](super::delivery_count::DeliveryCountWatch)). Comes before
    /// the first such delivery.
    DeliveriesVoid(Tenure),
    /// The channel is lost: what was not settled will be delivered again, to us or to another process.
    TenureEnded(Tenure),
    /// The broker handed over an update.
    Received {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
        /// The broker's `redelivered`: perhaps seen before. Not set: certainly never delivered.
        redelivered: bool,
        /// The update.
        update: Arc<Update>,
    },
    /// The broker handed over something that cannot be an update.
    ReceivedMalformed {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
        /// What is wrong with it.
        fault: Malformed,
    },
    /// Parked updates of a record that a person released, oldest first. They have their turn before what the broker
    /// hands over of the record. If released updates of the record are here already, this changes nothing.
    Released {
        /// Who may send them.
        tenure: Tenure,
        /// The record.
        record_key: RecordKey,
        /// Oldest first.
        updates: Vec<(ParkedSeq, Arc<Update>)>,
    },
    /// The broker handed over a message that is no update, so we are the active consumer. It is settled already; claim the
    /// partition for what the ledger holds of it.
    OwnershipHint(Tenure),
    /// The target, the way to it or the time limit ended an attempt.
    AttemptEnded {
        /// Which attempt.
        attempt: AttemptId,
        /// Its record.
        record_key: RecordKey,
        /// What the target did.
        outcome: Outcome,
    },
    /// A resolution is written down: its delivery may be settled.
    Recorded {
        /// Whose delivery it was when the writing began.
        tenure: Tenure,
        /// Which delivery or parked update.
        holder: Holder,
        /// Its record; `None` if it was malformed.
        record_key: Option<RecordKey>,
    },
    /// Nothing was written. Either the update was to be parked behind others of its record, and these are gone: it has its
    /// turn. Or the number of the tenure is no longer the newest: it is written under the present one, if it still counts.
    NotRecorded {
        /// Whose delivery it was when the writing began.
        tenure: Tenure,
        /// Which delivery or parked update.
        holder: Holder,
        /// Its record.
        record_key: RecordKey,
    },
    /// Only these partitions of the previous layout may still hold older updates of records. They only become fewer.
    PreviousDrained {
        /// Which are not drained.
        undrained: BTreeSet<PartitionNumber>,
    },
    /// The target fails for everyone: attempts to it stop. Sent again when something changes about probes.
    TargetShut {
        /// Which target.
        target: TargetId,
        /// From when on a probe may be asked for; `None`: one is under way, here or in another partition.
        probe_from: Option<Tick>,
    },
    /// The target works again.
    TargetOpened(TargetId),
    /// A person has paused the target: no attempt starts there, and no probe, until a person resumes it. It counts beside
    /// [`Event::TargetShut`]: attempts are made again when the target is neither paused nor shut.
    TargetPaused(TargetId),
    /// A person has resumed the target.
    TargetResumed(TargetId),
    /// The answer to [`Effect::AskProbe`] if it is yes: one attempt may be made at the target that is shut.
    ProbeGranted(TargetId),
    /// Requests to this target need permits from now on.
    TargetPaced(TargetId),
    /// They need none any more.
    TargetUnpaced(TargetId),
    /// The answer to [`Effect::AskPermits`], in one or several parts: so many requests may be made now.
    PermitsGranted {
        /// At which target.
        target: TargetId,
        /// How many.
        permits: usize,
    },
    /// We are asked to stop: start no further attempts in this tenure. The next tenure would start them again.
    StopRequested,
}

/// Why an owner hands its deliveries back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YieldReason {
    /// Another process is to have the partition.
    Preempted,
    /// The broker would soon close the channel of a delivery that is held for so long.
    HeldTooLong,
}

impl YieldReason {
    /// As written in logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preempted => "outranked",
            Self::HeldTooLong => "held_too_long",
        }
    }
}

/// What a partition asks its driver to do. Effects are done in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the update to its target; answer with [`Event::AttemptEnded`].
    Attempt {
        /// Name of the attempt.
        attempt: AttemptId,
        /// Its number, from 1, counted over the tenures of this process.
        number: u32,
        /// The number of the claim that it is made under.
        tenure: Option<TenureNumber>,
        /// Who keeps the update.
        holder: Holder,
        /// What to send.
        update: Arc<Update>,
        /// Its target is shut, and this attempt finds out if it works again.
        probe: bool,
        /// It has a permit of its target.
        permit: bool,
    },
    /// So many more lanes wait for a permit of this target. [`Event::PermitsGranted`] follows, now or later.
    AskPermits {
        /// Which target.
        target: TargetId,
        /// How many more.
        permits: usize,
    },
    /// Those that were asked for and have not come are no longer wanted.
    WithdrawPermits(TargetId),
    /// So many permits were not used.
    ReturnPermits {
        /// Of which target.
        target: TargetId,
        /// How many.
        permits: usize,
    },
    /// A lane waits for a target that is shut, and the time for a probe has come. The answer, if it is yes, is
    /// [`Event::ProbeGranted`]; otherwise another partition's probe is under way, and [`Event::TargetShut`] or
    /// [`Event::TargetOpened`] follows when it has ended.
    AskProbe(TargetId),
    /// The probe that was granted will not be made: another partition may make one.
    ReturnProbe(TargetId),
    /// Claim the partition for this process; answer with [`Event::Claimed`]. Answers to earlier claims are dropped.
    Claim {
        /// Whose deliveries wait for it.
        tenure: Tenure,
    },
    /// The claim of this tenure, or the one that is under way, has ended while nothing was held: say so in the stream of
    /// members, so that the next owner does not wait for us.
    ClaimEnded {
        /// Whose claim it was.
        tenure: Tenure,
    },
    /// Finish what is in flight, settle, then close the channel and attach again: what is held goes back in order.
    /// No further attempt starts in this tenure.
    Yield {
        /// Which tenure ends so.
        tenure: Tenure,
        /// Why.
        reason: YieldReason,
    },
    /// Close the channel at once and attach again: the partition is another's.
    Abandon {
        /// Which tenure ends so.
        tenure: Tenure,
    },
    /// Write the resolution down if that is needed; answer with [`Event::Recorded`] or [`Event::NotRecorded`].
    Record {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery or parked update it is.
        holder: Holder,
        /// The update; `None` if the delivery is malformed.
        update: Option<Arc<Update>>,
        /// How its turn ends.
        resolution: Resolution,
    },
    /// Tell the broker that the delivery is done.
    Settle {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
    },
}

impl Effect {
    /// Returns true if it is done even if the tenure that asked for it has ended.
    pub(super) const fn outlives_its_tenure(&self) -> bool {
        match self {
            Self::Attempt { .. }
            | Self::Record { .. }
            | Self::AskProbe(_)
            | Self::ReturnProbe(_)
            | Self::AskPermits { .. }
            | Self::WithdrawPermits(_)
            | Self::ReturnPermits { .. }
            | Self::ClaimEnded { .. } => true,
            Self::Claim { .. } | Self::Yield { .. } | Self::Abandon { .. } | Self::Settle { .. } => false,
        }
    }
}
