//! The layout document: the last message of the topology stream is the layout in force.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};
use serde::{Deserialize, Serialize};

use super::error::SourceError;
use super::link::ANSWER_TIMEOUT;
use super::topology::{argument, declare_queue};
use crate::core::layout::Layout;

/// Version of the document's form that this program writes and reads.
pub const DOCUMENT_VERSION: u32 = 1;

/// After the last document read, how long a further one of the same chunk may take.
const CHUNK_GRACE: Duration = Duration::from_millis(200);

/// The layout in force and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutDocument {
    /// Form of the document, [`DOCUMENT_VERSION`]. A newer one is refused, not guessed at.
    pub version: u32,
    /// The layout that publishes go to.
    pub in_force: Layout,
    /// Who wrote it: the instance's name.
    pub changed_by: String,
    /// When, in seconds since 1970-01-01 UTC, by that instance's clock.
    pub changed_at: u64,
}

/// Declares the stream where it is missing and reads its last document.
///
/// # Errors
/// The stream differs, or its last message is no document of this version.
pub(super) async fn read(
    channel: &Channel,
    stream: &str,
    exchange: &str,
) -> Result<Option<LayoutDocument>, SourceError> {
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "x-queue-type", "stream");
    let declared = declare_queue(channel, stream, exchange, arguments).await?;
    if declared.message_count() == 0 {
        return Ok(None);
    }
    let last = last_message(channel, stream).await?;
    last.map(|message| parse(&message.data, stream)).transpose()
}

fn parse(body: &[u8], stream: &str) -> Result<LayoutDocument, SourceError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let fault = |fault: String| SourceError::Document { stream: stream.to_owned(), fault };
    let Versioned { version } = serde_json::from_slice(body).map_err(|error| fault(error.to_string()))?;
    if version != DOCUMENT_VERSION {
        return Err(fault(format!(
            "its version is {version}, this program reads {DOCUMENT_VERSION}; run the program that wrote it, or a newer one"
        )));
    }
    serde_json::from_slice(body).map_err(|error| fault(error.to_string()))
}

/// The newest message. A consumer that asks for `last` gets the last chunk, which can hold several.
async fn last_message(channel: &Channel, stream: &str) -> Result<Option<Delivery>, SourceError> {
    let step = "reading the layout document";
    let amqp = |source| SourceError::Amqp { step, source };
    channel.basic_qos(100, BasicQosOptions::default()).await.map_err(amqp)?;
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "x-stream-offset", "last");
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(stream.into(), "layout".into(), options, arguments).await.map_err(amqp)?;
    let mut last = None;
    loop {
        let patience = if last.is_none() { ANSWER_TIMEOUT } else { CHUNK_GRACE };
        match tokio::time::timeout(patience, consumer.next()).await {
            Ok(Some(Ok(delivery))) => {
                // A stream's ack is credit: nothing is removed.
                delivery.ack(BasicAckOptions::default()).await.map_err(amqp)?;
                last = Some(delivery);
            }
            Ok(Some(Err(source))) => return Err(amqp(source)),
            Ok(None) | Err(_) if last.is_some() => return Ok(last),
            Ok(None) => return Ok(None),
            Err(_) => return Err(SourceError::Silent { step, seconds: ANSWER_TIMEOUT.as_secs() }),
        }
    }
}

/// Appends a document; it is in force once this has returned.
///
/// # Errors
/// The broker did not confirm it.
pub(super) async fn write(
    channel: &Channel,
    stream: &str,
    document: &LayoutDocument,
) -> Result<(), SourceError> {
    let step = "writing the layout document";
    let amqp = |source| SourceError::Amqp { step, source };
    let body = serde_json::to_vec(document).expect("a document is plain data");
    let properties =
        BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publishing = async {
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await?;
        channel.basic_publish("".into(), stream.into(), options, &body, properties).await?.await
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, publishing).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(_)) => Err(SourceError::Document {
            stream: stream.to_owned(),
            fault: "the broker did not take it".to_owned(),
        }),
        Ok(Err(source)) => Err(amqp(source)),
        Err(_) => Err(SourceError::Silent { step, seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}
