//! The config: read from its layers, checked, typed.
//!
//! Begin with [`load`]. `layers` merges defaults, file and environment; `reader` takes out values key by key and
//! collects faults and origins; `source` is what a config was read from, and `difference` what changes from one to another; `parse` and its neighbours check kinds of values; `settings`, `failure`, `target` and `limits` know the keys;
//! `model` is the result.

mod admin;
mod answers;
mod auth;
mod breaker;
mod broker_url;
mod difference;
mod failure;
mod fault;
mod hook;
mod ingest;
mod layers;
mod ledger;
mod limits;
mod management;
mod mask;
mod model;
mod notify;
mod on;
mod parse;
mod pattern;
mod plain_text;
mod proxy;
mod reader;
mod resolved;
mod schedule;
mod settings;
mod signature;
mod signature_template;
mod source;
mod sqs;
mod strings;
mod target;
mod telemetry;
mod templates;
#[cfg(test)]
mod tests;
mod tls;
mod warnings;

use std::path::Path;

pub use admin::AdminConfig;
pub use answers::{AnswerRow, BodyTest, Pointer, StatusPattern};
pub use auth::{AuthConfig, ClientCredentials, JwtBearer, SendSecret, SigningFault, SigningKey, TokenUrl};
pub(crate) use difference::OF_DOOR;
pub use difference::{Change, TakesEffect, changes};
pub use fault::{Fault, Faults, Origin, Problem};
pub use hook::{HookConfig, HookScheme, HookValue};
pub use ingest::{ClientConfig, IngestConfig, IngestTls};
pub use lanekeeper_core::secret::Secret;
#[cfg(test)]
use layers::DEFAULT_TOML;
pub use layers::Environment;
pub(crate) use management::{ManagementAddress, management_url};
pub use model::{
    AnswerBody, BreakerConfig, BrokerConfig, Config, Content, DOOR_ALONE, DispatchConfig, FirstContact,
    HttpVersion, IdempotencyKeyStyle, IfMatch, LimitsConfig, LogConfig, LogFormat, Purpose, TakeoverWait,
    TargetConfig, UpdatesConfig,
};
pub use notify::{EventKind, NotifyConfig};
pub use on::OnConfig;
pub(crate) use parse::format_duration;
pub use pattern::Pattern;
pub(crate) use plain_text::{UNNAMED_SSLMODE, unnamed_sslmode};
pub use proxy::ProxyConfig;
pub use reader::Shown;
pub use settings::Loaded;
use settings::read;
pub use signature::{
    HmacConfig, SignatureConfig, SignatureEncoding, SignatureHash, TimestampUnit, WebhookKey,
};
pub use signature_template::{Part, Placeholder, SignatureTemplate};
pub use source::{ConfigSource, FileStamp};
pub use sqs::SqsConfig;
#[cfg(test)]
pub(crate) use target::TARGET_EXAMPLE;
pub use telemetry::TelemetryConfig;
pub use templates::{SentText, TemplatesConfig};
pub(crate) use tls::{Expiring, expiring};
pub use tls::{OwnCertificate, TlsConfig};
pub(crate) use warnings::{ACK_TIMEOUT, held_at_most, warnings, warnings_of_door};

/// Loads the config: the built-in defaults, over them `file`, over them the environment.
///
/// # Errors
/// All faults, each with its key and the origin of its value; none quotes a secret.
pub fn load(file: Option<&Path>, environment: &Environment, purpose: Purpose) -> Result<Loaded, Faults> {
    match file {
        None => read(None, environment, purpose),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let problem = Problem::new(
                    format!("cannot read the config file: {error}"),
                    "set --config or LANEKEEPER_CONFIG to a readable TOML file",
                );
                Faults(vec![Fault { key: String::new(), origin: Origin::File(path.to_owned()), problem }])
            })?;
            read(Some((path, &text)), environment, purpose)
        }
    }
}

/// Reads the config again, from its file as it is now. Variables stay what they were.
///
/// # Errors
/// As for [`load`].
pub fn load_again(source: &ConfigSource, purpose: Purpose) -> Result<Loaded, Faults> {
    load(source.path(), &source.environment, purpose)
}

/// Reads the files again that `file:` values name, and nothing else: the text of the config file is that of before.
///
/// # Errors
/// As for [`load`].
pub fn read_references_again(source: &ConfigSource, purpose: Purpose) -> Result<Loaded, Faults> {
    let file = source.file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    read(file, &source.environment, purpose)
}
