//! Publishes what a door says of itself, to an exchange for such reports alone: on a connection of its own, so that updates
//! never wait for it. The door's user may lack the right to write there; then nobody sees the door, and nothing else changes.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use lapin::BasicProperties;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::channel::confirm_channel::{ConfirmChannel, Message};
use super::connection::{Address, Connection};
use super::error::SourceError;
use super::log_on_change::LogOnChange;
use super::names::Names;
use lanekeeper_core::error::error_chain;

/// Between two reports.
pub const DOOR_REPORT_EVERY: Duration = Duration::from_secs(2);
/// The longest report, in bytes. Dispatchers pass over longer ones.
pub const DOOR_REPORT_BYTES_MAX: usize = 64 * 1024;

const STEP: &str = "reporting to the dispatchers";
/// How long the broker may take to confirm a report while it has no alarm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether an alarm keeps a report back.
const BLOCKED_POLL: Duration = Duration::from_secs(1);
/// How long the last report, and the close after it, may take.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Waits after a failure. The broker writes a line in its log for each report to an exchange that is not there.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(2);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
/// After other failures, as of the connection. Dispatchers miss a door that says nothing for ten seconds.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);
/// A right is seldom granted in passing, and the broker writes a line in its log each time it refuses.
const NOT_PERMITTED_DELAY: Duration = Duration::from_secs(300);

/// What a report is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// The door is there.
    Regular,
    /// The door ends: nobody is to wait for another report.
    Last,
}

/// Reports until the door ends.
#[derive(Debug)]
pub struct DoorReporter {
    address: Address,
    connection_name: String,
    exchange: String,
    public: String,
}

struct ReportSession {
    connection: Connection,
    channel: ConfirmChannel,
}

impl Drop for ReportSession {
    fn drop(&mut self) {
        self.connection.cut_if_blocked();
    }
}

impl DoorReporter {
    /// Connects when it runs. `exchange`: `updates.exchange`.
    #[must_use]
    pub fn new(address: Address, instance: &str, exchange: &str) -> Self {
        Self {
            address,
            connection_name: format!("lanekeeper {instance} door reports"),
            exchange: Names::new(exchange).doors(),
            public: exchange.to_owned(),
        }
    }

    /// Publishes what `report` makes, every two seconds until `stop` ends; then, if reports have been taken, the last one.
    /// Returns within three seconds after `stop`.
    pub async fn run(self, report: impl Fn(ReportKind) -> Vec<u8>, stop: impl Future<Output = ()>) {
        let mut session = None;
        let mut stop = pin!(stop);
        tokio::select! {
            never = self.report_for_ever(&report, &mut session) => match never {},
            () = stop.as_mut() => {}
        }
        let Some(ReportSession { connection, channel }) = &session else { return };
        if !connection.status().blocked() {
            let _ = timeout(END_TIMEOUT, self.publish(channel, &report(ReportKind::Last))).await;
            let _ = timeout(END_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
        }
    }

    async fn report_for_ever(
        &self,
        report: &impl Fn(ReportKind) -> Vec<u8>,
        session: &mut Option<ReportSession>,
    ) -> Infallible {
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        let mut log = LogOnChange::default();
        // That a right is missing is said once until it is granted.
        let mut has_hinted = false;
        loop {
            let fault = match self.report(report, session).await {
                Ok(()) => {
                    backoff.reset();
                    log.cleared();
                    if std::mem::take(&mut has_hinted) {
                        info!(exchange = self.exchange, "the dispatchers can show this door");
                    }
                    sleep(DOOR_REPORT_EVERY).await;
                    continue;
                }
                Err(fault) => fault,
            };
            *session = None;
            if let SourceError::NotPermitted { text, .. } = &fault {
                if !std::mem::replace(&mut has_hinted, true) {
                    let write = format!(r"^{}(\.doors)?$", regex_escaped(&self.public));
                    info!(
                        broker = text,
                        exchange = self.exchange,
                        %write,
                        "`lanekeeper status` and the pages of dispatchers do not show this door, since its user may not write to this exchange; updates \
                         are taken all the same. To have the door shown, grant its user this permission to write, as docs/ingest.md says"
                    );
                }
                sleep(NOT_PERMITTED_DELAY).await;
                continue;
            }
            let error = error_chain(&fault);
            if log.is_new(error.clone()) {
                debug!(error, exchange = self.exchange, "cannot report to the dispatchers, trying again");
            }
            let delay = backoff.next_delay();
            let is_missing = matches!(fault, SourceError::Missing { .. });
            sleep(if is_missing { delay } else { delay.min(RECONNECT_DELAY_MAX) }).await;
        }
    }

    /// Publishes one report, and waits for its confirm; for as long as there is an alarm.
    async fn report(
        &self,
        report: &impl Fn(ReportKind) -> Vec<u8>,
        session: &mut Option<ReportSession>,
    ) -> Result<(), SourceError> {
        let session = match session {
            Some(session) => session,
            None => session.insert(self.open().await?),
        };
        let body = report(ReportKind::Regular);
        let mut publishing = pin!(self.publish(&session.channel, &body));
        let mut since = Instant::now();
        loop {
            match timeout(BLOCKED_POLL, publishing.as_mut()).await {
                Ok(published) => return published,
                Err(_) if session.connection.status().blocked() => since = Instant::now(),
                Err(_) if since.elapsed() > CONFIRM_TIMEOUT => {
                    return Err(SourceError::Silent { step: STEP, seconds: CONFIRM_TIMEOUT.as_secs() });
                }
                Err(_) => {}
            }
        }
    }

    async fn open(&self) -> Result<ReportSession, SourceError> {
        let connection = self.address.connect(&self.connection_name).await?;
        let channel = connection.create_channel().await.map_err(SourceError::amqp(STEP))?;
        let channel = ConfirmChannel::select(channel).await.map_err(SourceError::amqp(STEP))?;
        Ok(ReportSession { connection, channel })
    }

    async fn publish(&self, channel: &ConfirmChannel, body: &[u8]) -> Result<(), SourceError> {
        let object = format!("exchange {}", self.exchange);
        let fault = |source| SourceError::from_amqp(STEP, &object, &self.public, source);
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let message =
            Message { exchange: self.exchange.as_str().into(), routing_key: "".into(), properties, body };
        // Without dispatchers it finds no queue, and is gone.
        channel.send_to_nobody(message).await.map_err(fault)?.answer().await.map_err(fault)?;
        Ok(())
    }
}

/// As a part of a regular expression that means just this text.
fn regex_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && c != '_' && c != '-' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_an_exchange_means_just_itself_in_a_permission() {
        assert_eq!(regex_escaped("updates"), "updates");
        assert_eq!(regex_escaped("crm.updates-2"), r"crm\.updates-2");
    }
}
