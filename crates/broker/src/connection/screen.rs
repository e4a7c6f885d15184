//! What the broker sends, made fit for the client: bytes in, bytes out, no IO.
//!
//! Nearly everything passes as it is. What would end the connection, or take memory without bound, is changed in place or
//! left out; what a delivery was before is kept for whoever takes it ([`Alteration`]). Frames stay frames: what comes out
//! is always something that the client can parse, provided that a broker sent it.

use std::sync::{Arc, OnceLock};

use super::alterations::{Alteration, AlteredProperties, WatchedChannels};
use super::frames::{
    BEFORE_PROPERTIES, BODY, END, FRAME_MAX_LEAST, HEADER, HEARTBEAT, HEARTBEAT_FRAME, METHOD, PREFIX, method,
};
use super::values::Walk;

/// RabbitMQ's default of `frame_max`. The client makes room for 32 frames in each direction, so it is also the most that
/// is agreed on, unless the URL asks for more.
pub(crate) const FRAME_MAX_DEFAULT: u32 = 131_072;
/// The longest payload of a method frame that is waited for: methods hold short strings and, once, server properties.
const METHOD_BYTES_MAX: usize = 131_072;

/// What may pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The longest body; a longer one is left out.
    pub(super) body_bytes_max: u64,
    /// The longest frame that the client is to take.
    pub(super) frame_max: u32,
}

impl Limits {
    /// The longest payload of a content header that is kept apart if it does not fit one frame: the broker adds headers
    /// to what it delivers again, without looking at `frame_max` (`x-delivery-count`, RabbitMQ 3.10.8).
    fn header_bytes_max(self) -> usize {
        2 * self.frame_max.max(FRAME_MAX_DEFAULT) as usize
    }
}

/// What happens to the bytes that come next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It cannot be said before so many bytes are there.
    Need(usize),
    /// So many bytes pass, as they are now.
    Pass(usize),
    /// So many bytes are left out; these take their place.
    Replace(usize, Vec<u8>),
    /// The connection ends.
    Refuse(MethodTooLong),
}

/// The broker sent a method that no broker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent a method of {bytes} bytes; the longest that is taken has {METHOD_BYTES_MAX}")]
pub(super) struct MethodTooLong {
    bytes: usize,
}

/// The screen of one connection.
#[derive(Debug)]
pub(super) struct Screen {
    limits: Limits,
    watched: WatchedChannels,
    server_properties: Arc<OnceLock<Vec<u8>>>,
    within: Within,
    /// By channel number, as far as channels were seen.
    contents: Vec<Content>,
}

/// Where in a frame the next byte is.
#[derive(Debug)]
enum Within {
    /// At the beginning of one.
    None,
    /// So many bytes of it pass.
    Passing(usize),
    /// So many bytes of it are left out. A heartbeat comes in its place: the client would take a long body of which it
    /// sees nothing for the silence of the broker.
    Dropping(usize),
}

/// The content that a channel is receiving.
#[derive(Clone, Debug, Default)]
struct Content {
    /// 0: a returned message, which is no delivery.
    delivery_tag: u64,
    /// What was changed in the method before the content.
    routing_key: Option<Vec<u8>>,
    /// How much of the body is still to be left out.
    dropping: u64,
}

impl Screen {
    pub(super) fn new(
        limits: Limits,
        watched: WatchedChannels,
        server_properties: Arc<OnceLock<Vec<u8>>>,
    ) -> Self {
        Self { limits, watched, server_properties, within: Within::None, contents: Vec::new() }
    }

    /// How many of the bytes that come next pass without a look.
    pub(super) fn passing(&self) -> usize {
        match self.within {
            Within::Passing(left) => left,
            Within::None | Within::Dropping(_) => 0,
        }
    }

    /// So many bytes have passed without a look.
    pub(super) fn passed(&mut self, bytes: usize) {
        let left = self.passing().checked_sub(bytes).expect("no more passes than may");
        self.within = if left == 0 { Within::None } else { Within::Passing(left) };
    }

