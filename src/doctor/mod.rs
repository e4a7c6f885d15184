//! Examines broker and config, and reports what could lose or reorder updates: each danger with a code, what it can
//! cost, and the command that fixes it. docs/doctor.md lists the codes.
//!
//! Begin with [`examine`]. `lanekeeper_broker::inspect` and `management` collect `facts`, `rules` judge them without any
//! IO, `report` prints the findings.

pub mod change;
mod codes;
mod facts;
mod finding;
mod fix;
mod management;
mod management_answers;
mod report;
mod rules;

use facts::{Observed, Version};
pub use finding::{Finding, Unseen};
pub use fix::Fix;
use rules::{files_with, judge, unseen};

use crate::config::Config;
use lanekeeper_broker::{Address, Names, SourceError, inspect};

/// The result of [`examine`].
#[derive(Clone, Debug)]
pub struct Examination {
    observed: Observed,
    /// Worst first.
    findings: Vec<Finding>,
    unseen: Vec<Unseen>,
}

/// What keeps so many partitions from being made, on a broker with this version and this name of its cluster. For the first
/// layout, before there is anything else to examine.
pub async fn room_for(
    config: &Config,
    partitions: u16,
    (version, cluster): (Option<String>, Option<String>),
) -> Option<Finding> {
    let version = version.as_deref().and_then(Version::parse);
    let seen = management::look_for_room(&config.broker.management(), cluster.as_deref()).await;
    let seen = seen.as_ref().map(|room| (room.nodes.as_slice(), &room.quorum_copies));
    files_with(version, seen.map_err(Clone::clone), partitions)
}

/// Collects facts and judges them. Changes nothing in the broker.
///
/// # Errors
/// The broker cannot be reached over AMQP, refuses us, or does not answer.
pub async fn examine(config: &Config) -> Result<Examination, SourceError> {
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let broker = inspect(&address, &names, &format!("lanekeeper {} doctor", config.instance)).await?;
    let management = management::look(&config.broker.management(), &names, &broker).await;
    let observed = Observed { broker, management, vhost: address.vhost().to_owned() };
    let findings = judge(&observed, config);
    let unseen = unseen(&observed, config);
    Ok(Examination { observed, findings, unseen })
}
