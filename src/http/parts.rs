//! What the requests with updates of some types have in common, and what is made of each update.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use serde_json::value::RawValue;

use super::Attempt;
use super::error::TargetsFault;
use super::request::{header_name, unfit_header, value_of};
use super::shape::RequestShape;
use crate::config::{OnConfig, SentText, TargetConfig};
use crate::templates::{Context, Format, MADE_BYTES_MAX, Template, VALUE_BYTES_MAX, context_of};
use lanekeeper_core::template::UrlTemplate;

/// Sent unless the target's headers set others.
const DEFAULT_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (ACCEPT, HeaderValue::from_static("*/*")),
    (USER_AGENT, HeaderValue::from_static(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))),
];

/// Sent to a target with `answers`, which cannot judge a body that is compressed: a publisher's header is not to ask for one.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Of a body that is made, unless the target's headers set another.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The parts of requests with updates of some types.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) method: Method,
    url: UrlTemplate,
    /// Of the expressions in the URL.
    url_values: Vec<Named>,
    query: Vec<(String, Text)>,
    /// `headers` of the config that are the same for all updates, and the default ones.
    headers: HeaderMap,
    made_headers: Vec<(HeaderName, Named)>,
    body: Body,
    /// For traces.
    pub(super) shape: Arc<RequestShape>,
}

/// A template with its name in messages.
#[derive(Debug)]
struct Named {
    name: String,
    template: Template,
}

#[derive(Debug)]
enum Text {
    Literal(String),
    Made(Named),
}

#[derive(Debug)]
enum Body {
    AsPublished,
    None,
    Made { template: Named, is_json: bool },
}

/// An attempt with what templates see of it, once a template needs it.
pub(super) struct Made<'a> {
    attempt: &'a Attempt,
    context: Option<Context>,
}

impl<'a> Made<'a> {
    pub(super) fn new(attempt: &'a Attempt) -> Self {
        Self { attempt, context: None }
    }

    fn render(&mut self, Named { name, template }: &Named) -> Result<String, String> {
        let Attempt { update, number, .. } = self.attempt;
        let context = self.context.get_or_insert_with(|| context_of(update, *number));
        template
            .render(context)
            .map_err(|fault| format!("the template of {name} fails at {fault}; nothing was sent"))
    }
}

