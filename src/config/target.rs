//! The keys of `[[target]]`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::Value as Json;

use super::auth::AuthConfig;
use super::fault::{Fault, Origin, Problem};
use super::mask;
use super::model::{
    AnswerBody, Content, FirstContact, HttpVersion, IdempotencyKeyStyle, IfMatch, LimitsConfig, Purpose,
    TakeoverWait, TargetConfig,
};
use super::parse::{choice, duration, format_duration, takeover_wait, text, timeout};
use super::pattern::Pattern;
use super::reader::{Reader, Section, Shape};
use super::{answers, auth, failure, limits, on, proxy, signature, templates, tls};
use lanekeeper_core::outcome::OutcomeKind;
use lanekeeper_core::pacing::PacerLimits;
use lanekeeper_core::policy::FailurePolicies;
use lanekeeper_core::routes::{TypePattern, TypePatternFault};
use lanekeeper_core::template::UrlTemplate;

/// A complete target, for the fault that there is none.
pub const TARGET_EXAMPLE: &str = r#"[[target]]
name = "crm"
types = ["*"]
url = "http://127.0.0.1:8099/customers/{record_key}""#;

const STYLES: [(&str, IdempotencyKeyStyle); 3] = [
    ("quoted", IdempotencyKeyStyle::Quoted),
    ("bare", IdempotencyKeyStyle::Bare),
    ("off", IdempotencyKeyStyle::Off),
];

const IF_MATCH: [(&str, IfMatch); 2] = [("header", IfMatch::Header), ("auto", IfMatch::Auto)];

const ANSWER_BODY: [(&str, AnswerBody); 2] =
    [("complete", AnswerBody::Complete), ("ignore", AnswerBody::Ignore)];

pub const HTTP_VERSIONS: [(&str, HttpVersion); 3] =
    [("auto", HttpVersion::Auto), ("1.1", HttpVersion::Http1), ("2", HttpVersion::Http2)];

/// Of `connection_age_max`.
pub const CONNECTION_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

const FIRST_CONTACT: [(&str, FirstContact); 2] =
    [("get", FirstContact::Get), ("create", FirstContact::Create)];

/// Headers that only the HTTP client may set (RFC 9110, 7.6.1; RFC 9112, 6).
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// The default of `connect_timeout`. A name with two addresses has half of it for each.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Values of other sections that the keys of a target depend on; `None`: a fault of theirs was noted.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// `broker.heartbeat`.
    pub heartbeat: Option<Duration>,
    /// `dispatch.held_max`.
    pub held_max: Option<Duration>,
    /// `dispatch.takeover_wait`.
    pub takeover_wait: Option<TakeoverWait>,
    /// `[failure]`.
    pub failure: Option<FailurePolicies>,
    /// There is a ledger, or it does not matter.
    pub can_park: bool,
}

/// All targets, and the groups that share limits.
pub struct Targets {
    /// In the order of the config.
    pub targets: Vec<TargetConfig>,
    /// In order of first appearance.
    pub limits: Vec<LimitsConfig>,
}

/// Reads all `[[target]]`. `file` is the config file, if there is one.
pub fn read(
    reader: &mut Reader<'_>,
    file: Option<&Path>,
    purpose: Purpose,
    elsewhere: Elsewhere,
) -> Option<Targets> {
    let count = reader.count("target")?;
    if count == 0 && purpose == Purpose::Dispatch {
        let origin = file.map_or(Origin::BuiltIn, |path| Origin::File(path.to_owned()));
        let place =
            if file.is_some() { "add one" } else { "write one to a file and name it with --config FILE" };
        let problem = Problem::new(
            "there is no [[target]]: updates have nowhere to go",
            format!("{place}; it needs at least\n\n{TARGET_EXAMPLE}{}", door_alone(reader)),
        );
        reader.fault(Fault { key: "target".to_owned(), origin, problem });
        return None;
    }
    let mut names = BTreeSet::new();
    let targets: Vec<Option<(TargetConfig, PacerLimits)>> =
        (0..count).map(|index| read_one(reader.element("target", index), &mut names, elsewhere)).collect();
    let limits = limits::group(reader, &targets);
    let targets = targets.into_iter().map(|target| target.map(|(target, _)| target));
    Some(Targets { targets: targets.collect::<Option<_>>()?, limits })
}

