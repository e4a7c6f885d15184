//! Looks at an exchange over AMQP with the rights of a publisher alone, and without a message that is routed.
//!
//! RabbitMQ looks at a publish in this order: its size, the user's right to write, the exchange, its expiration (3.10.8 and
//! 4.0.5, tested; `rabbit_channel.erl` of later versions). So a message with an expiration that is no number tells of all the others, and never gets further.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::time::timeout;

use super::channel::confirm_channel::{ConfirmChannel, Message};
use super::connection::{Address, Connection};
use super::error::SourceError;

/// How long the broker may take to answer. Without an alarm it takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The broker's words for an expiration that is no number.
const INVALID_EXPIRATION: &str = "invalid expiration";
/// The broker's words for an exchange that publishers may not use.
const INTERNAL: &str = "to internal exchange";

/// The broker's words for what it looks at after the size, and before the expiration (3.10.8 and 4.0.5).
const AFTER_THE_SIZE: [&str; 3] = ["access to exchange '", "no exchange '", INTERNAL];

/// What a publisher meets at the broker.
#[derive(Clone, Debug)]
pub struct ExchangeProbe {
    /// Host and port.
    pub address: String,
    /// As the broker says it, such as `3.10.8`.
    pub version: Option<String>,
    /// Name of its cluster.
    pub cluster: Option<String>,
    /// If the exchange takes what this user publishes, or why not.
    pub publishing: ExchangePublishing,
}

/// If an exchange takes what a user publishes, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangePublishing {
    /// It does.
    Taken,
    /// It is not there. The user may write to it.
    Missing,
    /// It takes messages from other exchanges alone.
    Internal,
    /// The broker's words: the user may not write to it.
    NotPermitted(String),
    /// An alarm blocks publishes.
    Blocked,
    /// The broker does not answer.
    Silent,
}

/// Publishes twice to the exchange, what the broker refuses for its expiration. `name`: of the connection.
///
/// # Errors
/// The broker cannot be reached, refuses us, or answers something else.
pub async fn probe_exchange(
    address: &Address,
    exchange: &str,
    name: &str,
) -> Result<ExchangeProbe, SourceError> {
    let connection = address.connect(name).await?;
    let publishing = try_publishing(&connection, exchange).await;
    let probe = publishing.map(|publishing| ExchangeProbe {
        address: connection.host_port().to_owned(),
        version: connection.server_property("version"),
        cluster: connection.server_property("cluster_name"),
        publishing,
    });
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
    probe
}

/// Under an alarm the broker reads the first publish of a connection, and nothing after it (3.10.8, measured).
async fn try_publishing(connection: &Connection, exchange: &str) -> Result<ExchangePublishing, SourceError> {
    let twice = async {
        for _ in 0..2 {
            match publish_once(connection, exchange).await? {
                ExchangePublishing::Taken => {}
                other => return Ok(other),
            }
        }
        Ok(ExchangePublishing::Taken)
    };
    match timeout(ANSWER_TIMEOUT, twice).await {
        Ok(answer) => answer,
        Err(_) if connection.status().blocked() => Ok(ExchangePublishing::Blocked),
        Err(_) => Ok(ExchangePublishing::Silent),
    }
}

async fn publish_once(connection: &Connection, exchange: &str) -> Result<ExchangePublishing, SourceError> {
    let publishing = async {
        // The broker closes the channel of what it refuses.
        let channel = ConfirmChannel::select(connection.create_channel().await?).await?;
        channel.send_to_nobody(refused_message(exchange, b"")).await?.answer().await
    };
    let Err(source) = publishing.await else { return Ok(ExchangePublishing::Taken) };
    if is_refused_for_expiration(&source.to_string()) {
        return Ok(ExchangePublishing::Taken);
    }
    match SourceError::from_amqp("trying to publish", exchange, exchange, source) {
        SourceError::Missing { .. } => Ok(ExchangePublishing::Missing),
        SourceError::NotPermitted { text, .. } if text.contains(INTERNAL) => Ok(ExchangePublishing::Internal),
        SourceError::NotPermitted { text, .. } => Ok(ExchangePublishing::NotPermitted(text)),
        other => Err(other),
    }
}

/// A message to this exchange that the broker routes nowhere, since it refuses it last for its expiration.
pub(crate) fn refused_message<'a>(exchange: &str, body: &'a [u8]) -> Message<'a> {
    Message {
        exchange: exchange.into(),
        routing_key: ShortString::from("lanekeeper.doctor"),
        properties: BasicProperties::default().with_expiration("never".into()),
        body,
    }
}

fn is_refused_for_expiration(words: &str) -> bool {
    words.contains(INVALID_EXPIRATION)
}

/// Returns true if the broker says something of a message that it says only once it has taken its size.
pub(crate) fn is_of_a_fitting_size(words: &str) -> bool {
    is_refused_for_expiration(words) || AFTER_THE_SIZE.iter().any(|part| words.contains(part))
}
