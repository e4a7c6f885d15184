//! Options that several commands share.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::exit::Exit;
use super::process::say_error;
use crate::config::{self, Environment, Loaded, Purpose, management_url};
use lanekeeper_ledger::OperatorReason;

/// Options of every command that reads the config.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArguments {
    /// Config file (TOML). Keys that it leaves out have the defaults of config/default.toml.
    #[arg(short, long, value_name = "FILE", env = "LANEKEEPER_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArguments {
    /// Loads the config, with the origin of each value.
    ///
    /// # Errors
    /// [`Exit::Config`]; every fault was printed to standard error.
    pub fn load(&self, purpose: Purpose) -> Result<Loaded, Exit> {
        config::load(self.config.as_deref(), &Environment::of_process(), purpose).map_err(|faults| {
            say_error(format_args!("{faults}"));
            Exit::Config
        })
    }

    /// As [`Self::load`], for a command that speaks to RabbitMQ.
    ///
    /// # Errors
    /// [`Exit::Config`], also if updates come from elsewhere.
    pub fn load_for_rabbitmq(&self, purpose: Purpose) -> Result<Loaded, Exit> {
        let loaded = self.load(purpose)?;
        if loaded.config.sqs.is_some() {
            say_error(
                "error: source.kind is \"sqs\", and this command works with RabbitMQ alone: docs/sqs.md says what there is for SQS",
            );
            return Err(Exit::Config);
        }
        Ok(loaded)
    }
}

/// Options of commands that also use RabbitMQ's management API.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BrokerArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// URL of RabbitMQ's management API, instead of `broker.management_url`.
    #[arg(long, value_name = "URL", env = "LANEKEEPER_MANAGEMENT_URL", hide_env_values = true)]
    management: Option<String>,
}

impl BrokerArguments {
    /// Loads the config, with `--management` in it.
    ///
    /// # Errors
    /// [`Exit::Config`]; every fault was printed to standard error.
    pub(super) fn load(&self, purpose: Purpose) -> Result<Loaded, Exit> {
        let mut loaded = self.config.load_for_rabbitmq(purpose)?;
        if let Some(url) = self.management.as_deref().filter(|url| !url.is_empty()) {
            loaded.config.broker.management_url =
                management_url(&mut Json::from(url)).map_err(|problem| {
                    say_error(format_args!("error: --management: {problem}"));
                    Exit::Config
                })?;
        }
        Ok(loaded)
    }
}

/// Who changes something, and why.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OperatorArguments {
    /// The person who decided it, kept in the ledger.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    who: String,
    /// The reason, kept in the ledger.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
}

impl OperatorArguments {
    /// For the ledger.
    pub(super) fn reason(&self) -> OperatorReason {
        OperatorReason { who: self.who.clone(), why: self.why.clone() }
    }
}
