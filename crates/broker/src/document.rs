//! The layout document: the last message of the topology stream is the layout in force.

use std::mem::ManuallyDrop;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::SourceError;
use super::link::ANSWER_TIMEOUT;
use super::names::Names;
use super::topology::{argument, close, declare_queue, open, stream_arguments};
use lanekeeper_core::change::Layouts;

/// Version of the document's form that this program writes.
pub const DOCUMENT_VERSION: u32 = 3;
/// The oldest version that it reads: the one before witnesses.
const DOCUMENT_VERSION_MIN: u32 = 1;
/// The first version with witnesses.
const WITH_WITNESSES: u32 = 2;

/// How long the first message may take where there is one. If it takes longer, [`read_to_end`] decides.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// After the last document read, how long a further one of the same chunk may take.
const CHUNK_GRACE: Duration = Duration::from_millis(200);

/// The layout in force and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutDocument {
    /// Form of the document, `DOCUMENT_VERSION` or an older one. A newer one is refused, not guessed at.
    pub version: u32,
    /// Grows by one with every document of the stream; 0 before version 3.
    #[serde(default)]
    pub serial: u64,
    /// Which layouts there are. Version 1 has no witnesses; before version 3 there is one layout alone.
    #[serde(flatten)]
    pub layouts: Layouts,
    /// Identity of the ledger that belongs to this exchange; `None`: none has been used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Uuid>,
    /// Who wrote it: the instance's name.
    pub changed_by: String,
    /// When, in seconds since 1970-01-01 UTC, by that instance's clock.
    pub changed_at: u64,
}

/// What a message of the stream is: its AMQP `type`.
const LAYOUT: &str = "layout";
/// Written to find the end of the stream; says nothing.
const BARRIER: &str = "barrier";

/// Declares the stream where it is missing.
///
/// # Errors
/// It exists with other arguments, or may not be declared.
pub(super) async fn declare(channel: &Channel, stream: &str, exchange: &str) -> Result<(), SourceError> {
    declare_queue(channel, stream, exchange, stream_arguments()).await.map(drop)
}

/// Reads the last document. `None` is no proof that there is none: a slow broker looks like an empty stream (and the
/// message count of a stream is seconds behind; 3.10.8, measured). [`read_to_end`] is proof.
///
/// # Errors
/// The last message is no document of this version.
pub(super) async fn read_last(
    channel: &Channel,
    stream: &str,
) -> Result<Option<LayoutDocument>, SourceError> {
    let mut consumer = consume(channel, stream, StreamOffset::Last).await?;
    let mut last = None;
    loop {
        // The last chunk can hold several messages; they come together.
        let within = if last.is_none() { FIRST_PATIENCE } else { CHUNK_GRACE };
        match tokio::time::timeout(within, next(&mut consumer)).await {
            Ok(delivery) => last = layout(&delivery?, stream)?.or(last),
            Err(_) => return Ok(last),
        }
    }
}

/// The last document, for whoever holds the lock: nobody writes meanwhile. `None`: there is none.
///
/// # Errors
/// As [`read_last`] and [`read_to_end`].
pub(super) async fn read_surely(
    connection: &Connection,
    names: &Names,
) -> Result<Option<LayoutDocument>, SourceError> {
    let stream = names.topology();
    // Without a publish, which an alarm would hold up.
    let reader = open(connection).await?;
    let last = read_last(&reader, &stream).await;
    close(reader).await;
    if let Some(document) = last? {
        return Ok(Some(document));
    }
    let reader = open(connection).await?;
    let last = read_to_end(&reader, &stream, names.public()).await;
    close(reader).await;
    last
}

/// Reads the whole stream, up to a barrier written for this purpose, and answers with the last document.
///
/// # Errors
/// The broker did not take the barrier or did not give it back; a document cannot be read.
pub(super) async fn read_to_end(
    channel: &Channel,
    stream: &str,
    exchange: &str,
) -> Result<Option<LayoutDocument>, SourceError> {
    let barrier = Uuid::new_v4().to_string();
    append(channel, stream, exchange, BARRIER, barrier.as_bytes()).await?;
    let mut consumer = consume(channel, stream, StreamOffset::First).await?;
    let mut last = None;
    loop {
        let delivery = match tokio::time::timeout(ANSWER_TIMEOUT, next(&mut consumer)).await {
            Ok(delivery) => delivery?,
            Err(_) => return Err(SourceError::Silent { step: READING, seconds: ANSWER_TIMEOUT.as_secs() }),
        };
        if delivery.data == barrier.as_bytes() {
            return Ok(last);
        }
        last = layout(&delivery, stream)?.or(last);
    }
}

const READING: &str = "reading the layout document";

