//! Dead letters: a delivery as it came, with the reason why it is not dispatched. docs/wire.md has the table.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::connection::Originals;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::policy::DeadLetterReason;
use lanekeeper_core::update::{IdOrigin, Update};

/// A dead letter's `lanekeeper-detail` in bytes, well under the frame size that headers must fit.
const DETAIL_BYTES_MAX: usize = 1024;
/// Room in the frame of a dead letter's properties for all that is not a header of its publisher: the short strings (255 bytes
/// each, some twice), the reason headers and the frame itself.
const ROOM_BYTES: usize = 8 * 1024;
/// RabbitMQ's default of `frame_max`. A dead letter fits it whatever this connection has negotiated: its readers have
/// negotiated for themselves.
pub(super) const FRAME_BYTES_MAX: usize = 131_072;

/// A delivery as it came.
#[derive(Clone, Debug)]
pub(super) struct DeadLetter {
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    /// What the client cannot express of it.
    pub(super) originals: Originals,
}

impl DeadLetter {
    /// Returns true if all of it, with a reason, fits the frame of its properties.
    pub(super) fn fits_a_frame(&self, frame_max: usize) -> bool {
        let headers = self.properties.headers().iter().flat_map(FieldTable::inner);
        let headers: usize = headers.map(|(name, value)| header_bytes(name, value)).sum();
        let originals: usize = self.originals.named().map(|(_, original)| original.len()).sum();
        headers + originals <= frame_max.saturating_sub(ROOM_BYTES)
    }

    /// The dead letter of an update that the broker does not hold, or whose delivery says no more than the update does: as its
    /// publisher would publish it again.
    pub(super) fn of(update: &Update) -> Self {
        let mut headers = FieldTable::default();
        for (name, value) in &update.headers {
            let name = match name.strip_prefix("ce-") {
                Some(attribute) => format!("cloudEvents_{attribute}"),
                None => name.clone(),
            };
            headers.insert(name.into(), AMQPValue::LongString(value.clone().into()));
        }
        if let Some(version) = update.version {
            headers.insert("record-version".into(), AMQPValue::LongLongInt(version));
        }
        if let Some(etag) = &update.if_match {
            headers.insert("if-match".into(), AMQPValue::LongString(etag.clone().into()));
        }
        let published = update.id.origin() == IdOrigin::Publisher;
        let id = published.then(|| ShortString::from(update.id.as_str()));
        let short = |text: &Option<String>| text.as_deref().map(ShortString::from);
        let properties = BasicProperties::default().with_headers(headers);
        let properties = with(properties, id.as_ref(), BasicProperties::with_message_id);
        let properties = with(properties, short(&update.update_type).as_ref(), BasicProperties::with_type);
        let properties =
            with(properties, short(&update.content_type).as_ref(), BasicProperties::with_content_type);
        let properties = with(
            properties,
            short(&update.content_encoding).as_ref(),
            BasicProperties::with_content_encoding,
        );
        let properties = with(properties, update.published_at.as_ref(), BasicProperties::with_timestamp);
        Self {
            routing_key: update.record_key.as_str().into(),
            properties,
            body: update.body.clone(),
            originals: Originals::default(),
        }
    }
}

