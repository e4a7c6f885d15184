//! Looks at broker and config, and says what could lose or reorder updates: each danger with a code, what it can cost,
//! and the command that removes it. docs/doctor.md lists the codes.
//!
//! `source::inspect` and `management` look, `facts` is what they saw, `rules` judge it, without asking anybody.

pub mod change;
pub mod codes;
pub mod facts;
mod finding;
mod fix;
mod management;
mod management_answers;
pub mod report;
mod rules;

use facts::Observed;
pub use finding::{Finding, Unseen};
pub use fix::Fix;
use rules::{judge, unseen};

use crate::config::Config;
use lanekeeper_broker::{Address, Names, SourceError, inspect};

/// Everything that was found, and what could not be looked at.
#[derive(Clone, Debug)]
pub struct Examination {
    /// What was seen.
    pub observed: Observed,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What could not be seen, and what that means.
    pub unseen: Vec<Unseen>,
}

/// Looks and judges. Changes nothing in the broker.
///
/// # Errors
/// The broker cannot be reached over AMQP, refuses us, or does not answer.
pub async fn examine(config: &Config) -> Result<Examination, SourceError> {
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let broker = inspect(&address, &names, &format!("lanekeeper {} doctor", config.instance)).await?;
    let management = management::look(&config.broker.management(), &names, &broker).await;
    let observed = Observed { broker, management, vhost: config.broker.management().vhost };
    let findings = judge(&observed, config);
    let unseen = unseen(&observed, config);
    Ok(Examination { observed, findings, unseen })
}
