//! What updates have in common on every wire that they come by: what an id, a header and an attribute may be.

use std::fmt::Write as _;

use crate::policy::Malformed;
use crate::update::UpdateId;

/// Longest update id in bytes; an AMQP `message_id` cannot be longer.
const UPDATE_ID_BYTES_MAX: usize = 255;

/// Headers of an update that are sent to its target, at most. Servers take some hundred of a request, ours included; a
/// `CloudEvent` has some ten attributes.
const PASSED_ON_MAX: usize = 64;

/// The id that a publisher has chosen.
///
/// # Errors
/// It cannot be sent as a header.
pub fn published_id(id: &str) -> Result<UpdateId, Malformed> {
    let fits = (1..=UPDATE_ID_BYTES_MAX).contains(&id.len()) && is_visible(id);
    if fits { Ok(UpdateId::published(id)) } else { Err(Malformed::UpdateIdUnfit) }
}

/// Returns true if HTTP can carry it as it is (RFC 9110, 5.5: visible characters and space).
#[must_use]
pub fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A value that is sent as it is. `name`: where it comes from.
///
/// # Errors
/// HTTP cannot carry it.
pub fn visible(name: &str, value: Option<String>) -> Result<Option<String>, Malformed> {
    match value {
        Some(value) if !is_visible(&value) => Err(Malformed::HeaderUnfit { name: name.to_owned() }),
        value => Ok(value),
    }
}

/// The header that a CloudEvents attribute is sent as. `name`: where it comes from; `value`: `None`: it has no text.
///
/// # Errors
/// It is no attribute, or has no text.
pub fn cloud_event_header(
    name: &str,
    attribute: &str,
    value: Option<&str>,
) -> Result<(String, String), Malformed> {
    let is_attribute = !attribute.is_empty() && attribute.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let value =
        value.filter(|_| is_attribute).ok_or_else(|| Malformed::HeaderUnfit { name: name.to_owned() })?;
    Ok((format!("ce-{}", attribute.to_ascii_lowercase()), cloud_event_value(value)))
}

/// What is sent to the target, if it is not too much.
///
/// # Errors
/// There are too many headers.
pub fn passed_on(headers: Vec<(String, String)>) -> Result<Vec<(String, String)>, Malformed> {
    if headers.len() > PASSED_ON_MAX {
        return Err(Malformed::HeadersTooMany { headers: headers.len(), headers_max: PASSED_ON_MAX });
    }
    Ok(headers)
}

/// Percent-encodes what an HTTP header cannot carry (CloudEvents 1.0.2, HTTP binding, 3.1.3.2).
fn cloud_event_value(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut encoded, byte| {
        match byte {
            b'"' | b'%' => write!(encoded, "%{byte:02X}").expect("a string takes all"),
            b'!'..=b'~' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes all"),
        }
        encoded
    })
}
