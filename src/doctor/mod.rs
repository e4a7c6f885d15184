//! Examines broker and config, and reports what could lose or reorder updates: each danger with a code, what it can
//! cost, and the command that fixes it. docs/doctor.md lists the codes.
//!
//! Begin with [`examine`]. `lanekeeper_broker::inspect` and `management` collect `facts`, `rules` judge them without any
//! IO, `report` prints the findings. `door` does the same for a config of a door alone.

pub mod change;
mod codes;
mod door;
mod facts;
mod finding;
mod fix;
mod management;
mod management_answers;
mod report;
mod rules;
pub mod running;

use door::ObservedDoor;
use facts::{Observed, Version};
pub use finding::{Finding, Unseen};
pub use fix::Fix;
use rules::{files_with, judge, unseen};

use crate::config::{Config, Purpose};
use lanekeeper_broker::{Address, MessageSize, Names, Publishing, SourceError, inspect, try_message_size};

/// The result of [`examine`].
#[derive(Clone, Debug)]
pub struct Examination {
    subject: Subject,
    /// Worst first.
    findings: Vec<Finding>,
    unseen: Vec<Unseen>,
}

/// What was examined.
#[derive(Clone, Debug)]
enum Subject {
    /// A broker, for `lanekeeper run`.
    Run(Box<Observed>),
    /// What a door alone needs.
    Door(Box<ObservedDoor>),
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

/// Collects facts and judges them. Changes nothing in the broker. `purpose`: what the config was read for.
///
/// # Errors
/// The broker cannot be reached over AMQP, refuses us, or does not answer.
pub async fn examine(config: &Config, purpose: Purpose) -> Result<Examination, SourceError> {
    if purpose == Purpose::Ingest {
        return door::examine(config).await;
    }
    let observed = observe(config).await?;
    let findings = judge(&observed, config);
    let unseen = unseen(&observed, config);
    Ok(Examination { subject: Subject::Run(Box::new(observed)), findings, unseen })
}

async fn observe(config: &Config) -> Result<Observed, SourceError> {
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let broker = inspect(&address, &names, &format!("lanekeeper {} doctor", config.instance)).await?;
    let management = management::look(&config.broker.management(), &names, &broker).await;
    let message_size = match broker.publishing {
        Publishing::Taken => {
            let name = format!("lanekeeper {} doctor", config.instance);
            try_message_size(&address, &name, config.updates.body_bytes_max).await
        }
        _ => MessageSize::Unknown("the broker takes no publishes".to_owned()),
    };
    let vhost = address.vhost().to_owned();
    Ok(Observed { broker, management, vhost, message_size })
}
