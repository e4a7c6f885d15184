//! Puts values out, each in the way that its place needs.

use std::borrow::Cow;

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Error, Output, State, Value};

use super::impossible;
use super::json::{self, Decimal};
use lanekeeper_core::template::encode_value;

/// What a template makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text for a URL or a header: values are text, numbers, true or false, as they are.
    Plain,
    /// A JSON document: each value is put out as JSON, a text in quotes.
    Json,
    /// An XML document: characters that mean something in XML are escaped.
    Xml,
    /// A form (`application/x-www-form-urlencoded`): values are percent-encoded.
    Form,
}

const JSON: &str = "json";
const FORM: &str = "form";

impl Format {
    /// The format of a body with this media type.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (_, subtype) = media_type.split_once('/').unwrap_or_default();
        match subtype {
            "json" => Self::Json,
            "xml" => Self::Xml,
            "x-www-form-urlencoded" => Self::Form,
            _ if subtype.ends_with("+json") => Self::Json,
            _ if subtype.ends_with("+xml") => Self::Xml,
            _ => Self::Plain,
        }
    }

    pub(super) fn escape(self) -> AutoEscape {
        match self {
            Self::Plain => AutoEscape::None,
            Self::Json => AutoEscape::Custom(JSON.into()),
            Self::Xml => AutoEscape::Html,
            Self::Form => AutoEscape::Custom(FORM.into()),
        }
    }
}

/// The formatter of all templates.
pub(super) fn put_out(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if let (true, Some(text)) = (value.is_safe(), value.as_str()) {
        return Ok(out.write_str(text)?);
    }
    let text: Cow<'_, str> = match state.auto_escape() {
        AutoEscape::Custom(name) if name == JSON => json::text_of(value)?.into(),
        AutoEscape::Custom(_) => encode_value(&scalar(value)?).into(),
        AutoEscape::Html => escape_xml(&scalar(value)?).into(),
        _ => scalar(value)?,
    };
    Ok(out.write_str(&text)?)
}

/// The text of a text, a number, or true or false.
pub(super) fn scalar(value: &Value) -> Result<Cow<'_, str>, Error> {
    if let Some(decimal) = value.downcast_object_ref::<Decimal>() {
        return Ok(decimal.text().into());
    }
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().into()),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.into()),
        ValueKind::Number if value.is_integer() => Ok(value.to_string().into()),
        ValueKind::Number => Err(impossible(ROUNDED)),
        ValueKind::None => Err(impossible("a value is null; write | default(…, true) if it may be")),
        ValueKind::Undefined => Err(impossible("a value that it needs is not there")),
        _ => Err(impossible(
            "a value is a list or an object; only text, a number, true or false can stand here",
        )),
    }
}

/// Why a number of binary floating point is not put out.
pub(super) const ROUNDED: &str = "a number with a fraction was computed, and may be rounded";

fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            c => escaped.push(c),
        }
    }
    escaped
}
