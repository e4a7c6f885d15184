//! The URL of a target with the record key in it: the key is one path segment, whatever it says.
//!
//! URL parsers of browsers, of the `url` crate and so of the HTTP client (<https://url.spec.whatwg.org/>) remove dot
//! segments, also percent-encoded ones, turn `\` into `/` and drop line breaks. So a template is taken apart once, in
//! the form that a parser leaves alone, and an expanded URL that a parser would change is not sent.

mod slots;
#[cfg(test)]
mod tests;

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use url::Url;

use self::slots::Marked;

use super::update::RecordKey;

/// What stays as it is: the unreserved characters of RFC 3986, section 2.3. `;`, `+`, `:` and their like would be safe
/// in a path by the letter, but servers split and decode at them.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const PLACEHOLDER: &str = "{record_key}";
/// What a parser makes of [`PLACEHOLDER`] in a path.
const PLACEHOLDER_ENCODED: &str = "%7Brecord_key%7D";

/// The key as it stands in the URL and in the header `lanekeeper-record-key`: percent-encoded, ASCII, and
/// percent-decoding gives back the key.
pub fn encode_record_key(record_key: &RecordKey) -> String {
    utf8_percent_encode(record_key.as_str(), ENCODED).to_string()
}

/// A value as it stands in a URL: percent-encoded, so that it can neither end its place nor mean anything to a parser.
pub fn encode_value(value: &str) -> String {
    utf8_percent_encode(value, ENCODED).to_string()
}

/// Returns true if a gateway that decodes this text once more sees a segment `.` or `..`: the text, percent-decoded once
/// and taken apart at `/` and `\`, has one.
#[must_use]
pub fn climbs(text: &str) -> bool {
    let decoded: Vec<u8> = percent_decode(text.as_bytes()).collect();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

/// A target's URL. Each `{record_key}` in its path becomes the percent-encoded record key, and each `{{ … }}` in its path
/// or in a value of its query the percent-encoded value of an expression, which the caller computes.
///
/// Its `Debug` and `Display` hide the query, which may carry a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    /// From the first to the last. The first is text, and holds all of scheme and host.
    pieces: Vec<Piece>,
    /// What the caller computes.
    expressions: Vec<Box<str>>,
    /// The segments of the path that have expressions in them, from 0.
    segments: Vec<usize>,
    has_query: bool,
}

/// A part of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// In the form that parsing leaves alone.
    Text(Box<str>),
    RecordKey,
    /// The number of an expression.
    Expression(usize),
}

/// Why a string is not a URL template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// Another scheme, or none.
    #[error("begin the URL with http:// or https://, as in \"https://api.example/customers/{PLACEHOLDER}\"")]
    Scheme,
    /// Nothing between `//` and the path.
    #[error("the URL has no host; write it after the ://")]
    NoHost,
    /// User name or password.
    #[error(
        "the URL has a user name or password; send them in the target's `headers` (authorization) instead"
    )]
    Credentials,
    /// `#` and what follows is never sent.
    #[error("the URL has a fragment (#…), which is never sent; remove it, or write %23 for a # in the path")]
    Fragment,
    /// The record key may only choose a path segment.
    #[error(
        "{PLACEHOLDER} or {{{{ … }}}} stands in the {place}; {PLACEHOLDER} may only stand in the path, and {{{{ … }}}} there or in a value of the query"
    )]
    Misplaced {
        /// Such as the host.
        place: &'static str,
    },
    /// A placeholder that we do not know, or a brace alone.
    #[error(
        "unknown placeholder {found}; write {PLACEHOLDER}, or an expression as {{{{ … }}}}; write %7B and %7D for braces"
    )]
    UnknownPlaceholder {
        /// The placeholder, as written.
        found: String,
    },
    /// Parsers drop or change it.
    #[error(
        "the URL has a space, a control character, \\ or an encoded placeholder; write a plain URL with %20 for a space"
    )]
    Character,
    /// Parsers remove it.
    #[error("the path has a segment . or ..; write the resulting path instead")]
    DotSegment,
    /// The parser's own words.
    #[error("not a URL: {0}")]
    Parse(#[from] url::ParseError),
}

/// What cannot be sent to this target, since parsers would take a segment for a step in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The record key.
    #[error(
        "with this record key the URL's path has a segment . or .., which HTTP clients and servers remove; nothing was sent"
    )]
    Key,
    /// The value of an expression.
    #[error(
        "segment {number} of the URL's path, which is a template, is empty, or has a . or .. in it that gateways may take \
         for a step in the path; nothing was sent"
    )]
    Segment {
        /// Counted from 1.
        number: usize,
    },
}