/// The properties as they came, made persistent, with the reason headers. Properties that would make the broker drop the
/// dead letter (`expiration`), refuse it (`user_id`, unless it is ours) or route it to other queues too (`CC`) are left out or
/// renamed.
///
/// Properties must fit one frame, or the broker ends the connection. A dead letter has more of them than the update had, so
/// headers for which there is no room are left out, the last in the order of their names.
pub(super) fn with_reason(
    dead_letter: &DeadLetter,
    partition: PartitionNumber,
    reason: &DeadLetterReason,
    frame_max: usize,
) -> BasicProperties {
    let DeadLetter { properties, originals, .. } = dead_letter;
    let mut headers = FieldTable::default();
    let mut room = frame_max.saturating_sub(ROOM_BYTES);
    let mut left_out = 0_u32;
    let mut originals_that_fit = Vec::new();
    for (name, original) in originals.named() {
        if original.len() > room {
            left_out += 1;
            continue;
        }
        room -= original.len();
        originals_that_fit.push((name, original));
    }
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        let bytes = header_bytes(name, value);
        if bytes > room {
            left_out += 1;
            continue;
        }
        room -= bytes;
        match name.as_str() {
            "CC" | "BCC" => headers.insert(format!("lanekeeper-original-{name}").into(), value.clone()),
            _ => headers.insert(name.clone(), value.clone()),
        };
    }
    // After what publishers put there, which cannot stand in for it.
    for (name, original) in originals_that_fit {
        headers.insert(name.into(), AMQPValue::ByteArray(original.into()));
    }
    let mut put = |name: &str, value: String| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    put("lanekeeper-reason", reason.name().to_owned());
    put("lanekeeper-detail", bounded(reason.detail()));
    put("lanekeeper-partition", partition.to_string());
    if left_out > 0 {
        put("lanekeeper-headers-left-out", left_out.to_string());
    }
    if let Some(user_id) = properties.user_id() {
        put("lanekeeper-original-user-id", user_id.to_string());
    }
    if let Some(expiration) = properties.expiration() {
        put("lanekeeper-original-expiration", expiration.to_string());
    }
    let kept = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    let kept = with(kept, properties.content_type().as_ref(), BasicProperties::with_content_type);
    let kept = with(kept, properties.content_encoding().as_ref(), BasicProperties::with_content_encoding);
    let kept = with(kept, properties.priority().as_ref(), BasicProperties::with_priority);
    let kept = with(kept, properties.correlation_id().as_ref(), BasicProperties::with_correlation_id);
    let kept = with(kept, properties.reply_to().as_ref(), BasicProperties::with_reply_to);
    let kept = with(kept, properties.message_id().as_ref(), BasicProperties::with_message_id);
    let kept = with(kept, properties.timestamp().as_ref(), BasicProperties::with_timestamp);
    let kept = with(kept, properties.kind().as_ref(), BasicProperties::with_type);
    with(kept, properties.app_id().as_ref(), BasicProperties::with_app_id)
}

fn with<T: Clone>(
    properties: BasicProperties,
    value: Option<&T>,
    set: impl FnOnce(BasicProperties, T) -> BasicProperties,
) -> BasicProperties {
    match value {
        Some(value) => set(properties, value.clone()),
        None => properties,
    }
}

/// What a header takes at most, under whichever name.
fn header_bytes(name: &ShortString, value: &AMQPValue) -> usize {
    name.as_str().len() + "lanekeeper-original-".len() + encoded_bytes(value)
}

/// What a header's value takes at most in a frame (AMQP 0-9-1, section 4.2.5.5).
fn encoded_bytes(value: &AMQPValue) -> usize {
    16 + match value {
        AMQPValue::LongString(text) => text.as_bytes().len(),
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(encoded_bytes).sum(),
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + encoded_bytes(value)).sum()
        }
        _ => 0,
    }
}

fn bounded(mut detail: String) -> String {
    let end = (0..=DETAIL_BYTES_MAX.min(detail.len())).rev().find(|end| detail.is_char_boundary(*end));
    detail.truncate(end.unwrap_or(0));
    detail
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::policy::Malformed;

    #[test]
    fn a_letter_fits_a_frame_however_full_its_headers_are() {
        let check = |values: &[usize], left_out: Option<&str>| {
            let mut headers = FieldTable::default();
            for (number, bytes) in values.iter().enumerate() {
                let name = format!("h{number}");
                headers.insert(name.into(), AMQPValue::LongString("x".repeat(*bytes).into()));
            }
            let properties = BasicProperties::default().with_headers(headers);
            let reason = DeadLetterReason::Malformed(Malformed::NoRecordKey);
            let dead_letter = DeadLetter {
                routing_key: "key".into(),
                properties,
                body: Bytes::new(),
                originals: Originals::default(),
            };
            let dead_letter = with_reason(&dead_letter, PartitionNumber(0), &reason, FRAME_BYTES_MAX);
            let headers = AMQPValue::FieldTable(dead_letter.headers().clone().unwrap());
            assert!(encoded_bytes(&headers) < FRAME_BYTES_MAX - ROOM_BYTES / 2, "{values:?}");
            let AMQPValue::FieldTable(headers) = headers else { unreachable!() };
            let last_logged = headers.inner().get("lanekeeper-headers-left-out").map(|value| match value {
                AMQPValue::LongString(text) => text.to_string(),
                other => panic!("{other:?}"),
            });
            assert_eq!(last_logged.as_deref(), left_out, "{values:?}");
            assert!(headers.inner().contains_key("lanekeeper-reason"));
        };
        check(&[10, 20], None);
        check(&[100_000], None);
        check(&[131_000], Some("1"));
        check(&[60_000, 60_000, 60_000, 10], Some("1"));
    }
}
