//! The keys of a target, and of a row of its `on`, that say what is made of an update: `headers`, `query` and `body`.

use std::collections::BTreeSet;

use http::HeaderValue;
use serde_json::Value as Json;

use super::fault::Problem;
use super::parse::text;
use super::reader::{Section, Shape};
use super::strings::Reference;
use super::target::header_name;
use crate::templates::{Format, Template, VALUE_BYTES_MAX, is_template};
use lanekeeper_core::secret::{MASK, Secret};
use lanekeeper_core::template::UrlTemplate;

/// What a target or a row of its `on` sends that is not the publisher's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplatesConfig {
    /// Of `headers`, those that are templates.
    pub headers: Vec<(String, String)>,
    /// Added to the query of the URL.
    pub query: Vec<(String, SentText)>,
    /// Instead of the body as published; empty: no body.
    pub body: Option<String>,
}

/// A text that is the same for all updates, or a template.
#[derive(Clone, Debug, PartialEq)]
pub enum SentText {
    /// As it is.
    Literal(Secret),
    /// A template that compiles.
    Template(String),
}

/// `headers` that are the same for all updates, and what is made of an update; `None`: a fault was noted.
pub type Sent = Option<(Vec<(String, Secret)>, TemplatesConfig)>;

/// The literal `content-type` among headers.
pub fn content_type(headers: &[(String, Secret)]) -> Option<&str> {
    let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    named.map(|(_, value)| value.reveal())
}

/// Reads the keys. `taken`: header names in lower case that are set already; `of_target`: the target's own, if this is a row.
pub fn read(
    section: &mut Section<'_, '_>,
    taken: BTreeSet<String>,
    of_target: Option<&[(String, Secret)]>,
) -> Sent {
    let headers = read_headers(section, taken);
    let references = section.references("query");
    let query = section.each("query", Shape::Table, |name, raw| {
        let value = value("a value of the query", text(raw)?, references.contains(name), raw)?;
        Ok((name.to_owned(), value))
    });
    let own = headers.as_ref().map_or(&[][..], |(literal, _)| literal);
    let content_type = content_type(own).or_else(|| content_type(of_target?)).map(ToOwned::to_owned);
    let body = read_body(section, content_type.as_deref());
    let (literal, templates) = headers?;
    let is_template = templates.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if is_template && body.is_some() {
        let what =
            "is there beside a content-type that is a template: the form of the body would not be known";
        section.fault("body", Problem::new(what, "write content-type as it is"));
        return None;
    }
    let is_sound = body.is_some() == section.has("body");
    let templates = TemplatesConfig { headers: templates, query: query?, body };
    is_sound.then_some((literal, templates))
}

type Headers = (Vec<(String, Secret)>, Vec<(String, String)>);

fn read_headers(section: &mut Section<'_, '_>, mut taken: BTreeSet<String>) -> Option<Headers> {
    let references = section.references("headers");
    let headers = section.each("headers", Shape::Table, |name, raw| {
        header(name, raw, references.contains(name), &mut taken)
    })?;
    let (mut literal, mut templates) = (Vec::new(), Vec::new());
    for (name, value) in headers {
        match value {
            SentText::Literal(value) => literal.push((name, value)),
            SentText::Template(value) => templates.push((name, value)),
        }
    }
    Some((literal, templates))
}

fn header(
    name: &str,
    raw: &mut Json,
    has_reference: bool,
    taken: &mut BTreeSet<String>,
) -> Result<(String, SentText), Problem> {
    // First of all the value is masked, so that nothing can show it.
    let written = std::mem::replace(raw, Json::from(MASK));
    let name = header_name(name)?;
    if !taken.insert(name.clone()) {
        return Err(Problem::new(
            "is set twice (case does not matter in a header's name), or is set by idempotency_header, [target.auth] or \
             [target.signature]",
            "leave one of them out",
        ));
    }
    let Json::String(written) = written else {
        return Err(Problem::new("the value is not a string", "put it in quotes: \"…\""));
    };
    if HeaderValue::from_str(&written).is_err() || written.trim() != written {
        return Err(Problem::new(
            "the value cannot be sent: it has control characters such as a line end, or spaces at an end",
            "remove them",
        ));
    }
    let value = value("a header", written, has_reference, raw)?;
    *raw = Json::from(MASK);
    Ok((name, value))
}

/// A value with a reference is never a template: a secret may have braces in it.
fn value(what: &str, written: String, has_reference: bool, raw: &mut Json) -> Result<SentText, Problem> {
    if has_reference || !is_template(&written) {
        *raw = Json::from(MASK);
        return Ok(SentText::Literal(Secret::new(written)));
    }
    compile(what, &written, Format::Plain)?;
    Ok(SentText::Template(written))
}

fn compile(what: &str, source: &str, format: Format) -> Result<(), Problem> {
    Template::compile(source, format, VALUE_BYTES_MAX).map(drop).map_err(|fault| {
        Problem::new(
            format!("is not a template of {what}: {fault}"),
            "correct it; docs/wire.md says what a template can do",
        )
    })
}

/// `None`: there is none, or a fault was noted.
fn read_body(section: &mut Section<'_, '_>, content_type: Option<&str>) -> Option<String> {
    let reference = section.reference("body");
    section.read_if_set("body", |raw| {
        let source = text(raw)?;
        if reference == Reference::Variable {
            return Err(Problem::new(
                "has a ${…}, which would be read as a part of the template",
                "send a secret in a header; write $${ for ${ itself",
            ));
        }
        let format = content_type.map_or(Format::Json, Format::of_content_type);
        compile("a body", &source, format)?;
        Ok(source)
    })
}

/// Checks the expressions of a URL.
pub fn check_url(url: &UrlTemplate) -> Result<(), Problem> {
    url.expressions().try_for_each(|expression| {
        compile("a value in a URL", &format!("{{{{ {expression} }}}}"), Format::Plain)
    })
}
