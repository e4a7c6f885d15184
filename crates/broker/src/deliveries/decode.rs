//! From a delivery to an update, or to what is wrong with it. docs/wire.md has the table.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use crate::connection::{Alteration, AlteredProperties};
use lanekeeper_core::policy::{Malformed, PRIORITY_MAX};
use lanekeeper_core::routes::Routes;
use lanekeeper_core::update::{RecordKey, RecordKeyFault, Update, UpdateId};
use lanekeeper_core::wire;

/// What makes a delivery an update: part of the config, the same for all partitions.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Which target takes which type.
    pub routes: Routes,
    /// `updates.require_id`.
    pub require_id: bool,
    /// `updates.body_bytes_max`.
    pub body_bytes_max: usize,
}

impl Decoder {
    /// Takes the parts of a delivery apart. `alteration`: what the screen changed in them.
    ///
    /// # Errors
    /// What is wrong with it, for the dead-letter queue.
    pub(crate) fn decode(
        &self,
        routing_key: &str,
        properties: &BasicProperties,
        body: Bytes,
        alteration: &Alteration,
    ) -> Result<Arc<Update>, Malformed> {
        match alteration.properties {
            Some(AlteredProperties::Unreadable { .. }) => return Err(Malformed::PropertiesUnreadable),
            Some(AlteredProperties::LeftOut { bytes }) => {
                return Err(Malformed::PropertiesTooLarge { bytes });
            }
            Some(AlteredProperties::Replaced { .. } | AlteredProperties::Apart { .. }) | None => {}
        }
        let headers = Headers(properties.headers().as_ref());
        if headers.find("CC").is_some() {
            return Err(Malformed::CarbonCopy);
        }
        let record_key = record_key(routing_key, alteration.routing_key.as_deref())?;
        if let Some(priority) = properties.priority().filter(|priority| *priority > PRIORITY_MAX) {
            return Err(Malformed::PriorityTooHigh { priority });
        }
        let bytes =
            alteration.body_bytes.map_or(body.len(), |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if bytes > self.body_bytes_max || alteration.body_bytes.is_some() {
            return Err(Malformed::BodyTooLarge { bytes, bytes_max: self.body_bytes_max });
        }
        let update_type = match properties.kind() {
            Some(kind) => Some(kind.as_str().to_owned()),
            None => headers.cloud_event("type"),
        };
        let target = self
            .routes
            .find(update_type.as_deref())
            .ok_or_else(|| Malformed::NoTarget { update_type: update_type.clone().unwrap_or_default() })?;
        Ok(Arc::new(Update {
            record_key,
            id: self.update_id(properties, &headers)?,
            target,
            update_type,
            version: headers.version()?,
            content_type: wire::visible(
                "content_type",
                properties.content_type().as_ref().map(|text| text.as_str().to_owned()),
            )?,
            content_encoding: wire::visible(
                "content_encoding",
                properties.content_encoding().as_ref().map(|text| text.as_str().to_owned()),
            )?,
            if_match: wire::visible("if-match", headers.if_match()?)?,
            published_at: *properties.timestamp(),
            headers: headers.passed_on()?,
            body,
        }))
    }

    fn update_id(&self, properties: &BasicProperties, headers: &Headers<'_>) -> Result<UpdateId, Malformed> {
        let of_cloud_event;
        let published = if let Some(id) = properties.message_id() {
            Some(id.as_str())
        } else {
            of_cloud_event = headers.cloud_event("id");
            of_cloud_event.as_deref()
        };
        match published {
            Some(id) => wire::published_id(id),
            None if self.require_id => Err(Malformed::NoUpdateId),
            None => Ok(UpdateId::made(Uuid::new_v4().to_string())),
        }
    }
}

/// `original`: the bytes of a routing key that is not UTF-8.
fn record_key(routing_key: &str, original: Option<&[u8]>) -> Result<RecordKey, Malformed> {
    if let Some(original) = original {
        let hex = original.iter().fold(String::with_capacity(2 * original.len()), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        });
        return Err(Malformed::RecordKeyNotUtf8 { hex });
    }
    RecordKey::new(routing_key).map_err(|fault| match fault {
        RecordKeyFault::Empty => Malformed::NoRecordKey,
        RecordKeyFault::TooLong => Malformed::RecordKeyTooLong,
    })
}

/// The headers of a delivery.
struct Headers<'a>(Option<&'a FieldTable>);