impl Parts {
    /// Of a target's own keys, with those of `row` instead where it has them.
    pub(super) fn new(target: &TargetConfig, row: Option<&OnConfig>) -> Result<Self, TargetsFault> {
        let compile = |name: &str, source: &str, format, bytes_max| {
            let template = Template::compile(source, format, bytes_max).map_err(|fault| {
                let (target, name) = (target.name.clone(), name.to_owned());
                TargetsFault::Template { target, name, fault }
            })?;
            Ok::<_, TargetsFault>(Named { name: name.to_owned(), template })
        };
        let value = |name: &str, source: &str| compile(name, source, Format::Plain, VALUE_BYTES_MAX);

        let (headers, made_headers) = headers(target, row)?;
        let made_headers = made_headers.into_iter().map(|(name, source)| {
            let template = value(&format!("headers.{name}"), source)?;
            Ok((name, template))
        });
        let made_headers = made_headers.collect::<Result<_, TargetsFault>>()?;
        let method = row.and_then(|row| row.method.as_ref()).unwrap_or(&target.method);
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| TargetsFault::Method { target: target.name.clone(), method: method.clone() })?;
        let url = row.and_then(|row| row.url.as_ref()).unwrap_or(&target.url).clone();
        let shown = row.and_then(|row| row.url_shown.as_ref()).unwrap_or(&target.url_shown);
        let shape = Arc::new(RequestShape::new(&method, &url, shown));
        let url_values = url.expressions().enumerate().map(|(index, expression)| {
            value(&format!("url, expression {},", index + 1), &format!("{{{{ {expression} }}}}"))
        });
        let url_values = url_values.collect::<Result<_, _>>()?;
        let of_row = row.map(|row| &row.templates);
        let query = target.templates.query.iter().chain(of_row.into_iter().flat_map(|row| &row.query));
        // Of equal names, that of the row counts, in the place of the target's.
        let query: BTreeMap<&str, &SentText> = query.map(|(name, text)| (name.as_str(), text)).collect();
        let query = query.into_iter().map(|(name, text)| {
            let text = match text {
                SentText::Literal(text) => Text::Literal(text.reveal().to_owned()),
                SentText::Template(source) => Text::Made(value(&format!("query.{name}"), source)?),
            };
            Ok((name.to_owned(), text))
        });
        let query = query.collect::<Result<_, TargetsFault>>()?;
        let body = of_row.and_then(|row| row.body.as_ref()).or(target.templates.body.as_ref());
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let format = content_type.map_or(Format::Json, Format::of_content_type);
        let body = match body.map(String::as_str) {
            None => Body::AsPublished,
            Some("") => Body::None,
            Some(source) => Body::Made {
                template: compile("body", source, format, MADE_BYTES_MAX)?,
                is_json: format == Format::Json,
            },
        };
        let mut parts = Self { method, url, url_values, query, headers, made_headers, body, shape };
        if matches!(parts.body, Body::Made { .. }) {
            parts.headers.entry(CONTENT_TYPE).or_insert(JSON);
        }
        Ok(parts)
    }

    /// Where a request goes.
    pub(super) fn url(&self, record_key: &str, made: &mut Made<'_>) -> Result<Uri, String> {
        let values =
            self.url_values.iter().map(|template| made.render(template)).collect::<Result<Vec<_>, _>>()?;
        let query = self.query.iter().map(|(name, text)| {
            let value = match text {
                Text::Literal(text) => text.clone(),
                Text::Made(template) => made.render(template)?,
            };
            Ok((name.as_str(), value))
        });
        let query = query.collect::<Result<Vec<_>, String>>()?;
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = self.url.expand(record_key, &values, &query).map_err(|fault| fault.to_string())?;
        Uri::try_from(url.as_str())
            .map_err(|fault| format!("its URL is not valid in HTTP ({fault}); nothing was sent"))
    }

    /// The headers that the config sets.
    pub(super) fn headers(&self, made: &mut Made<'_>) -> Result<HeaderMap, String> {
        let mut headers = self.headers.clone();
        for (name, template) in &self.made_headers {
            let value = made.render(template)?;
            headers.insert(name, value_of(name, &value).map_err(|name| unfit_value(&name))?);
        }
        Ok(headers)
    }

    /// The body of a request with an update.
    pub(super) fn body(&self, made: &mut Made<'_>) -> Result<Bytes, String> {
        match &self.body {
            Body::AsPublished => Ok(made.attempt.update.body.clone()),
            Body::None => Ok(Bytes::new()),
            Body::Made { template, is_json } => {
                let body = made.render(template)?;
                if *is_json && let Err(fault) = serde_json::from_str::<&RawValue>(&body) {
                    return Err(format!(
                        "the template of body makes no valid JSON of this update: see line {}, column {} of what it makes; \
                         nothing was sent",
                        fault.line(),
                        fault.column()
                    ));
                }
                Ok(body.into())
            }
        }
    }

    /// Returns true if requests have the publisher's body, and so its content-type and content-encoding.
    pub(super) fn has_body_as_published(&self) -> bool {
        matches!(self.body, Body::AsPublished)
    }

    /// Returns true if the record key, as it is, is a part of the path.
    pub(super) fn has_key_in_path(&self) -> bool {
        self.url.has_record_key()
    }
}

type Headers<'a> = (HeaderMap, Vec<(HeaderName, &'a str)>);

/// Those of the target with those of the row instead of equal names: what is the same for all updates, and templates.
fn headers<'a>(target: &'a TargetConfig, row: Option<&'a OnConfig>) -> Result<Headers<'a>, TargetsFault> {
    let (mut headers, mut made) = (HeaderMap::with_capacity(16), BTreeMap::new());
    let sources = [
        Some((&target.headers, &target.templates.headers)),
        row.map(|row| (&row.headers, &row.templates.headers)),
    ];
    for (literal, templates) in sources.into_iter().flatten() {
        for (name, value) in literal {
            let unfit = || unfit_header(target, name);
            let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| unfit())?;
            value.set_sensitive(true);
            let name = header_name(name).ok_or_else(unfit)?;
            made.remove(name.as_str());
            headers.insert(name, value);
        }
        for (name, source) in templates {
            let name = header_name(name).ok_or_else(|| unfit_header(target, name))?;
            headers.remove(&name);
            made.insert(name.as_str().to_owned(), (name, source.as_str()));
        }
    }
    let plain = (!target.answers.is_empty()).then_some((ACCEPT_ENCODING, IDENTITY));
    for (name, value) in DEFAULT_HEADERS.into_iter().chain(plain) {
        if !made.contains_key(name.as_str()) {
            headers.entry(name).or_insert(value);
        }
    }
    Ok((headers, made.into_values().collect()))
}

/// In words, that a header cannot be sent.
pub(super) fn unfit_value(name: &HeaderName) -> String {
    format!("the value of header {name} is not valid in HTTP; nothing was sent")
}