/// Dropping the consumer would send a cancel, which can come after the close of its channel: the broker then ends the
/// connection (`expected 'channel.open'`; 3.10.8, measured). It ends with its channel.
pub(super) async fn consume(
    channel: &Channel,
    stream: &str,
    from: StreamOffset,
) -> Result<ManuallyDrop<Consumer>, SourceError> {
    let amqp = SourceError::amqp(READING);
    channel.basic_qos(100, BasicQosOptions::default()).await.map_err(amqp)?;
    let mut arguments = FieldTable::default();
    match from {
        StreamOffset::First => argument(&mut arguments, "x-stream-offset", "first"),
        StreamOffset::Last => argument(&mut arguments, "x-stream-offset", "last"),
        StreamOffset::Next => argument(&mut arguments, "x-stream-offset", "next"),
        StreamOffset::Offset(offset) => {
            arguments.insert("x-stream-offset".into(), AMQPValue::LongLongInt(offset));
        }
    }
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(stream.into(), "".into(), options, arguments).await;
    consumer.map(ManuallyDrop::new).map_err(amqp)
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamOffset {
    First,
    /// With the last chunk.
    Last,
    Offset(i64),
    /// With what comes from now on.
    Next,
}

pub(super) async fn next(consumer: &mut Consumer) -> Result<Delivery, SourceError> {
    let amqp = SourceError::amqp(READING);
    let Some(delivery) = consumer.next().await else {
        return Err(SourceError::Missing { text: "the stream with the layout document is gone".to_owned() });
    };
    let delivery = delivery.map_err(amqp)?;
    // A stream's ack is credit: nothing is removed.
    delivery.ack(BasicAckOptions::default()).await.map_err(amqp)?;
    Ok(delivery)
}

/// The document, where the message is one.
pub(super) fn layout(delivery: &Delivery, stream: &str) -> Result<Option<LayoutDocument>, SourceError> {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    (kind != Some(BARRIER)).then(|| parse(&delivery.data, stream)).transpose()
}

fn parse(body: &[u8], stream: &str) -> Result<LayoutDocument, SourceError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let fault = |fault: String| SourceError::Document { stream: stream.to_owned(), fault };
    let Versioned { version } = serde_json::from_slice(body).map_err(|error| fault(error.to_string()))?;
    if !(DOCUMENT_VERSION_MIN..=DOCUMENT_VERSION).contains(&version) {
        return Err(fault(format!(
            "its version is {version}, this program reads {DOCUMENT_VERSION_MIN} to {DOCUMENT_VERSION}; run the program that wrote it, or a newer one"
        )));
    }
    let document: LayoutDocument = serde_json::from_slice(body).map_err(|error| fault(error.to_string()))?;
    match unfit(&document) {
        Some(what) => Err(fault(what)),
        None => Ok(document),
    }
}

/// What no document can be like.
fn unfit(document: &LayoutDocument) -> Option<String> {
    let without = document.version >= WITH_WITNESSES && document.layouts.witnesses.is_empty();
    document.layouts.unfit().or_else(|| {
        without.then(|| format!("it has no witnesses, which version {} must have", document.version))
    })
}

/// Appends a document; it is in force once this has returned.
///
/// # Errors
/// The broker did not confirm it.
pub(super) async fn write(
    channel: &Channel,
    stream: &str,
    exchange: &str,
    document: &LayoutDocument,
) -> Result<(), SourceError> {
    let body = serde_json::to_vec(document).expect("a document is plain data");
    append(channel, stream, exchange, LAYOUT, &body).await
}

/// Appends a message; every reader can have it once this has returned.
async fn append(
    channel: &Channel,
    stream: &str,
    exchange: &str,
    kind: &str,
    body: &[u8],
) -> Result<(), SourceError> {
    let step = "writing to the stream with the layout document";
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type(kind.into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publishing = async {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channel.basic_publish("".into(), stream.into(), options, body, properties).await?.await
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, publishing).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(_)) => Err(SourceError::Document {
            stream: stream.to_owned(),
            fault: "the broker did not take what was written to it".to_owned(),
        }),
        Ok(Err(source)) => Err(SourceError::from_amqp(step, &format!("stream {stream}"), exchange, source)),
        Err(_) => Err(SourceError::Silent { step, seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<usize, &str>) {
        match (parse(body.as_bytes(), "updates.topology"), expected) {
            (Ok(document), Ok(witnesses)) => {
                assert_eq!(document.layouts.witnesses.len(), witnesses, "{body}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{body}: {error}"),
            (found, _) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }

    fn document(version: u32, layout: &str, witnesses: &str) -> String {
        format!(
            r#"{{"version":{version},"in_force":{layout},"changed_by":"a","changed_at":1767225600{witnesses}}}"#
        )
    }

    #[test]
    fn a_document_is_read_or_refused_with_what_is_wrong() {
        const LAYOUT: &str = r#"{"number":1,"partitions":8,"prefetch":1000}"#;
        const WITNESS: &str = r#","witnesses":[{"key":"w","partition":7}]"#;
        check(&document(1, LAYOUT, ""), Ok(0));
        check(&document(2, LAYOUT, WITNESS), Ok(1));
        check(&document(2, LAYOUT, ""), Err("no witnesses"));
        check(&document(2, LAYOUT, &WITNESS.replace('7', "8")), Err("witness w is in p008"));
        check(&document(3, LAYOUT, WITNESS), Ok(1));
        for (version, fault) in [(0, "version is 0"), (4, "version is 4")] {
            check(&document(version, LAYOUT, WITNESS), Err(fault));
        }
        let layout = |from: &str, to: &str| document(2, &LAYOUT.replace(from, to), WITNESS);
        check(&layout(":8", ":0"), Err("partitions is 0, it must be 1 to 1024"));
        check(&layout(":8", ":1025"), Err("partitions is 1025"));
        check(&layout(":8", ":-1"), Err("invalid value"));
        check(&layout("1000", "0"), Err("prefetch is 0"));
        check(&layout("\"number\":1", "\"number\":0"), Err("number is 0"));
        check(&layout("8", "\"8\""), Err("invalid type"));
        check("{}", Err("version"));
        check("no JSON", Err("expected"));
    }
}
