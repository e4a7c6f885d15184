//! The signals of processes that run on.

use std::process::exit;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::log::LogQueue;
use crate::config_requests::ConfigRequestSender;

/// The signals that this process takes.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    requests: ConfigRequestSender,
}

impl Signals {
    pub(super) fn take(requests: ConfigRequestSender) -> Self {
        let take = |kind| signal(kind).expect("the runtime takes signals");
        Self {
            requests,
            terminate: take(SignalKind::terminate()),
            interrupt: take(SignalKind::interrupt()),
            hangup: take(SignalKind::hangup()),
        }
    }

    /// Sets `stop` at the first SIGTERM or Ctrl-C. A second one ends the process at once, whatever it is doing, without waiting
    /// for `at_work`.
    pub(super) async fn follow(mut self, stop: CancellationToken, at_work: &'static str, log: LogQueue) {
        let signal = self.next().await;
        // Not within the macro: if the filter drops the line, the macro does not evaluate its fields.
        info!(signal, "asked to stop");
        stop.cancel();
        let signal = self.next().await;
        warn!(signal, "asked to stop again, exiting without waiting for {at_work}");
        log.flush();
        exit(1);
    }

    /// The next signal that asks for an end.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "Ctrl-C",
                // A terminal sends it, too, when it closes.
                _ = self.hangup.recv() => {
                    info!("SIGHUP: reading the config again");
                    self.requests.reload();
                }
            }
        }
    }
}
