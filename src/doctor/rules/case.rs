//! What every rule looks at.

use crate::config::Config;
use crate::doctor::facts::Observed;
use lanekeeper_broker::Names;

/// Names that are listed before the rest is counted.
const LISTED_MAX: usize = 4;

/// The facts, the config, and the names of the topology.
pub(super) struct Case<'a> {
    pub(super) observed: &'a Observed,
    pub(super) config: &'a Config,
    pub(super) names: Names,
}

impl<'a> Case<'a> {
    pub(super) fn new(observed: &'a Observed, config: &'a Config) -> Self {
        Self { observed, config, names: Names::new(&config.updates.exchange) }
    }
}

/// The first names, and how many more there are.
pub(super) fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
