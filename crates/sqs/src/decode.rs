//! From a message of SQS to an update, or to what is wrong with it. docs/sqs.md has the table.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_sqs::types::{Message as SqsMessage, MessageAttributeValue, MessageSystemAttributeName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use lanekeeper_core::message_groups::{Message, ReceiptHandle};
use lanekeeper_core::policy::Malformed;
use lanekeeper_core::routes::Routes;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};
use lanekeeper_core::wire;

/// The header that a target gets the sequence number in.
const SEQUENCE_HEADER: &str = "lanekeeper-sequence";

/// What makes a message an update: part of the config.
#[derive(Clone, Debug)]
pub struct SqsDecoder {
    /// Which target takes which type.
    pub routes: Routes,
    /// `updates.body_bytes_max`.
    pub body_bytes_max: usize,
}

/// A message as it came, and what it is.
#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) update: Result<Arc<Update>, Malformed>,
    /// Perhaps delivered before.
    pub(crate) redelivered: bool,
    pub(crate) message_id: String,
    pub(crate) record_key: RecordKey,
    pub(crate) sequence_number: u128,
    pub(crate) body: String,
    pub(crate) attributes: HashMap<String, MessageAttributeValue>,
}

impl SqsDecoder {
    /// `None`: it is no message of a FIFO queue, and is left alone until its visibility timeout ends.
    pub(crate) fn message(&self, mut message: SqsMessage) -> Option<Message<Original>> {
        let system = message.attributes.take().unwrap_or_default();
        let of = |name: MessageSystemAttributeName| system.get(&name).map(String::as_str);
        let record_key = RecordKey::new(of(MessageSystemAttributeName::MessageGroupId)?).ok()?;
        let sequence_number = of(MessageSystemAttributeName::SequenceNumber)?.parse().ok()?;
        let receipt_handle = ReceiptHandle(message.receipt_handle.take()?.into());
        let body = message.body.take().unwrap_or_default();
        let attributes = message.message_attributes.take().unwrap_or_default();
        let message_id = message.message_id.take().unwrap_or_default();
        let facts = Facts {
            attributes: Attributes(&attributes),
            message_id: &message_id,
            published_at: of(MessageSystemAttributeName::SentTimestamp)
                .and_then(|text| Some(text.parse::<u64>().ok()? / 1000)),
            sequence_number,
        };
        let update = self.update(record_key.clone(), &facts, &body);
        let redelivered = of(MessageSystemAttributeName::ApproximateReceiveCount) != Some("1");
        let content = Original {
            update,
            redelivered,
            message_id,
            record_key: record_key.clone(),
            sequence_number,
            body,
            attributes,
        };
        Some(Message { record_key, receipt_handle, sequence_number, content })
    }

    fn update(&self, record_key: RecordKey, facts: &Facts<'_>, text: &str) -> Result<Arc<Update>, Malformed> {
        let attributes = &facts.attributes;
        let body = match attributes.text("body-encoding").as_deref() {
            Some("base64") => Bytes::from(BASE64.decode(text).map_err(|_| Malformed::BodyUnfit)?),
            Some(_) => return Err(Malformed::BodyUnfit),
            None => Bytes::copy_from_slice(text.as_bytes()),
        };
        if body.len() > self.body_bytes_max {
            return Err(Malformed::BodyTooLarge { bytes: body.len(), bytes_max: self.body_bytes_max });
        }
        let update_type = attributes.text("type").or_else(|| attributes.text("cloudEvents_type"));
        let target = self
            .routes
            .find(update_type.as_deref())
            .ok_or_else(|| Malformed::NoTarget { update_type: update_type.clone().unwrap_or_default() })?;
        let mut headers = attributes.passed_on()?;
        headers.push((SEQUENCE_HEADER.to_owned(), facts.sequence_number.to_string()));
        Ok(Arc::new(Update {
            record_key,
            id: facts.update_id()?,
            target,
            update_type,
            version: attributes.version()?,
            content_type: wire::visible("content-type", attributes.text("content-type"))?,
            content_encoding: wire::visible("content-encoding", attributes.text("content-encoding"))?,
            if_match: wire::visible("if-match", attributes.present("if-match")?)?,
            published_at: facts.published_at,
            headers: wire::passed_on(headers)?,
            body,
        }))
    }
}

/// What SQS says of a message beside its body.
struct Facts<'a> {
    attributes: Attributes<'a>,
    message_id: &'a str,
    published_at: Option<u64>,
    sequence_number: u128,
}

impl Facts<'_> {
    /// Of the publisher, if it has chosen one. A deduplication id is none: SQS knows it for five minutes, and a publisher, or
    /// SQS itself, may make it of the body, so that the third of A, B, A would pass for the first. The message id is the same
    /// for every delivery, but not if the update is sent again.
    fn update_id(&self) -> Result<UpdateId, Malformed> {
        let of_publisher =
            self.attributes.text("update-id").or_else(|| self.attributes.text("cloudEvents_id"));
        wire::published_id(of_publisher.as_deref().unwrap_or(self.message_id))
    }
}

/// The message attributes.
struct Attributes<'a>(&'a HashMap<String, MessageAttributeValue>);

