//! What every command needs of its process: a runtime, standard output, standard error.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use super::exit::Exit;
use crate::printable::printable_lines;
use lanekeeper_core::error::error_chain;

/// A runtime with as many workers as there are cores.
pub(super) fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts")
}

/// Returns at SIGTERM or Ctrl-C.
pub(super) async fn interrupted() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a handler for SIGTERM can be set");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Prints the error with its causes to standard error.
pub(super) fn report(error: &dyn std::error::Error) {
    say_error(format_args!("error: {}", error_chain(error)));
}

/// Prints a line to standard error. If nobody can read it, the command goes on: `eprintln!` would panic.
pub(super) fn say_error(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", printable_lines(&line.to_string()));
}

/// Prints to standard output, without what could steer a terminal, then ends with `exit`.
pub(super) fn print(text: &str, exit: Exit) -> Exit {
    match std::io::stdout().write_all(printable_lines(text).as_bytes()) {
        Ok(()) => exit,
        // The reader has read enough, as in `check | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit,
        Err(error) => {
            say_error(format_args!("error: cannot write to standard output: {error}"));
            Exit::Other
        }
    }
}
