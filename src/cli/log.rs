//! Logs to standard error, with the format and the filter of `[log]`. Whoever logs never waits for the reader of a line, and
//! a line that cannot be written ends nothing.

mod panics;
mod queue;

use std::io::stderr;
use std::sync::Arc;

use anstream::{AutoStream, ColorChoice};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::admin::metrics::LogMetrics;
use crate::config::{LogConfig, LogFormat};
use crate::reload::LogFilter;
pub(super) use queue::LogQueue;

/// Goes before the operator's filter, which can turn it on. The AMQP client returns as errors what it logs, and we log
/// these errors once, with more context.
const QUIET: &str = "lapin=off";

/// What no filter of an operator turns on. At `trace` the AMQP client logs every frame, with the password at the start of a
/// connection, and with record keys and bodies; and it logs returned messages whole.
fn is_never_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of_lapin = target == "lapin" || target.starts_with("lapin::");
    is_of_lapin && (*metadata.level() == Level::TRACE || target == "lapin::returned_messages")
}

/// Starts logging. Panics are logged from then on, too. Called once in a process: a second call has no effect on where lines
/// go. Returns what changes the filter later.
///
/// # Panics
/// If the filter is invalid: the config's check rules that out.
pub(super) fn start(config: &LogConfig, metrics: LogMetrics) -> (LogQueue, LogFilter) {
    // Standard error is a terminal, or CLICOLOR_FORCE is set, and NO_COLOR is not.
    let colour = AutoStream::choice(&stderr()) != ColorChoice::Never;
    let queue = LogQueue::start(metrics);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(env_filter(&config.filter))
        .with_writer(queue.clone())
        // Otherwise a fault of logging goes to standard error with eprintln!, which waits and panics.
        .log_internal_errors(false);
    let may_be_logged = filter_fn(|metadata| !is_never_logged(metadata));
    // An error of try_init means that logging was started already; one of a handle, that the log has ended.
    let change: LogFilter = match config.format {
        LogFormat::Pretty => {
            let lines = lines.with_ansi(colour).with_filter_reloading();
            let handle = lines.reload_handle();
            let _ = lines.finish().with(may_be_logged).try_init();
            LogFilter(Arc::new(move |filter| drop(handle.reload(env_filter(filter)))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            let _ = lines.finish().with(may_be_logged).try_init();
            LogFilter(Arc::new(move |filter| drop(handle.reload(env_filter(filter)))))
        }
    };
    panics::log(queue.clone(), config.format);
    (queue, change)
}

/// # Panics
/// If the filter is invalid: the config's check rules that out.
fn env_filter(filter: &str) -> EnvFilter {
    let filter = format!("{QUIET},{filter}");
    EnvFilter::builder().parse(filter).expect("the config's check parsed the filter")
}
