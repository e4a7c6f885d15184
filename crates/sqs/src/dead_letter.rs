//! Dead letters: a message as it came, with the reason why it is not dispatched. docs/sqs.md has the table.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::MessageAttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tracing::{error, info};
use uuid::Uuid;

use super::client::SqsClient;
use super::decode::Original;
use lanekeeper_broker::LogOnChange;
use lanekeeper_core::policy::DeadLetterReason;
use lanekeeper_core::update::{IdOrigin, Update};

const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The most attributes that a message of SQS has.
const ATTRIBUTES_MAX: usize = 10;
/// The most bytes of a message of SQS, with its attributes.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
const DETAIL_BYTES_MAX: usize = 1024;

/// A message for the queue for dead letters.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    group: String,
    deduplication_id: String,
    body: String,
    attributes: HashMap<String, MessageAttributeValue>,
}

impl DeadLetter {
    /// The message as it came. Sent twice, it is there once: SQS knows its id for five minutes.
    pub(crate) fn of_message(original: &Original, reason: &DeadLetterReason) -> Self {
        let Original { message_id, record_key, sequence_number, body, attributes, .. } = original;
        let facts = json!({ "message_id": message_id, "sequence_number": sequence_number.to_string() });
        let mut own = HashMap::from([("lanekeeper-original".to_owned(), text(&facts.to_string()))]);
        own.extend(why(reason));
        Self {
            group: record_key.as_str().to_owned(),
            deduplication_id: message_id.clone(),
            body: body.clone(),
            attributes: with_room(own, attributes.clone(), body.len()),
        }
    }

    /// An update that SQS does not hold, as its publisher would send it again.
    pub(crate) fn of_update(update: &Update, reason: &DeadLetterReason) -> Self {
        let mut attributes = HashMap::new();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                attributes.insert(name.to_owned(), text(value));
            }
        };
        add("update-id", (update.id.origin() == IdOrigin::Publisher).then_some(update.id.as_str()));
        add("type", update.update_type.as_deref());
        add("record-version", update.version.map(|version| version.to_string()).as_deref());
        add("content-type", update.content_type.as_deref());
        add("content-encoding", update.content_encoding.as_deref());
        add("if-match", update.if_match.as_deref());
        let body = match std::str::from_utf8(&update.body) {
            Ok(body) if !body.is_empty() && body.chars().all(is_of_xml) => body.to_owned(),
            _ => {
                add("body-encoding", Some("base64"));
                BASE64.encode(&update.body)
            }
        };
        Self {
            group: update.record_key.as_str().to_owned(),
            deduplication_id: Uuid::new_v4().to_string(),
            attributes: with_room(why(reason), attributes, body.len()),
            body,
        }
    }
}

/// The characters that a body may have (XML 1.0, 2.2).
fn is_of_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn why(reason: &DeadLetterReason) -> HashMap<String, MessageAttributeValue> {
    let mut room = DETAIL_BYTES_MAX;
    let fits = |c: &char| {
        room = room.saturating_sub(c.len_utf8());
        room > 0
    };
    let detail: String =
        reason.detail().chars().take_while(fits).map(|c| if is_of_xml(c) { c } else { '\u{fffd}' }).collect();
    let mut attributes = HashMap::from([("lanekeeper-reason".to_owned(), text(reason.name()))]);
    if !detail.is_empty() {
        attributes.insert("lanekeeper-detail".to_owned(), text(&detail));
    }
    attributes
}

/// Our attributes, and of the publisher's as many as there is room for, in the order of their names. If even ours do not fit
/// beside the body, the detail is left out, and then all but the reason.
fn with_room(
    own: HashMap<String, MessageAttributeValue>,
    publishers: HashMap<String, MessageAttributeValue>,
    body_bytes: usize,
) -> HashMap<String, MessageAttributeValue> {
    let mut room = MESSAGE_BYTES_MAX.saturating_sub(body_bytes);
    let mut kept = HashMap::new();
    let mut own: Vec<_> = own.into_iter().collect();
    own.sort_by_key(|(name, _)| match name.as_str() {
        "lanekeeper-reason" => 0,
        "lanekeeper-original" => 1,
        _ => 2,
    });
    let mut publishers: Vec<_> =
        publishers.into_iter().filter(|(name, _)| !own.iter().any(|(of_ours, _)| of_ours == name)).collect();
    publishers.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, value) in own.into_iter().chain(publishers) {
        let bytes = bytes_of(&name, &value);
        if kept.len() < ATTRIBUTES_MAX && bytes <= room {
            room -= bytes;
            kept.insert(name, value);
        }
    }
    kept
}

fn bytes_of(name: &str, value: &MessageAttributeValue) -> usize {
    let text = value.string_value().map_or(0, str::len);
    let binary = value.binary_value().map_or(0, |value| value.as_ref().len());
    name.len() + value.data_type().len() + text + binary
}

fn text(value: &str) -> MessageAttributeValue {
    let value = MessageAttributeValue::builder().data_type("String").string_value(value);
    value.build().expect("it has a type")
}

/// Ends once SQS has it.
pub(crate) async fn send(client: &SqsClient, dead_letter: DeadLetter, reason: &DeadLetterReason) {
    let DeadLetter { group, deduplication_id, body, attributes } = dead_letter;
    let mut log = LogOnChange::default();
    loop {
        match client.send_dead_letter((&group, &deduplication_id), &body, attributes.clone()).await {
            Ok(()) => break,
            Err(fault) => {
                if log.is_new(fault.text.clone()) {
                    error!(
                        error = fault.text,
                        reason = reason.name(),
                        "cannot send to sqs.dead_letter_queue_url, trying again in 1 s: the record waits"
                    );
                }
            }
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
    if log.cleared() {
        info!("the queue for dead letters takes them again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_always_has_room() {
        let publishers =
            || (0..10).map(|number| (format!("a{number}"), text("value"))).collect::<HashMap<_, _>>();
        let own = || {
            HashMap::from([
                ("lanekeeper-reason".to_owned(), text("rejected")),
                ("lanekeeper-detail".to_owned(), text(&"x".repeat(1000))),
            ])
        };
        let kept = with_room(own(), publishers(), 100);
        assert_eq!(kept.len(), ATTRIBUTES_MAX);
        assert!(
            kept.contains_key("lanekeeper-detail") && kept.contains_key("a7") && !kept.contains_key("a8")
        );
        let kept = with_room(own(), publishers(), MESSAGE_BYTES_MAX - 100);
        assert!(kept.contains_key("lanekeeper-reason") && !kept.contains_key("lanekeeper-detail"));
    }
}
