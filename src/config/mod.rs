//! The config as meant: checked, typed, ready to use.
//!
//! `layers` merges defaults, file and environment; `reader` takes values out key by key and keeps faults and origins;
//! `parse` and its neighbours know the kinds of values; `settings` and `target` know the keys.

mod breaker;
mod broker_url;
mod fault;
mod layers;
mod ledger;
mod management;
mod parse;
mod reader;
mod schedule;
mod settings;
mod strings;
mod target;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

pub use fault::{Fault, Faults, Origin, Problem};
pub use layers::{DEFAULT_TOML, Environment, VariableFault};
pub use management::{ManagementAddress, management_url};
pub use parse::format_duration;
pub use reader::Shown;
pub use settings::Loaded;
use settings::read;
pub use target::TARGET_EXAMPLE;
pub use warnings::{ACK_TIMEOUT, held_at_most, warnings};

use lanekeeper_broker::ConnectionSettings;
use lanekeeper_core::breaker::BreakerLimits;
use lanekeeper_core::outcome::OutcomeKind;
use lanekeeper_core::policy::Policy;
use lanekeeper_core::routes::{Routes, TargetId, TypePattern};
pub use lanekeeper_core::secret::{MASK, Secret};
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_ledger::LedgerConfig;

/// Everything that operators decide. Every value is within its range; units are in the types.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this process in the RabbitMQ UI; the host name where none was given.
    pub instance: String,
    /// `[broker]`.
    pub broker: BrokerConfig,
    /// `[updates]`.
    pub updates: UpdatesConfig,
    /// `[dispatch]`.
    pub dispatch: DispatchConfig,
    /// `[ledger]`; `None`: there is none.
    pub ledger: Option<LedgerConfig>,
    /// `[retry]` and `[failure]`.
    pub policy: Policy,
    /// `[breaker]`.
    pub breaker: BreakerConfig,
    /// `[admin] listen`; `None` where it is turned off.
    pub admin: Option<SocketAddr>,
    /// `[log]`.
    pub log: LogConfig,
    /// `[[target]]`, in order of precedence; at least one, but for [`Purpose::Publish`].
    pub targets: Vec<TargetConfig>,
}

impl Config {
    /// Which target takes which type.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let patterns = self.targets.iter().enumerate().flat_map(|(index, target)| {
            target.types.iter().map(move |pattern| (pattern.clone(), TargetId(index)))
        });
        Routes::new(patterns)
    }
}

/// What a config is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To forward updates: a config without a target is a fault.
    Dispatch,
    /// To publish them: publishers only know the exchange, so there need not be a target.
    Publish,
    /// To look after parked updates, in the ledger: there need not be a target either.
    Operate,
}

/// Reads the config: built-in defaults, then `file`, then the environment.
///
/// # Errors
/// Every fault that there is, each with its key and where its value is from; none quotes a secret.
pub fn load(file: Option<&Path>, environment: &Environment, purpose: Purpose) -> Result<Loaded, Faults> {
    match file {
        None => read(None, environment, purpose),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let problem = Problem::new(
                    format!("cannot read the config file: {error}"),
                    "name a readable TOML file with --config or LANEKEEPER_CONFIG",
                );
                Faults(vec![Fault { key: String::new(), origin: Origin::File(path.to_owned()), problem }])
            })?;
            read(Some((path, &text)), environment, purpose)
        }
    }
}

/// `[broker]`.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `broker.url` and `broker.heartbeat`.
    pub connection: ConnectionSettings,
    /// `http://` or `https://`; `None`: on the host of the URL, at the usual port.
    pub management_url: Option<Secret>,
}

/// `[updates]`.
#[derive(Clone, Debug)]
pub struct UpdatesConfig {
    /// The exchange that publishers know; every other object of the topology is named after it.
    pub exchange: String,
    /// Partitions of the layout, as it is first made and as `topology apply` makes it; 1 to 1,024.
    pub partitions: NonZeroU16,
    /// Whether `run` changes the layout to what the config says.
    pub auto_apply: bool,
    /// Dead-letter updates without an id instead of making one.
    pub require_id: bool,
    /// Largest body in bytes; a larger one is dead-lettered.
    pub body_bytes_max: usize,
}

/// `[dispatch]`.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// Attempts at once per partition, each of another record.
    pub in_flight_max: NonZeroUsize,
    /// Deliveries held unsettled per partition; at least `in_flight_max`.
    pub prefetch: NonZeroU16,
    /// How long attempts in flight may take after SIGTERM, or before a partition is handed over.
    pub drain_timeout: Duration,
    /// How long a delivery may be held before its partition steps back; 1 second to a day.
    pub held_max: Duration,
}

/// `[breaker]`.
#[derive(Clone, Debug, PartialEq)]
pub enum BreakerConfig {
    /// No target is ever shut.
    Off,
    /// A target is shut when it fills this measure.
    On(BreakerLimits),
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info` or `lanekeeper=debug,warn`.
    pub filter: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// `[[target]]`.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Name in logs and metrics; unique.
    pub name: String,
    /// Which updates it takes.
    pub types: Vec<TypePattern>,
    /// HTTP method, upper case.
    pub method: String,
    /// Where requests go.
    pub url: UrlTemplate,
    /// From the start of an attempt to the end of the answer.
    pub timeout: Duration,
    /// How the update id goes out.
    pub idempotency_key: IdempotencyKeyStyle,
    /// Under which name; a valid header name.
    pub idempotency_header: String,
    /// Sent with every request; valid names and values.
    pub headers: Vec<(String, Secret)>,
    /// Answers that mean something else here than in the table of docs/wire.md.
    pub outcomes: BTreeMap<u16, OutcomeKind>,
    /// Which `If-Match` requests carry.
    pub if_match: IfMatch,
    /// With [`IfMatch::Auto`], what happens where no `ETag` of the record is known.
    pub first_contact: FirstContact,
}

/// Which `If-Match` requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IfMatch {
    /// The publisher's header `if-match`, if there is one.
    Header,
    /// Else the last `ETag` that the target gave for the record: kept in the ledger.
    Auto,
}

/// What happens where no `ETag` of a record is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstContact {
    /// The target is asked for it with GET; where it has no such record, as with `Create`.
    Get,
    /// The record must not exist: `If-None-Match: *`.
    Create,
}

/// How the update id goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdempotencyKeyStyle {
    /// As a Structured Field string, quoted (draft-ietf-httpapi-idempotency-key-header).
    Quoted,
    /// As it is.
    Bare,
    /// Not at all.
    Off,
}
