//! Logs to standard error, with the format and the filter of `[log]`. Whoever logs never waits for the reader of a line, and
//! a line that cannot be written ends nothing.

mod panics;
mod queue;

use std::io::stderr;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;

use crate::admin::metrics::LogMetrics;
use crate::config::{LogConfig, LogFormat};
pub(super) use queue::LogQueue;

/// Goes before the operator's filter, which can turn it on. The AMQP client returns as errors what it logs, and we log
/// these errors once, with more context.
const QUIET: &str = "lapin=off";
/// Goes after the operator's filter: the AMQP client logs returned messages whole, bodies included.
const NEVER: &str = "lapin::returned_messages=off";

/// Starts logging. Panics are logged from then on, too. Called once in a process: a second call has no effect on where lines
/// go.
///
/// # Panics
/// If the filter is invalid: the config's check rules that out.
pub(super) fn start(config: &LogConfig, metrics: LogMetrics) -> LogQueue {
    let filter = format!("{QUIET},{},{NEVER}", config.filter);
    let filter = EnvFilter::builder().parse(filter).expect("the config's check parsed the filter");
    // Standard error is a terminal, or CLICOLOR_FORCE is set, and NO_COLOR is not.
    let colour = AutoStream::choice(&stderr()) != ColorChoice::Never;
    let queue = LogQueue::start(metrics);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue.clone())
        // Otherwise a fault of logging goes to standard error with eprintln!, which waits and panics.
        .log_internal_errors(false);
    // An error means that logging was started already.
    let _ = match config.format {
        LogFormat::Pretty => lines.with_ansi(colour).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    panics::log(queue.clone(), config.format);
    queue
}