/// What to add for somebody who has a config for a door.
fn door_alone(reader: &Reader<'_>) -> &'static str {
    if reader.is_of_a_door_alone() {
        "\n\nThis config has [[ingest.client]] or [[ingest.hook]] and no [[target]]: it is for `lanekeeper ingest` alone"
    } else {
        ""
    }
}

fn read_one(
    mut section: Section<'_, '_>,
    names: &mut BTreeSet<String>,
    elsewhere: Elsewhere,
) -> Option<(TargetConfig, PacerLimits)> {
    let name = section.read("name", name);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        section.fault(
            "name",
            Problem::new(format!("{name:?} is the name of an earlier target"), "choose another"),
        );
    }
    let types = section.each("types", Shape::List, |_, raw| type_pattern(raw));
    if types.as_ref().is_some_and(Vec::is_empty) {
        let what = "is empty: no update would go to this target";
        section.fault("types", Problem::new(what, "write types = [\"*\"] for all updates"));
    }
    let method = section.read_or("method", "PUT", method);
    let url = section.read("url", url);
    let url_shown = section.shown("url");
    let record_keys = section.read_if_set("record_keys", |raw| Pattern::whole(&text(raw)?));
    let record_keys = (record_keys.is_some() == section.has("record_keys")).then_some(record_keys);
    let (connect_timeout, timeout, takeover_wait) = read_times(&mut section, elsewhere);
    let idempotency_key = section.read_or("idempotency_key", "quoted", choice(&STYLES));
    let idempotency_header = section.read_or("idempotency_header", "Idempotency-Key", idempotency_header);
    // Of headers that requests get from other keys than `headers`.
    let mut reserved: BTreeSet<String> =
        idempotency_header.iter().map(|header| header.to_ascii_lowercase()).collect();
    let sent = templates::read(&mut section, reserved.clone(), None);
    let outcomes = section.each("outcomes", Shape::Table, outcome);
    let if_match = section.read_or("if_match", "header", choice(&IF_MATCH));
    let first_contact = section.read_or("first_contact", "get", choice(&FIRST_CONTACT));
    let answer_body = section.read_or("answer_body", "complete", choice(&ANSWER_BODY));
    let connection_age_max = section.read_or("connection_age_max", "5m", duration(CONNECTION_AGE));
    let http_version = section.read_or("http_version", "auto", choice(&HTTP_VERSIONS));
    let proxy = section.read_or("proxy", "", proxy::parse);
    let (limits, own_limits) = limits::read(&mut section, name.as_deref());
    let own_headers = sent.as_ref().map_or(&[][..], |(headers, _)| headers);
    let made_headers = sent.as_ref().map_or(&[][..], |(_, templates)| &templates.headers);
    let own_names = own_headers.iter().map(|(name, _)| name).chain(made_headers.iter().map(|(name, _)| name));
    let mut taken: BTreeSet<String> = own_names.chain(&reserved).cloned().collect();
    let auth = auth::read(&mut section, &taken);
    let of_auth = auth.as_ref().and_then(AuthConfig::header_name).map(str::to_owned);
    taken.extend(of_auth.clone());
    let before = taken.clone();
    let signature = signature::read(&mut section, &mut taken);
    reserved.extend(of_auth.into_iter().chain(taken.difference(&before).cloned()));
    let tls = tls::read(&mut section);
    let on = on::read(&mut section, &reserved, own_headers);
    let answers = answers::read(&mut section);
    let failure = failure::read_of_target(&mut section, elsewhere.failure, elsewhere.can_park);
    section.finish();
    let (headers, templates) = sent?;
    let target = TargetConfig {
        name: name?,
        content: Content::Updates,
        types: types?,
        method: method?,
        url: url?,
        url_shown,
        record_keys: record_keys?,
        connect_timeout: connect_timeout?,
        timeout: timeout?,
        takeover_wait: takeover_wait?,
        idempotency_key: idempotency_key?,
        idempotency_header: idempotency_header?,
        auth: auth?,
        signature: signature?,
        tls: tls?,
        http_version: http_version?,
        proxy: proxy?,
        headers,
        templates,
        on: on?,
        outcomes: outcomes?.into_iter().collect(),
        answers: answers?,
        if_match: if_match?,
        first_contact: first_contact?,
        answer_body: answer_body?,
        connection_age_max: connection_age_max?,
        limits: limits?,
        failure: failure?,
    };
    Some((target, own_limits))
}

type Times = (Option<Duration>, Option<Duration>, Option<TakeoverWait>);

