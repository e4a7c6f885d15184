//! What the partitions of a layout have in common.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::dead_letters::DeadLetters;
use super::decode::Decoder;
use crate::halt::Halt;
use crate::link::Link;
use crate::liveness::LivenessProbe;
use crate::membership::Membership;
use crate::names::Names;
use crate::reach::Reach;
use crate::topology::{Majority, Witnesses};
use lanekeeper_core::acks::AckLimits;
use lanekeeper_core::placement::Placement;

/// What the sources of all partitions share.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The connection that consumes.
    pub link: Link,
    /// The other replicas.
    pub membership: Membership,
    /// Checks that the broker answers.
    pub liveness: LivenessProbe,
    /// Checks that keys are where they were.
    pub witnesses: Witnesses,
    /// Proves that what a node answers is not the answer of one that is cut off.
    pub majority: Majority,
    /// What stops them all.
    pub halt: Halt,
    /// What the replicas reach.
    pub reach: Reach,
    /// Cancelled once their layout drains.
    pub draining: CancellationToken,
    /// The names in the broker.
    pub names: Names,
    /// Which partition of the layout a record belongs to.
    pub placement: Placement,
    /// Where malformed, rejected and exhausted updates go.
    pub dead_letters: DeadLetters,
    /// From deliveries to updates.
    pub decoder: Arc<Decoder>,
    /// When acks go out.
    pub ack_limits: AckLimits,
}
