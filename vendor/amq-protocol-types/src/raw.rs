//! Lanekeeper's changes to this crate: short strings that are not UTF-8, and values nested without end.
//!
//! AMQP 0-9-1 calls short strings UTF-8 (4.2.5.3), but no broker checks it. Upstream, one such routing key, property or
//! header name ends the connection with a parse error; the delivery comes back with the next connection, and no
//! consumer of the queue can ever get past it. Here each byte that is not part of valid UTF-8 becomes a character of
//! the private use area, `U+10FF00` + byte, and becomes that byte again when it is written. Characters of that range
//! are taken apart in the same way, so that every short string comes out as it went in.

//!
//! Field tables and arrays may hold each other. Upstream, a header nested some thousand levels deep, which fits into
//! one frame, overflows the stack and ends the process, again at every redelivery. Here what lies deeper than
//! [`DEPTH_MAX`] is carried as the bytes that it is.

use crate::parsing::{ParserResult, parse_byte_array, traits::ParsableInput};
use crate::types::ShortString;
use crate::value::AMQPValue;
use nom::{Parser, combinator::map};
use std::borrow::Cow;
use std::cell::Cell;

/// Levels of tables and arrays within each other.
const DEPTH_MAX: u32 = 32;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Parses a table or an array, which both begin with their length in bytes, as a byte array does.
pub(crate) fn nested<I: ParsableInput>(
    i: I,
    parse: impl FnOnce(I) -> ParserResult<I, AMQPValue>,
) -> ParserResult<I, AMQPValue> {
    let depth = DEPTH.get();
    if depth >= DEPTH_MAX {
        return map(parse_byte_array, AMQPValue::ByteArray).parse(i);
    }
    DEPTH.set(depth + 1);
    let parsed = parse(i);
    DEPTH.set(depth);
    parsed
}

const BASE: u32 = 0x10_FF00;

fn is_escape(c: char) -> bool {
    u32::from(c) >= BASE
}

fn escape_byte(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).expect("U+10FF00 to U+10FFFF are characters")
}

pub(crate) fn escape(bytes: Vec<u8>) -> ShortString {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_escape) => return ShortString::escaped(text),
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    };
    let mut escaped = String::with_capacity(4 * bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_escape(c) {
                escaped.extend(c.encode_utf8(&mut [0; 4]).bytes().map(escape_byte));
            } else {
                escaped.push(c);
            }
        }
        escaped.extend(chunk.invalid().iter().copied().map(escape_byte));
    }
    ShortString::escaped(escaped)
}

pub(crate) fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !text.chars().any(is_escape) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        if is_escape(c) {
            bytes.push((u32::from(c) - BASE) as u8);
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_nested_without_end_are_cut_off_as_bytes() {
        let mut nested = vec![b'V'];
        for _ in 0..20_000 {
            let length = (nested.len() as u32).to_be_bytes();
            nested = [b"A".as_slice(), &length, &nested].concat();
        }
        let (rest, mut value) = crate::parsing::parse_value(nested.as_slice()).unwrap();
        assert!(rest.is_empty());
        let mut depth = 0;
        while let AMQPValue::FieldArray(array) = value {
            value = array.as_slice()[0].clone();
            depth += 1;
        }
        assert_eq!(depth, DEPTH_MAX);
        assert!(matches!(value, AMQPValue::ByteArray(bytes) if bytes.len() > 90_000));
    }

    #[test]
    fn every_short_string_comes_out_as_it_went_in() {
        let hostile: [&[u8]; 6] = [
            b"plain",
            "é € 😀".as_bytes(),
            b"\xff\xfebad",
            b"half \xe2\x82",
            "\u{10FF80}\u{10FFFF}".as_bytes(),
            &[0x80; 255],
        ];
        for bytes in hostile {
            assert_eq!(&*unescape(escape(bytes.to_vec()).as_str()), bytes);
        }
    }
}
