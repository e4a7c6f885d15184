//! `CloudEvents` 1.0.2 as JSON: one event, or a list of them (JSON format, sections 3 and 4).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::batch::too_many;
use super::parts::{SPEC_VERSION, record_key, unfit, update_id};
use super::problem::{DoorProblem, DoorProblemCode};
use lanekeeper_broker::publisher::{HeaderValue, Outgoing, ShortText};

/// What a context attribute can be.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged, expecting = "an attribute is a string, an integer or a boolean")]
enum Attribute {
    Flag(bool),
    Integer(i64),
    Text(String),
}

/// The members of an event, each once.
#[derive(Debug)]
struct EventMembers<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for EventMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EventVisitor;
        impl<'de> Visitor<'de> for EventVisitor {
            type Value = EventMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    if members.insert(name.clone().into_owned(), value).is_some() {
                        return Err(A::Error::custom(format_args!("duplicate member {name:?}")));
                    }
                }
                Ok(EventMembers(members))
            }
        }
        deserializer.deserialize_map(EventVisitor)
    }
}

/// The update that an event is.
pub(super) fn update(event: &[u8], now: u64) -> Result<Outgoing, DoorProblem> {
    let EventMembers(mut members) = serde_json::from_slice(event).map_err(|error| bad(error.to_string()))?;
    let data = body(&mut members)?;
    let mut attributes = BTreeMap::new();
    for (name, value) in members {
        if let Some(attribute) = attribute(&name, value)? {
            attributes.insert(name, attribute);
        }
    }
    let text = |name: &str| match attributes.get(name) {
        Some(Attribute::Text(text)) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    };
    let needed =
        |name: &str| text(name).ok_or_else(|| bad(format!("{name:?} is missing, empty, or no string")));
    let version = needed("specversion")?;
    if version != SPEC_VERSION {
        return Err(bad(format!("\"specversion\" is {version:?}: only {SPEC_VERSION:?} is understood")));
    }
    needed("source")?;
    let id = update_id(needed("id")?.to_owned())?;
    let update_type = short("type", needed("type")?)?;
    let key = text("partitionkey").or_else(|| text("subject")).ok_or_else(|| {
        DoorProblem::new(DoorProblemCode::NoKey, "name the record in \"partitionkey\" or \"subject\"")
    })?;
    let record_key = record_key(key.to_owned())?;
    let content_type = short("datacontenttype", text("datacontenttype").unwrap_or("application/json"))?;
    let mut headers = Vec::with_capacity(attributes.len());
    for (name, attribute) in attributes.into_iter().filter(|(name, _)| name != "datacontenttype") {
        let value = match attribute {
            Attribute::Flag(flag) => HeaderValue::Flag(flag),
            Attribute::Integer(integer) => HeaderValue::Integer(integer),
            Attribute::Text(text) => HeaderValue::Text(text),
        };
        headers.push((short("the name of an attribute", &format!("cloudEvents_{name}"))?, value));
    }
    Ok(Outgoing {
        record_key,
        id,
        update_type: Some(update_type),
        content_type: data.is_some().then_some(content_type),
        content_encoding: None,
        published_at: now,
        headers,
        body: data.unwrap_or_default(),
    })
}

/// The updates of a list of at most `events_max` events.
pub(super) fn updates(list: &[u8], events_max: usize, now: u64) -> Result<Vec<Outgoing>, DoorProblem> {
    let events: Vec<&RawValue> = serde_json::from_slice(list).map_err(|error| bad(error.to_string()))?;
    if events.len() > events_max {
        return Err(too_many(events_max));
    }
    let one = |(index, event): (usize, &&RawValue)| {
        update(event.get().as_bytes(), now).map_err(|problem| problem.of_line(index + 1))
    };
    events.iter().enumerate().map(one).collect()
}

/// `data` as it is written, or what `data_base64` stands for. Text that is not JSON by its `datacontenttype` is sent as it is.
fn body(members: &mut BTreeMap<String, &RawValue>) -> Result<Option<Bytes>, DoorProblem> {
    match (members.remove("data"), members.remove("data_base64")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(bad("it has both \"data\" and \"data_base64\"")),
        (None, Some(base64)) => {
            let text: String = serde_json::from_str(base64.get()).map_err(|error| bad(error.to_string()))?;
            let bytes =
                STANDARD.decode(text).map_err(|_| bad("\"data_base64\" is not base64 with padding"))?;
            Ok(Some(Bytes::from(bytes)))
        }
        (Some(data), None) => {
            let media_type: Option<String> =
                members.get("datacontenttype").and_then(|value| serde_json::from_str(value.get()).ok());
            let text = serde_json::from_str::<String>(data.get());
            let bytes = match (media_type, text) {
                (Some(media_type), Ok(text)) if !is_json(&media_type) => Bytes::from(text),
                _ => Bytes::copy_from_slice(data.get().as_bytes()),
            };
            Ok(Some(bytes))
        }
    }
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// `None`: it is null, which counts as absent.
fn attribute(name: &str, value: &RawValue) -> Result<Option<Attribute>, DoorProblem> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(bad(format!(
            "{name:?} is no name of an attribute: those are lower-case letters and digits"
        )));
    }
    serde_json::from_str::<Option<Attribute>>(value.get()).map_err(|error| bad(format!("{name:?}: {error}")))
}

