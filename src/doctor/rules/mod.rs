//! Judges facts and config. Pure: findings are the result.

mod broker;
mod case;
mod cluster;
mod consumers;
mod files;
mod layout;
mod message_size;
mod policies;
#[cfg(test)]
mod tests;
mod topology;
mod unseen;

pub(super) use broker::{BLOCKED, blocked_by, expression, set_permissions, too_old};
pub(super) use files::files_with;
pub(super) use message_size::limited;
pub(super) use topology::{WITHOUT_KEY, declare_again};
pub(super) use unseen::{elsewhere, fault_of_management, size_unseen, unseen};

use self::case::Case;
use super::facts::Observed;
use super::finding::Finding;
use crate::config::Config;

/// Every danger: worst first, within a severity by code.
pub(super) fn judge(observed: &Observed, config: &Config) -> Vec<Finding> {
    let case = Case::new(observed, config);
    let rules = [
        broker::judge,
        cluster::judge,
        files::judge,
        topology::judge,
        policies::judge,
        consumers::judge,
        layout::judge,
        message_size::judge,
        unseen::judge,
    ];
    let mut findings: Vec<Finding> = rules.into_iter().flat_map(|judge| judge(&case)).collect();
    findings.sort_by_key(|finding| (finding.severity, finding.code));
    findings
}

/// The danger of a change to so many partitions, if the metadata store can handle only one.
pub(super) fn khepri_of_change(observed: &Observed, config: &Config, partitions: u16) -> Option<Finding> {
    broker::khepri_with(&Case::new(observed, config), partitions, "there are to be")
}

/// The danger of a change to so many partitions, if quorum queues reserve too many open files.
pub(super) fn files_of_change(observed: &Observed, partitions: u16) -> Option<Finding> {
    files::with_more(observed, partitions)
}
