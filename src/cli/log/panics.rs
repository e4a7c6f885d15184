//! Logs panics. Rust's own hook writes to standard error by itself, and a panic that waits for a reader ends nothing: the
//! process would look alive.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use super::LogQueue;
use crate::config::LogFormat;

/// Logs every panic from now on, and waits for a bounded time until the lines are written: after that the process aborts.
pub(super) fn log(queue: LogQueue, format: LogFormat) {
    std::panic::set_hook(Box::new(move |panic| {
        queue.push(line(panic, format).as_bytes());
        queue.flush();
    }));
}

/// Not by `tracing`: the panic can have come from within it.
fn line(panic: &PanicHookInfo<'_>, format: LogFormat) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    // Only if RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    match format {
        LogFormat::Pretty => {
            let backtrace = backtrace.map(|text| text + "\n").unwrap_or_default();
            format!("\nthread '{thread}' {panic}\n{backtrace}")
        }
        LogFormat::Json => {
            let line = serde_json::json!({
                "level": "ERROR",
                "message": "a fault of Lanekeeper: a thread panicked",
                "thread": thread,
                "panic": panic.to_string(),
                "backtrace": backtrace,
            });
            format!("{line}\n")
        }
    }
}
