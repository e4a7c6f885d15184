//! The keys of `[[target.answers]]`: what answers mean whose status does not say it.

use serde_json::Value as Json;

use super::fault::Problem;
use super::parse::{choice, text};
use super::pattern::Pattern;
use super::reader::Section;
use lanekeeper_core::outcome::OutcomeKind;

/// A row: answers with this status and this in their bodies have this outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRow {
    /// Which answers it is for.
    pub status: StatusPattern,
    /// What the body must have.
    pub body: BodyTest,
    /// What such an answer means.
    pub outcome: OutcomeKind,
}

/// One status or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusPattern {
    /// `200`.
    One(u16),
    /// `2xx`, by its first digit.
    Class(u16),
}

impl StatusPattern {
    /// Returns true if the status is one of these.
    #[must_use]
    pub fn matches(self, status: u16) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(digit) => status / 100 == digit,
        }
    }
}

/// What an answer's body must have.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyTest {
    /// Nothing: the status alone counts.
    Any,
    /// Something other than null at this place.
    Present(Pointer),
    /// This value at this place: text, number, or true or false.
    Equals(Pointer, Json),
    /// Text, a number, or true or false at this place that the pattern matches.
    Matches(Pointer, Pattern),
    /// Text that the pattern matches somewhere.
    TextMatches(Pattern),
}

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads all rows; `None`: a fault was noted.
pub fn read(section: &mut Section<'_, '_>) -> Option<Vec<AnswerRow>> {
    let count = section.count("answers")?;
    let rows: Vec<Option<AnswerRow>> =
        (0..count).map(|index| read_one(section.element("answers", index))).collect();
    rows.into_iter().collect()
}

fn read_one(mut section: Section<'_, '_>) -> Option<AnswerRow> {
    let status = section.read("status", status);
    let pointer = section.read_if_set("pointer", pointer);
    let value = section.read_if_set("value", scalar);
    let pattern = section.read_if_set("pattern", |raw| Pattern::new(&text(raw)?));
    let kinds = OutcomeKind::ALL.map(|kind| (kind.name(), kind));
    let outcome = section.read("outcome", choice(&kinds));
    let has = ["pointer", "value", "pattern"].map(|key| section.has(key));
    let is_sound = [pointer.is_some(), value.is_some(), pattern.is_some()] == has;
    match has {
        [_, true, true] => section.fault(
            "value",
            Problem::new("is there beside `pattern`: a row has one of them", "remove one, or make two rows"),
        ),
        [false, true, false] => section.fault(
            "value",
            Problem::new("is there without `pointer`", "write where it must be, as in pointer = \"/status\""),
        ),
        _ => {}
    }
    section.finish();
    let body = match (pointer, value, pattern) {
        _ if !is_sound => return None,
        (None, None, None) => BodyTest::Any,
        (Some(pointer), None, None) => BodyTest::Present(pointer),
        (Some(pointer), Some(value), None) => BodyTest::Equals(pointer, value),
        (Some(pointer), None, Some(pattern)) => BodyTest::Matches(pointer, pattern),
        (None, None, Some(pattern)) => BodyTest::TextMatches(pattern),
        (None, Some(_), _) | (Some(_), Some(_), Some(_)) => return None,
    };
    Some(AnswerRow { status: status?, body, outcome: outcome? })
}

/// `200`, `"200"` or `"2xx"`.
fn status(raw: &mut Json) -> Result<StatusPattern, Problem> {
    let written = raw.as_str().map_or_else(|| raw.to_string(), ToOwned::to_owned);
    let one = written.parse().ok().filter(|one| (100..=599).contains(one)).map(StatusPattern::One);
    let class = written.strip_suffix("xx").and_then(|digit| digit.parse().ok());
    let class = class.filter(|digit| (1..=5).contains(digit) && written.len() == 3).map(StatusPattern::Class);
    one.or(class).ok_or_else(|| {
        Problem::new(
            format!("{written} is neither a status nor a class of them"),
            "write one from 100 to 599, or \"2xx\" for 200 to 299",
        )
    })
}

pub(super) fn pointer(raw: &mut Json) -> Result<Pointer, Problem> {
    let text = text(raw)?;
    let escapes_end = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if (text.is_empty() || text.starts_with('/')) && escapes_end {
        return Ok(Pointer(text));
    }
    Err(Problem::new(
        format!("{text:?} is not a JSON pointer (RFC 6901)"),
        "write one such as \"/errors/0/code\", with ~1 for a / in a name and ~0 for a ~; \"\" is the whole body",
    ))
}

fn scalar(raw: &mut Json) -> Result<Json, Problem> {
    if raw.is_string() || raw.is_number() || raw.is_boolean() {
        return Ok(raw.clone());
    }
    Err(Problem::new("is neither text, a number nor true or false", "point to one, and write its value"))
}