    /// Looks at the bytes that come next, and may change them.
    pub(super) fn step(&mut self, bytes: &mut [u8]) -> Step {
        match self.within {
            _ if bytes.is_empty() => Step::Need(1),
            Within::None => self.frame(bytes),
            Within::Passing(left) => {
                let passing = left.min(bytes.len());
                self.passed(passing);
                Step::Pass(passing)
            }
            Within::Dropping(left) if left > bytes.len() => {
                self.within = Within::Dropping(left - bytes.len());
                Step::Replace(bytes.len(), Vec::new())
            }
            Within::Dropping(left) => {
                self.within = Within::None;
                Step::Replace(left, HEARTBEAT_FRAME.to_vec())
            }
        }
    }

    fn frame(&mut self, bytes: &mut [u8]) -> Step {
        // A broker of another version answers with a protocol header, "AMQP" and its version: the client says so.
        if bytes[0] == b'A' {
            return self.pass(usize::MAX, bytes.len());
        }
        let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Step::Need(PREFIX) };
        let [kind, channel_high, channel_low, length @ ..] = *prefix;
        let channel = u16::from_be_bytes([channel_high, channel_low]);
        let length = u32::from_be_bytes(length) as usize;
        let whole = PREFIX + length + 1;
        match kind {
            METHOD if length > METHOD_BYTES_MAX => Step::Refuse(MethodTooLong { bytes: length }),
            METHOD if bytes.len() < whole => Step::Need(whole),
            METHOD => {
                // Where it ends too early, the client is the one to say so.
                let _ = self.method(channel, &mut bytes[PREFIX..whole - 1]);
                Step::Pass(whole)
            }
            HEADER => self.header(channel, bytes, length),
            BODY => self.body(channel, bytes.len(), length),
            HEARTBEAT => self.pass(whole, bytes.len()),
            _ => self.pass(usize::MAX, bytes.len()), // no frame: the client says so
        }
    }

    fn pass(&mut self, length: usize, there: usize) -> Step {
        self.within = Within::Passing(length);
        let passing = length.min(there);
        self.passed(passing);
        Step::Pass(passing)
    }

    fn content(&mut self, channel: u16) -> &mut Content {
        let index = usize::from(channel);
        if index >= self.contents.len() {
            self.contents.resize(index + 1, Content::default());
        }
        &mut self.contents[index]
    }

    fn method(&mut self, channel: u16, payload: &mut [u8]) -> Option<()> {
        let mut walk = Walk::new(payload);
        match (walk.u16()?, walk.u16()?) {
            method::BASIC_DELIVER => {
                walk.short_string()?; // consumer tag
                let delivery_tag = walk.u64()?;
                walk.skip(1)?; // redelivered
                walk.short_string()?; // exchange
                let routing_key = walk.short_string()?;
                *self.content(channel) = Content { delivery_tag, routing_key, dropping: 0 };
            }
            method::BASIC_GET_OK => {
                let delivery_tag = walk.u64()?;
                walk.skip(1)?; // redelivered
                walk.short_string()?; // exchange
                let routing_key = walk.short_string()?;
                *self.content(channel) = Content { delivery_tag, routing_key, dropping: 0 };
            }
            method::BASIC_RETURN => {
                *self.content(channel) = Content::default();
                walk.skip(2)?; // reply code
                walk.short_string()?; // reply text
                walk.short_string()?; // exchange
                walk.short_string()?; // routing key
            }
            method::CONNECTION_START => {
                walk.skip(2)?; // version
                let properties = walk.table()?.to_vec();
                let _ = self.server_properties.set(properties); // only the first counts
            }
            method::CONNECTION_TUNE => {
                walk.skip(2)?; // channel_max
                let frame_max = &mut self.limits.frame_max;
                walk.change_u32(|offered| {
                    // 0: no limit, for which the client would want 128 GiB.
                    let offered = if offered == 0 { u32::MAX } else { offered };
                    *frame_max = offered.min(*frame_max).max(FRAME_MAX_LEAST);
                    *frame_max
                })?;
            }
            method::CHANNEL_OPEN_OK | method::CHANNEL_CLOSE_OK => self.forget(channel),
            method::CHANNEL_CLOSE => {
                self.forget(channel);
                walk.skip(2)?; // reply code
                walk.short_string()?; // reply text: RabbitMQ cuts it at 255 bytes, also inside a character
            }
            method::CONNECTION_CLOSE => {
                walk.skip(2)?; // reply code
                walk.short_string()?; // reply text
            }
            method::CONNECTION_OPEN_OK
            | method::CONNECTION_BLOCKED
            | method::QUEUE_DECLARE_OK
            | method::BASIC_CONSUME_OK
            | method::BASIC_CANCEL
            | method::BASIC_CANCEL_OK
            | method::BASIC_GET_EMPTY => drop(walk.short_string()?),
            _ => {}
        }
        Some(())
    }

    fn forget(&mut self, channel: u16) {
        *self.content(channel) = Content::default();
        self.watched.forget(channel);
    }

    fn header(&mut self, channel: u16, bytes: &mut [u8], length: usize) -> Step {
        let (whole, properties_at) = (PREFIX + length + 1, PREFIX + BEFORE_PROPERTIES);
        let too_long = length > self.limits.header_bytes_max();
        let needed = if too_long { properties_at } else { whole };
        if bytes.len() < needed {
            return Step::Need(needed);
        }
        if length < BEFORE_PROPERTIES {
            return Step::Pass(whole); // the client is the one to say so
        }
        let content = self.content(channel);
        let (delivery_tag, routing_key) = (content.delivery_tag, content.routing_key.take());
        let mut alteration = Alteration { routing_key, ..Alteration::default() };
        let size_at = properties_at - 8;
        let size = bytes[size_at..properties_at].try_into().map_or(0, u64::from_be_bytes);
        let leave_out = too_long || size > self.limits.body_bytes_max;
        if leave_out && size > 0 {
            self.content(channel).dropping = size;
            bytes[size_at..properties_at].fill(0);
        }
        alteration.body_bytes = (size > self.limits.body_bytes_max).then_some(size);
        let step = if too_long {
            alteration.properties = Some(AlteredProperties::LeftOut { bytes: length - BEFORE_PROPERTIES });
            self.within = Within::Dropping(whole - properties_at);
            Step::Replace(properties_at, without_properties(&bytes[..properties_at]))
        } else {
            alteration.properties = self.properties(&mut bytes[..whole]);
            match alteration.properties {
                None | Some(AlteredProperties::Replaced { .. }) => Step::Pass(whole),
                Some(_) => Step::Replace(whole, without_properties(&bytes[..properties_at])),
            }
        };
        if delivery_tag > 0 && alteration != Alteration::default() {
            self.watched.keep(channel, delivery_tag, alteration);
        }
        step
    }

    /// Makes the properties of a whole header fit for the client, if it takes them at all.
    fn properties(&self, frame: &mut [u8]) -> Option<AlteredProperties> {
        let (whole, end) = (frame.len(), frame.len() - 1);
        let properties = &mut frame[PREFIX + BEFORE_PROPERTIES..end];
        let mut walk = Walk::new(properties);
        let readable = walk.properties().is_some() && walk.rest().is_empty();
        let original = walk.into_original();
        let fits = whole <= self.limits.frame_max as usize;
        match (readable, original) {
            (true, None) if fits => None,
            (true, Some(original)) if fits => Some(AlteredProperties::Replaced { original }),
            (true, original) => Some(AlteredProperties::Apart { parsable: properties.to_vec(), original }),
            (false, original) => Some(AlteredProperties::Unreadable {
                original: original.unwrap_or_else(|| properties.to_vec()),
            }),
        }
    }

    fn body(&mut self, channel: u16, there: usize, length: usize) -> Step {
        let content = self.content(channel);
        if content.dropping == 0 {
            return self.pass(PREFIX + length + 1, there);
        }
        content.dropping = content.dropping.saturating_sub(length as u64);
        self.within = Within::Dropping(length + 1);
        Step::Replace(PREFIX, Vec::new())
    }
}

/// The frame of a content header that begins so, with no properties in it.
fn without_properties(beginning: &[u8]) -> Vec<u8> {
    const NO_PROPERTIES: [u8; 2] = [0, 0];
    let mut frame = beginning.to_vec();
    let length = u32::try_from(BEFORE_PROPERTIES + NO_PROPERTIES.len()).expect("a few bytes");
    frame[PREFIX - 4..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&NO_PROPERTIES);
    frame.push(END);
    frame
}