impl Attributes<'_> {
    /// Text or a number.
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.string_value().map(str::to_owned)
    }

    /// Present, it must have text: without it the target would write unconditionally, or out of turn.
    fn present(&self, name: &str) -> Result<Option<String>, Malformed> {
        if !self.0.contains_key(name) {
            return Ok(None);
        }
        self.text(name).map(Some).ok_or_else(|| Malformed::HeaderUnfit { name: name.to_owned() })
    }

    fn version(&self) -> Result<Option<i64>, Malformed> {
        const NAME: &str = "record-version";
        let Some(text) = self.present(NAME)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Malformed::HeaderUnfit { name: NAME.to_owned() })
    }

    /// Trace context as it came, and CloudEvents.
    fn passed_on(&self) -> Result<Vec<(String, String)>, Malformed> {
        let mut passed = Vec::new();
        for (name, value) in self.0 {
            if let Some(attribute) = name.strip_prefix("cloudEvents_") {
                passed.push(wire::cloud_event_header(name, attribute, value.string_value())?);
            } else if matches!(name.as_str(), "traceparent" | "tracestate")
                && let Some(value) = value.string_value().filter(|value| wire::is_visible(value))
            {
                passed.push((name.clone(), value.to_owned()));
            }
        }
        passed.sort();
        Ok(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::routes::{TargetId, TypePattern};

    fn decoder() -> SqsDecoder {
        let routes = Routes::new([
            ("customer.*".parse::<TypePattern>().unwrap(), TargetId(0)),
            (TypePattern::Any, TargetId(1)),
        ]);
        SqsDecoder { routes, body_bytes_max: 100 }
    }

    fn message(attributes: &[(&str, &str)], body: &str, deduplication_id: &str) -> SqsMessage {
        let value = |text: &str| {
            MessageAttributeValue::builder().data_type("String").string_value(text).build().unwrap()
        };
        let attributes = attributes.iter().map(|(name, text)| ((*name).to_owned(), value(text)));
        SqsMessage::builder()
            .message_id("the-message-id")
            .receipt_handle("the-handle")
            .body(body)
            .set_message_attributes(Some(attributes.collect()))
            .attributes(MessageSystemAttributeName::MessageGroupId, "record 1")
            .attributes(MessageSystemAttributeName::SequenceNumber, "00018849496460467696128")
            .attributes(MessageSystemAttributeName::MessageDeduplicationId, deduplication_id)
            .attributes(MessageSystemAttributeName::SentTimestamp, "1700000000999")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "1")
            .build()
    }

    fn update(attributes: &[(&str, &str)], body: &str) -> Result<Arc<Update>, Malformed> {
        decoder()
            .message(message(attributes, body, "dedup"))
            .expect("it is a message of a FIFO queue")
            .content
            .update
    }

    #[test]
    fn a_message_is_an_update() {
        let attributes = [
            ("update-id", "u1"),
            ("type", "customer.updated"),
            ("record-version", "-7"),
            ("content-type", "application/json"),
            ("if-match", "\"v1\""),
            ("cloudEvents_source", "a b"),
            ("x-other", "left out"),
        ];
        let update = update(&attributes, "{}").unwrap();
        assert_eq!(
            (update.record_key.as_str(), update.id.as_str(), update.target),
            ("record 1", "u1", TargetId(0))
        );
        assert_eq!((update.version, update.published_at), (Some(-7), Some(1_700_000_000)));
        assert_eq!(update.if_match.as_deref(), Some("\"v1\""));
        let headers: Vec<(&str, &str)> =
            update.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, [("ce-source", "a%20b"), ("lanekeeper-sequence", "18849496460467696128")]);
        assert_eq!(&update.body[..], b"{}");
    }

    #[test]
    fn the_id_is_the_publishers_if_there_is_one() {
        let check = |attributes: &[(&str, &str)], deduplication_id: &str, expected: &str| {
            let message = decoder().message(message(attributes, "{}", deduplication_id)).unwrap();
            assert_eq!(message.content.update.unwrap().id.as_str(), expected);
        };
        check(&[("update-id", "a"), ("cloudEvents_id", "b")], "c", "a");
        check(&[("cloudEvents_id", "b")], "c", "b");
        check(&[], "c", "the-message-id");
    }

    #[test]
    fn what_is_unfit_is_said() {
        assert_eq!(&update(&[("body-encoding", "base64")], "AP8=").unwrap().body[..], &[0, 255]);
        assert!(matches!(update(&[("body-encoding", "base64")], "?"), Err(Malformed::BodyUnfit)));
        assert!(matches!(update(&[("body-encoding", "gzip")], ""), Err(Malformed::BodyUnfit)));
        assert!(matches!(update(&[], &"x".repeat(101)), Err(Malformed::BodyTooLarge { bytes: 101, .. })));
        assert!(matches!(update(&[("record-version", "1.5")], ""), Err(Malformed::HeaderUnfit { .. })));
        assert!(matches!(update(&[("content-type", "é")], ""), Err(Malformed::HeaderUnfit { .. })));
        assert!(matches!(update(&[("update-id", "é")], ""), Err(Malformed::UpdateIdUnfit)));
    }
}
