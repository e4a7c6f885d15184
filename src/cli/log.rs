//! Log lines: how they look and which there are, as `[log]` says. They go to standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// What the AMQP client reports comes back to us as errors, which we log once and with more of a context. An operator's
/// filter can turn it on.
const QUIET: &str = "lapin=off";
/// The client logs returned messages whole, bodies included.
const NEVER: &str = "lapin::returned_messages=off";

/// Logs from here on. A second call changes nothing.
///
/// # Panics
/// If the filter is none: the config's check rules that out.
pub fn start(config: &LogConfig) {
    let filter = format!("{QUIET},{},{NEVER}", config.filter);
    let filter = EnvFilter::builder().parse(filter).expect("the config's check parsed the filter");
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // An error means that something logs already.
    let _ = match config.format {
        LogFormat::Pretty => lines.with_ansi(colour()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// As no-color.org has it: a terminal gets colour unless `NO_COLOR` is set to something.
fn colour() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