impl UrlTemplate {
    /// Takes a template apart. Without a placeholder, every record goes to the same URL.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let marked = Marked::new(text)?;
        let text = marked.text.as_str();
        let (scheme, rest) = text.split_once("://").ok_or(TemplateFault::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(TemplateFault::Scheme);
        }
        let unsteady = |c: char| c == '\\' || c.is_whitespace() || c.is_control();
        if text.contains(unsteady) || text.to_ascii_lowercase().contains("%7brecord_key%7d") {
            return Err(TemplateFault::Character);
        }
        if rest.contains('#') {
            return Err(TemplateFault::Fragment);
        }
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = location.split_at(location.find('/').unwrap_or(location.len()));
        check_braces(rest)?;
        let mut names =
            query.split('&').map(|parameter| parameter.split_once('=').map_or(parameter, |(n, _)| n));
        let misplaced = if authority.contains(PLACEHOLDER) || marked.is_in(authority) {
            Some("host")
        } else if names.any(|name| marked.is_in(name)) {
            Some("name of a parameter of the query")
        } else {
            query.contains(PLACEHOLDER).then_some("query")
        };
        if let Some(place) = misplaced {
            return Err(TemplateFault::Misplaced { place });
        }
        if authority.contains('@') {
            return Err(TemplateFault::Credentials);
        }
        if authority.is_empty() {
            return Err(TemplateFault::NoHost);
        }

        if path.split('/').any(is_dot_segment) {
            return Err(TemplateFault::DotSegment);
        }
        let url = Url::parse(text)?;
        let segments = url.path_segments().into_iter().flatten().enumerate();
        let segments = segments.filter(|(_, segment)| marked.is_in(segment)).map(|(index, _)| index);
        Ok(Self {
            pieces: pieces(&url, &marked),
            segments: segments.collect(),
            has_query: url.query().is_some(),
            expressions: marked.expressions,
        })
    }

    /// The expressions in it, in order.
    pub fn expressions(&self) -> impl ExactSizeIterator<Item = &str> {
        self.expressions.iter().map(|expression| &**expression)
    }

    /// Returns true if the record key has a place in the path.
    #[must_use]
    pub fn has_record_key(&self) -> bool {
        self.pieces.contains(&Piece::RecordKey)
    }

    /// The URL with `x` for the record key and for each value.
    #[must_use]
    pub fn sample(&self) -> Option<Url> {
        self.expand("x", &vec!["x".to_owned(); self.expressions.len()], &[]).ok()
    }

    /// Host, without the brackets of an IPv6 address, and port.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let url = self.sample()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some((host, url.port_or_known_default()?))
    }

    /// The URL for a record, if it has no expressions. `record_key`: as [`encode_record_key`] makes it.
    ///
    /// # Errors
    /// The key would not arrive as it is: `.` and `..` as a whole segment.
    pub fn expand_encoded(&self, record_key: &str) -> Result<Url, Unfit> {
        self.expand(record_key, &[], &[])
    }

    /// The URL for an update. `record_key`: as [`encode_record_key`] makes it; `values`: of the expressions, in their order,
    /// as they are; a missing one is empty; `query`: names and values to add to the query, as they are.
    ///
    /// Scheme, host, port, the number of segments of the path and the other parameters of the query are those of the
    /// template, whatever key and values are.
    ///
    /// # Errors
    /// The key would not arrive as it is, or a segment with values is empty or [`climbs`].
    pub fn expand(&self, record_key: &str, values: &[String], query: &[(&str, &str)]) -> Result<Url, Unfit> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::RecordKey => text += record_key,
                Piece::Expression(number) => {
                    text += &encode_value(values.get(*number).map_or("", String::as_str));
                }
            }
        }
        for (index, (name, value)) in query.iter().enumerate() {
            text.push(if index == 0 && !self.has_query { '?' } else { '&' });
            text.extend([encode_value(name), "=".to_owned(), encode_value(value)]);
        }
        // What has no segment that a parser takes for a step stays as it is. So does the rest: all pieces are in the form
        // that parsing leaves alone, and so are key and values.
        for &index in &self.segments {
            let path = text.split('?').next().unwrap_or_default();
            // Behind scheme, nothing, and host.
            let segment = path.split('/').nth(index + 3).unwrap_or_default();
            let once = percent_decode(segment.as_bytes()).decode_utf8_lossy();
            if segment.is_empty() || climbs(&once) {
                return Err(Unfit::Segment { number: index + 1 });
            }
        }
        let url = Url::parse(&text).map_err(|_| Unfit::Key)?;
        if url.as_str() == text { Ok(url) } else { Err(Unfit::Key) }
    }
}

fn pieces(url: &Url, marked: &Marked) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, part) in url.as_str().split(PLACEHOLDER_ENCODED).enumerate() {
        if index > 0 {
            pieces.push(Piece::RecordKey);
        }
        let (first, numbered) = marked.split(part);
        pieces.push(Piece::Text(first.into()));
        for (number, text) in numbered {
            pieces.extend([Piece::Expression(number), Piece::Text(text.into())]);
        }
    }
    pieces
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => match text.split_once('?') {
                    Some((location, _)) => return write!(f, "{location}?***"),
                    None => f.write_str(text)?,
                },
                Piece::RecordKey => f.write_str(PLACEHOLDER)?,
                Piece::Expression(number) => write!(f, "{{{{ {} }}}}", self.expressions[*number])?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlTemplate({self})")
    }
}

/// Every brace belongs to a [`PLACEHOLDER`].
fn check_braces(text: &str) -> Result<(), TemplateFault> {
    let rest = text.replace(PLACEHOLDER, "");
    let Some(start) = rest.find(['{', '}']) else { return Ok(()) };
    let found = match rest[start..].find('}') {
        Some(end) => &rest[start..=start + end],
        None => &rest[start..],
    };
    Err(TemplateFault::UnknownPlaceholder { found: found.to_owned() })
}

fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}
