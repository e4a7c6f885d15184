//! What every command needs: a runtime, an exit code, the signals that end it, and one way to print an error.

use std::error::Error;
use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use lanekeeper::cli::{ConfigArguments, Exit};

/// A runtime with as many workers as there are cores.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("the runtime starts")
}

/// Prints an error with its causes.
pub(crate) fn print_error(error: &dyn Error) {
    eprintln!("error: {}", lanekeeper_core::error::error_chain(error));
}

/// The signals that end a command. From now on they do not end the process by themselves.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn new() -> io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hang_up: None })
    }

    /// These and SIGHUP, for what nobody runs with `nohup`.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn with_hang_up() -> io::Result<Self> {
        Ok(Self { hang_up: Some(signal(SignalKind::hangup())?), ..Self::new()? })
    }

    /// Waits for the next one; its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hang_up => "SIGHUP",
        }
    }
}