fn short(what: &str, text: &str) -> Result<ShortText, DoorProblem> {
    ShortText::new(text).map_err(|_| unfit(format!("{what} is longer than 255 bytes")))
}

fn bad(detail: impl Into<String>) -> DoorProblem {
    DoorProblem::new(DoorProblemCode::BadEvent, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        r#""specversion":"1.0","id":"e1","source":"/crm","type":"customer.updated","subject":"4711""#;

    fn parsed(rest: &str) -> Result<Outgoing, DoorProblem> {
        update(format!("{{{LEAST}{rest}}}").as_bytes(), 7)
    }

    #[test]
    fn an_event_is_an_update() {
        let outgoing = parsed(r#","data":{"n":1.10},"tries":3,"dry":true,"dataschema":null"#).unwrap();
        assert_eq!((outgoing.record_key.as_str(), outgoing.id.as_str()), ("4711", "e1"));
        assert_eq!(outgoing.update_type.as_ref().map(ShortText::as_str), Some("customer.updated"));
        assert_eq!(outgoing.body, r#"{"n":1.10}"#.as_bytes());
        let names: Vec<&str> = outgoing.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["dry", "id", "source", "specversion", "subject", "tries", "type"];
        assert_eq!(names, expected.map(|name| format!("cloudEvents_{name}")));
        let with_key = parsed(r#","partitionkey":"k"#.to_owned().as_str());
        assert!(with_key.is_err(), "it is not whole");
        assert_eq!(parsed(r#","partitionkey":"k""#).unwrap().record_key.as_str(), "k");
    }

    #[test]
    fn data_is_sent_as_written() {
        let check = |rest: &str, body: &str, content_type: Option<&str>| {
            let outgoing = parsed(rest).unwrap();
            assert_eq!(outgoing.body, body.as_bytes(), "{rest}");
            assert_eq!(outgoing.content_type.as_ref().map(ShortText::as_str), content_type, "{rest}");
        };
        check("", "", None);
        check(r#","data":"text \u00e9""#, r#""text \u00e9""#, Some("application/json"));
        check(r#","data":null"#, "null", Some("application/json"));
        check(
            r#","data":[ 1 ],"datacontenttype":"application/vnd.x+json""#,
            "[ 1 ]",
            Some("application/vnd.x+json"),
        );
        check(r#","data":"<a/>","datacontenttype":"text/xml""#, "<a/>", Some("text/xml"));
        check(r#","data":{"a":1},"datacontenttype":"text/xml""#, r#"{"a":1}"#, Some("text/xml"));
        check(r#","data_base64":"aGVsbG8=","datacontenttype":"text/plain""#, "hello", Some("text/plain"));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        use DoorProblemCode::{BadEvent, IdUnfit, KeyUnfit, NoKey};
        let check = |event: &str, expected: DoorProblemCode| {
            assert_eq!(update(event.as_bytes(), 7).expect_err(event).code(), expected, "{event}");
        };
        let with = |from: &str, to: &str| format!("{{{}}}", LEAST.replace(from, to));
        check("", BadEvent);
        check("[]", BadEvent);
        check(&with("1.0", "0.3"), BadEvent);
        check(&with("/crm", ""), BadEvent);
        check(&with("\"e1\"", "7"), BadEvent);
        check(&with("e1", "é"), IdUnfit);
        check(&with("subject", "object"), NoKey);
        check(&with("4711", ".."), KeyUnfit);
        check(&with("\"subject\"", "\"a\":[],\"subject\""), BadEvent);
        check(&with("\"subject\"", "\"A\":1,\"subject\""), BadEvent);
        check(&with("\"subject\"", "\"a\":1.5,\"subject\""), BadEvent);
        check(&with("\"subject\"", "\"id\":\"e2\",\"subject\""), BadEvent);
        check(&with("\"subject\"", "\"data\":1,\"data_base64\":\"\",\"subject\""), BadEvent);
        check(&with("\"subject\"", "\"data_base64\":\"?\",\"subject\""), BadEvent);
        // Nested without end: the bound is the body's, and nothing recurses.
        check(&format!("{{{LEAST},\"a\":{}", "[".repeat(200_000)), BadEvent);
    }

    #[test]
    fn a_list_has_its_events_in_order() {
        let list = format!("[{{{LEAST}}}, {{{}}}]", LEAST.replace("e1", "e2"));
        let ids: Vec<String> = updates(list.as_bytes(), 2, 7)
            .unwrap()
            .iter()
            .map(|update| update.id.as_str().to_owned())
            .collect();
        assert_eq!(ids, ["e1", "e2"]);
        assert_eq!(updates(list.as_bytes(), 1, 7).unwrap_err().code(), DoorProblemCode::BodyTooLarge);
        assert!(updates(b"[]", 1, 7).unwrap().is_empty());
        assert_eq!(updates(b"{}", 1, 7).unwrap_err().code(), DoorProblemCode::BadEvent);
    }
}