/// `connect_timeout`, `timeout` and `takeover_wait`.
fn read_times(section: &mut Section<'_, '_>, elsewhere: Elsewhere) -> Times {
    let held_max = elsewhere.held_max;
    let request = section.read_or("timeout", "10s", timeout);
    let default = format_duration(CONNECT_TIMEOUT.min(held_max.unwrap_or(CONNECT_TIMEOUT)));
    let connect = section.read_or("connect_timeout", &default, timeout);
    section.at_most("connect_timeout", connect, "dispatch.held_max", held_max);
    let default = match elsewhere.takeover_wait {
        Some(TakeoverWait::Fixed(wait)) => format_duration(wait),
        Some(TakeoverWait::Auto) | None => "auto".to_owned(),
    };
    let wait = section.read_or("takeover_wait", &default, takeover_wait);
    let fixed = match wait {
        Some(TakeoverWait::Fixed(wait)) => Some(wait),
        Some(TakeoverWait::Auto) | None => None,
    };
    if let (Some(heartbeat), Some(held_max)) = (elsewhere.heartbeat, held_max) {
        for (key, time) in [("timeout", request), ("takeover_wait", fixed)] {
            if let Some(time) = time.filter(|time| *time + heartbeat > held_max) {
                let (time, heartbeat, held_max) =
                    (format_duration(time), format_duration(heartbeat), format_duration(held_max));
                let what = format!(
                    "{time:?} and a heartbeat of {heartbeat:?} are longer than dispatch.held_max = {held_max:?}: after a \
                     crash the next owner waits so long before it sends, and would give its updates back before that"
                );
                let fix = "shorten it or broker.heartbeat, or raise dispatch.held_max";
                section.fault(key, Problem::new(what, fix));
            }
        }
    }
    (connect, request, wait)
}

/// The name of a target, or of limits.
pub fn name(raw: &mut Json) -> Result<String, Problem> {
    let name = text(raw)?;
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if (1..=100).contains(&name.len()) && name.chars().all(fit) {
        return Ok(name);
    }
    Err(Problem::new(format!("{name:?} is not a name"), "write 1 to 100 of a to z, 0 to 9, \"_\" and \"-\""))
}

/// An entry of `types`.
pub fn type_pattern(raw: &mut Json) -> Result<TypePattern, Problem> {
    let text = text(raw)?;
    text.parse().map_err(|fault: TypePatternFault| {
        Problem::new(format!("{text:?} is not a type pattern"), fault.to_string())
    })
}

/// Problems do not quote the URL: it may contain a password, which is one of the problems.
pub fn url(raw: &mut Json) -> Result<UrlTemplate, Problem> {
    let text = text(raw)?;
    *raw = Json::from(mask::url(&text));
    let url = UrlTemplate::parse(&text)
        .map_err(|fault| Problem::new("is not a URL for updates", fault.to_string()))?;
    templates::check_url(&url)?;
    Ok(url)
}

/// A method, in upper case.
pub fn method(raw: &mut Json) -> Result<String, Problem> {
    let method = text(raw)?;
    let fix = "write a method such as \"PUT\", \"POST\" or \"PATCH\", in upper case";
    if Method::from_bytes(method.as_bytes()).is_err() || method != method.to_ascii_uppercase() {
        return Err(Problem::new(format!("{method:?} is not an HTTP method in upper case"), fix));
    }
    if matches!(method.as_str(), "CONNECT" | "TRACE") {
        return Err(Problem::new(format!("{method} cannot carry an update"), fix));
    }
    Ok(method)
}

fn idempotency_header(raw: &mut Json) -> Result<String, Problem> {
    let header = text(raw)?;
    header_name(&header)?;
    Ok(header)
}

/// Checks that the config may set this header. Returns the name in lower case.
pub fn header_name(name: &str) -> Result<String, Problem> {
    let valid = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Problem::new(format!("{name:?} is not a header name"), "write one such as \"x-api-key\"")
    })?;
    let lower = valid.as_str();
    let whose = if RESERVED.contains(&lower) {
        "is set by the HTTP client"
    } else if lower.starts_with("lanekeeper-") {
        "is set by Lanekeeper"
    } else {
        return Ok(lower.to_owned());
    };
    Err(Problem::new(format!("the header {lower:?} {whose}"), "leave it out"))
}

fn outcome(status: &str, raw: &mut Json) -> Result<(u16, OutcomeKind), Problem> {
    let number = status.parse().ok().filter(|number| (100..=599).contains(number) && status.len() == 3);
    let number = number.ok_or_else(|| {
        Problem::new(format!("{status:?} is not an HTTP status"), "write one from 100 to 599")
    })?;
    let kinds = OutcomeKind::ALL.map(|kind| (kind.name(), kind));
    Ok((number, choice(&kinds)(raw)?))
}