impl Headers<'_> {
    fn find(&self, name: &str) -> Option<&AMQPValue> {
        self.0?.inner().get(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.find(name).and_then(text)
    }

    /// Present, it must be one that can be sent: without it the target would write unconditionally.
    fn if_match(&self) -> Result<Option<String>, Malformed> {
        let Some(value) = self.find("if-match") else { return Ok(None) };
        text(value).map(Some).ok_or_else(|| Malformed::HeaderUnfit { name: "if-match".to_owned() })
    }

    /// An integer, as a number or in digits. One that is none would let an older update pass for a newer one.
    fn version(&self) -> Result<Option<i64>, Malformed> {
        const NAME: &str = "record-version";
        let Some(value) = self.find(NAME) else { return Ok(None) };
        let version = match value {
            AMQPValue::ShortShortInt(number) => Some(i64::from(*number)),
            AMQPValue::ShortShortUInt(number) => Some(i64::from(*number)),
            AMQPValue::ShortInt(number) => Some(i64::from(*number)),
            AMQPValue::ShortUInt(number) => Some(i64::from(*number)),
            AMQPValue::LongInt(number) => Some(i64::from(*number)),
            AMQPValue::LongUInt(number) => Some(i64::from(*number)),
            AMQPValue::LongLongInt(number) => Some(*number),
            value => text(value).and_then(|text| text.parse().ok()),
        };
        version.map(Some).ok_or_else(|| Malformed::HeaderUnfit { name: NAME.to_owned() })
    }

    /// A CloudEvents attribute, by either prefix of the AMQP binding (CloudEvents 1.0.2, AMQP binding, 3.1.3).
    fn cloud_event(&self, attribute: &str) -> Option<String> {
        self.text(&format!("cloudEvents_{attribute}"))
            .or_else(|| self.text(&format!("cloudEvents:{attribute}")))
    }

    /// Trace context as it came (a broken one is left out, as W3C Trace Context 1.0, 2.2 asks) and CloudEvents.
    fn passed_on(&self) -> Result<Vec<(String, String)>, Malformed> {
        let Some(table) = self.0 else { return Ok(Vec::new()) };
        let mut passed = Vec::new();
        for (name, value) in table.inner() {
            let name = name.as_str();
            let attribute = name.strip_prefix("cloudEvents_").or_else(|| name.strip_prefix("cloudEvents:"));
            if let Some(attribute) = attribute {
                passed.push(wire::cloud_event_header(name, attribute, text(value).as_deref())?);
            } else if matches!(name, "traceparent" | "tracestate")
                && let Some(value) = text(value)
                && wire::is_visible(&value)
            {
                passed.push((name.to_owned(), value));
            }
        }
        wire::passed_on(passed)
    }
}

/// Text, numbers and truth values; tables and arrays have no text.
fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::ShortShortInt(value) => Some(value.to_string()),
        AMQPValue::ShortShortUInt(value) => Some(value.to_string()),
        AMQPValue::ShortInt(value) => Some(value.to_string()),
        AMQPValue::ShortUInt(value) => Some(value.to_string()),
        AMQPValue::LongInt(value) => Some(value.to_string()),
        AMQPValue::LongUInt(value) => Some(value.to_string()),
        AMQPValue::LongLongInt(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::ByteArray;

    use super::*;

    #[test]
    fn the_number_of_headers_that_are_passed_on_is_bounded() {
        let check = |attributes: usize, others: usize, expected: Result<usize, Malformed>| {
            let mut table = FieldTable::default();
            for number in 0..attributes {
                table.insert(format!("cloudEvents_a{number}").into(), AMQPValue::LongInt(7));
            }
            for number in 0..others {
                table.insert(format!("x-{number}").into(), AMQPValue::LongInt(7));
            }
            let passed = Headers(Some(&table)).passed_on().map(|passed| passed.len());
            assert_eq!(passed, expected, "{attributes} {others}");
        };
        check(0, 1_000, Ok(0));
        check(64, 1_000, Ok(64));
        check(65, 0, Err(Malformed::HeadersTooMany { headers: 65, headers_max: 64 }));
    }

    #[test]
    fn a_condition_is_sent_or_the_delivery_is_malformed() {
        let check = |value: AMQPValue, expected: Option<&str>| {
            let mut table = FieldTable::default();
            table.insert("if-match".into(), value);
            let found = Headers(Some(&table)).if_match();
            assert_eq!(found.as_ref().ok().and_then(Option::as_deref), expected, "{found:?}");
        };
        check(AMQPValue::LongString("\"v1\"".into()), Some("\"v1\""));
        check(AMQPValue::LongInt(7), Some("7"));
        check(AMQPValue::ByteArray(ByteArray::from(b"v1".as_slice())), None);
        check(AMQPValue::Void, None);
        check(AMQPValue::FieldTable(FieldTable::default()), None);
        check(AMQPValue::LongString(b"\xff".as_slice().into()), None);
        assert_eq!(Headers(None).if_match(), Ok(None));
    }
}
