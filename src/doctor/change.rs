//! Judges what could go wrong with a change of the layout. `topology plan` prints it; `topology apply` and
//! `updates.auto_apply` obey it.

use super::codes::{Code, Severity};
use super::facts::Observed;
use super::{Finding, observe, rules};
use crate::config::Config;
use lanekeeper_broker::{ObjectState, SourceError};
use lanekeeper_core::layout::Shape;

/// What a danger means for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The layout must not be changed before it is fixed.
    Forbids,
    /// It cannot be seen what is bound to the ingress. A person may have looked, and say so; a program does not change the
    /// layout.
    Unseen,
    /// Updates can be lost, reordered or stuck: a person may change the layout, a program does not.
    Risks,
    /// A person should know of it.
    Warns,
}

/// Something that could go wrong with a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Danger {
    /// What it is.
    pub finding: Finding,
    /// What it means for the change.
    pub weight: Weight,
}

/// Examines, as `doctor` does, what could go wrong with a change to such a layout. Most serious first.
///
/// # Errors
/// As [`super::examine`].
pub async fn dangers_of_change(config: &Config, to: Shape) -> Result<Vec<Danger>, SourceError> {
    let observed = observe(config).await?;
    let findings = rules::judge(&observed, config);
    Ok(weigh_all(&observed, findings, config, to))
}

pub(super) fn weigh_all(
    observed: &Observed,
    findings: Vec<Finding>,
    config: &Config,
    to: Shape,
) -> Vec<Danger> {
    // The change is meant to fix the first two; dead letters and the size of messages do not matter to it; the last two are
    // judged for the next layout.
    let left_out = [
        Code::PartitionsDiffer,
        Code::PrefetchDiffers,
        Code::DeadLetters,
        Code::MessageSizeLimited,
        Code::KhepriReordersKeys,
        Code::FilesTooFew,
    ];
    let counts = |finding: &Finding| finding.severity != Severity::Info && !left_out.contains(&finding.code);
    let khepri = rules::khepri_of_change(observed, config, to.partitions);
    let files = rules::files_of_change(observed, to.partitions);
    let findings = findings.into_iter().filter(counts).chain(khepri).chain(files);
    let danger = |finding: Finding| Danger { weight: weigh(observed, &finding), finding };
    let mut dangers: Vec<Danger> = findings.map(danger).collect();
    dangers.sort_by_key(|danger| (danger.weight, danger.finding.code));
    dangers
}

fn weigh(observed: &Observed, finding: &Finding) -> Weight {
    match finding.code {
        Code::HashExchangeMissing
        | Code::PublishingBlocked
        | Code::NoMajority
        | Code::ClusterPartitioned
        | Code::NotPermitted
        | Code::ObjectDiffers
        | Code::QueueTypeDiffers
        | Code::IngressBoundTwice
        | Code::HandoffBound
        | Code::ForeignWayIn
        | Code::ForeignBindingOfPartition
        | Code::DocumentUnreadable
        | Code::DocumentMisfits
        | Code::FilesTooFew => Weight::Forbids,
        // With a second binding of the ingress, what is confirmed during the switch is lost.
        Code::ManagementNotSeen => Weight::Unseen,
        // A change from several partitions to several makes nothing worse.
        Code::KhepriReordersKeys if observed.layout().is_some_and(|layout| layout.partitions == 1) => {
            Weight::Forbids
        }
        // Without its exchanges the topology cannot be switched; a missing queue of the old layout does not matter.
        Code::ObjectMissing if lacks_an_exchange(observed) => Weight::Forbids,
        _ if finding.severity == Severity::Error => Weight::Risks,
        _ => Weight::Warns,
    }
}

fn lacks_an_exchange(observed: &Observed) -> bool {
    let mut objects = observed.broker.objects.iter();
    objects.any(|object| !object.role.is_queue() && object.state == ObjectState::Missing)
}
