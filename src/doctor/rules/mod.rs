//! What is a danger. Pure: facts and config in, findings out.

mod broker;
mod consumers;
mod layout;
mod policies;
#[cfg(test)]
mod tests;
mod topology;
mod unseen;

pub use unseen::unseen;

use super::facts::Observed;
use super::finding::Finding;
use crate::config::Config;
use lanekeeper_broker::Names;

/// Names that are listed before the rest is counted.
const LISTED_MAX: usize = 4;

/// What every rule looks at.
struct Case<'a> {
    observed: &'a Observed,
    config: &'a Config,
    names: Names,
}

/// Every danger, worst first, by code within a severity.
pub fn judge(observed: &Observed, config: &Config) -> Vec<Finding> {
    let case = Case { observed, config, names: Names::new(&config.updates.exchange) };
    let rules =
        [broker::judge, topology::judge, policies::judge, consumers::judge, layout::judge, unseen::judge];
    let mut findings: Vec<Finding> = rules.into_iter().flat_map(|judge| judge(&case)).collect();
    findings.sort_by_key(|finding| (finding.severity, finding.code));
    findings
}

/// Whether so many partitions, which a change would make, are one too many for the metadata store.
pub fn khepri_of_change(observed: &Observed, config: &Config, partitions: u16) -> Option<Finding> {
    let case = Case { observed, config, names: Names::new(&config.updates.exchange) };
    broker::khepri_with(&case, partitions, "there are to be")
}

/// Some names, and how many more.
fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
