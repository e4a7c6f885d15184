//! The largest message that the broker takes. No API shows it (3.10.8, 4.0.5), so it is tried.

use std::time::Duration;

use lapin::BasicProperties;
use tokio::time::timeout;
use uuid::Uuid;

use super::channel::confirm_channel::{ConfirmChannel, Message};
use super::connection::Address;
use super::exchange_probe::{is_of_a_fitting_size, refused_message};

/// How much is sent at most: a byte more than RabbitMQ 4 takes by default.
pub const MESSAGE_SIZE_TRIED_MAX: usize = 16 * 1024 * 1024 + 1;
/// How long it may take, on a slow link too.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// If the broker takes a message of some size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageSize {
    /// It takes messages of so many bytes.
    Takes(usize),
    /// It refuses messages over its `max_message_size`.
    Refuses {
        /// What was tried, in bytes.
        tried: usize,
        /// Its limit in bytes, if its words name it.
        max: Option<u64>,
    },
    /// Why that is not known.
    Unknown(String),
}

/// Publishes one message of `bytes`, or of [`MESSAGE_SIZE_TRIED_MAX`] if that is less, that no queue takes.
pub async fn try_message_size(address: &Address, name: &str, bytes: usize) -> MessageSize {
    // To the default exchange with the name of no queue, so that it is confirmed and dropped.
    let nobody = format!("lanekeeper.doctor.{}", Uuid::new_v4());
    let body = vec![0; bytes.min(MESSAGE_SIZE_TRIED_MAX)];
    try_message(address, name, Message::to_queue(&nobody, BasicProperties::default(), &body)).await
}

/// The same with the rights of a publisher to this exchange alone, or with none: the broker looks at the size first, and
/// routes the message nowhere.
pub async fn try_message_size_at(address: &Address, exchange: &str, name: &str, bytes: usize) -> MessageSize {
    let body = vec![0; bytes.min(MESSAGE_SIZE_TRIED_MAX)];
    try_message(address, name, refused_message(exchange, &body)).await
}

async fn try_message(address: &Address, name: &str, message: Message<'_>) -> MessageSize {
    let tried = message.body.len();
    let connection = match address.connect(name).await {
        Ok(connection) => connection,
        Err(fault) => return MessageSize::Unknown(fault.to_string()),
    };
    let publishing = async {
        let channel = ConfirmChannel::select(connection.create_channel().await?).await?;
        // It is not mandatory: a broker that returns it would send it all back.
        channel.send_to_nobody(message).await?.answer().await
    };
    let size = match timeout(TRY_TIMEOUT, publishing).await {
        Ok(Ok(_)) => MessageSize::Takes(tried),
        Ok(Err(error)) => refusal(tried, &error.to_string()),
        Err(_) => MessageSize::Unknown(format!("no answer within {} s", TRY_TIMEOUT.as_secs())),
    };
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
    size
}

/// RabbitMQ closes the channel: "`PRECONDITION_FAILED` - message size 2097153 is larger than configured max size 1048576"
/// (3.10.8).
fn refusal(tried: usize, words: &str) -> MessageSize {
    const WORDS: &str = "larger than configured max size ";
    match words.split_once(WORDS) {
        Some((_, rest)) => {
            let number = rest.split(|c: char| !c.is_ascii_digit()).next();
            MessageSize::Refuses { tried, max: number.and_then(|number| number.parse().ok()) }
        }
        None if words.contains("larger than max") => MessageSize::Refuses { tried, max: None },
        None if is_of_a_fitting_size(words) => MessageSize::Takes(tried),
        None => MessageSize::Unknown(words.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_in_the_words_of_the_refusal() {
        let check = |words: &str, expected: MessageSize| assert_eq!(refusal(9, words), expected, "{words}");
        let words = "`PRECONDITION_FAILED` - message size 9 is larger than configured max size 8, x";
        check(words, MessageSize::Refuses { tried: 9, max: Some(8) });
        check("message size 9 is larger than max size 8", MessageSize::Refuses { tried: 9, max: None });
        check("ACCESS_REFUSED", MessageSize::Unknown("ACCESS_REFUSED".to_owned()));
        check("PRECONDITION_FAILED - invalid expiration 'never': x", MessageSize::Takes(9));
        check("NOT_FOUND - no exchange 'updates' in vhost '/'", MessageSize::Takes(9));
        check("ACCESS_REFUSED - access to exchange 'u' in vhost '/' refused", MessageSize::Takes(9));
    }
}
