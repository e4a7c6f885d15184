//! The keys of `[[notify]]`: who is told of events, of which, and how often. A receiver is spoken to as a target is.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;

use super::auth::AuthConfig;
use super::fault::Problem;
use super::model::{
    AnswerBody, Content, FirstContact, IdempotencyKeyStyle, IfMatch, TakeoverWait, TargetConfig,
};
use super::parse::{choice, duration, flag, format_duration, timeout};
use super::reader::{Reader, Section, Shape};
use super::target::{CONNECT_TIMEOUT, CONNECTION_AGE, HTTP_VERSIONS, name, url};
use super::{auth, proxy, signature, templates, tls};
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy};
use lanekeeper_core::template::UrlTemplate;

/// Of `interval`.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// `[[notify]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NotifyConfig {
    /// The events that it is told of; at least one.
    pub events: BTreeSet<EventKind>,
    /// Whether it is told record keys.
    pub record_keys: bool,
    /// The least time between two notifications of one kind about one target.
    pub interval: Duration,
    /// Where notifications go, and its name.
    pub receiver: TargetConfig,
}

/// A kind of events that people can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// A record waits in the ledger for a person.
    RecordParked,
    /// A target fails for every record.
    TargetShut,
    /// It works again.
    TargetOpened,
    /// Updates wait in a partition that no process owns.
    PartitionWithoutOwner,
    /// A process owns it again.
    PartitionOwned,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::RecordParked,
        Self::TargetShut,
        Self::TargetOpened,
        Self::PartitionWithoutOwner,
        Self::PartitionOwned,
    ];

    /// As in `events`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordParked => "record_parked",
            Self::TargetShut => "target_shut",
            Self::TargetOpened => "target_opened",
            Self::PartitionWithoutOwner => "partition_without_owner",
            Self::PartitionOwned => "partition_owned",
        }
    }
}

/// Reads all `[[notify]]`; `None`: a fault was noted.
pub fn read(reader: &mut Reader<'_>) -> Option<Vec<NotifyConfig>> {
    let count = reader.count("notify")?;
    let mut names = BTreeSet::new();
    let receivers: Vec<Option<NotifyConfig>> =
        (0..count).map(|index| read_one(reader.element("notify", index), &mut names)).collect();
    receivers.into_iter().collect()
}

fn read_one(mut section: Section<'_, '_>, names: &mut BTreeSet<String>) -> Option<NotifyConfig> {
    let name = section.read("name", name);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        let what = format!("{name:?} is the name of an earlier [[notify]]");
        section.fault("name", Problem::new(what, "choose another"));
    }
    let url = section.read("url", fixed_url);
    let url_shown = section.shown("url");
    let kinds = EventKind::ALL.map(|kind| (kind.name(), kind));
    let is_set = section.has("events");
    let events = section.each("events", Shape::List, |_, raw| choice(&kinds)(raw));
    if is_set && events.as_ref().is_some_and(Vec::is_empty) {
        let what = "is empty: nobody would be told of anything";
        section.fault("events", Problem::new(what, "leave it out for all events, or remove this [[notify]]"));
    }
    let record_keys = section.read_or("record_keys", "false", flag);
    let interval = section.read_or("interval", "1m", duration(INTERVAL));
    let request = section.read_or("timeout", "10s", timeout);
    let connect = section.read_or("connect_timeout", &format_duration(CONNECT_TIMEOUT), timeout);
    let idempotency = IDEMPOTENCY_HEADER.to_ascii_lowercase();
    let sent = templates::read(&mut section, [idempotency.clone()].into(), None);
    let connection_age_max = section.read_or("connection_age_max", "5m", duration(CONNECTION_AGE));
    let http_version = section.read_or("http_version", "auto", choice(&HTTP_VERSIONS));
    let proxy = section.read_or("proxy", "", proxy::parse);
    let own = sent.iter().flat_map(|(headers, _)| headers).map(|(name, _)| name);
    let made = sent.iter().flat_map(|(_, templates)| &templates.headers).map(|(name, _)| name);
    let mut taken: BTreeSet<String> = own.chain(made).chain([&idempotency]).cloned().collect();
    let auth = auth::read(&mut section, &taken);
    taken.extend(auth.as_ref().and_then(AuthConfig::header_name).map(str::to_owned));
    let signature = signature::read(&mut section, &mut taken);
    let tls = tls::read(&mut section);
    section.finish();
    let (headers, templates) = sent?;
    let receiver = TargetConfig {
        name: name?,
        content: Content::Events,
        types: Vec::new(),
        method: "POST".to_owned(),
        url: url?,
        url_shown,
        record_keys: None,
        connect_timeout: connect?,
        timeout: request?,
        takeover_wait: TakeoverWait::Auto,
        idempotency_key: IdempotencyKeyStyle::Quoted,
        idempotency_header: IDEMPOTENCY_HEADER.to_owned(),
        auth: auth?,
        signature: signature?,
        tls: tls?,
        http_version: http_version?,
        proxy: proxy?,
        headers,
        templates,
        on: Vec::new(),
        outcomes: [].into(),
        answers: Vec::new(),
        if_match: IfMatch::Header,
        first_contact: FirstContact::Get,
        answer_body: AnswerBody::Ignore,
        connection_age_max: connection_age_max?,
        limits: String::new(),
        failure: FailurePolicies::all(FailurePolicy::Block),
    };
    let events = events?;
    let events = if events.is_empty() { EventKind::ALL.into() } else { events.into_iter().collect() };
    Some(NotifyConfig { events, record_keys: record_keys?, interval: interval?, receiver })
}

const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";

/// A URL that is the same for all events.
fn fixed_url(raw: &mut Json) -> Result<UrlTemplate, Problem> {
    let url = url(raw)?;
    if url.has_record_key() || url.expressions().len() > 0 {
        let what = "has {record_key} or a template, but an event is of no record";
        return Err(Problem::new(what, "write a URL that is the same for all events"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Environment, Faults, Loaded, Purpose, TARGET_EXAMPLE, warnings};
    use super::*;

    const LEAST: &str = "[[notify]]\nname = \"chat\"\nurl = \"https://chat.example/hook\"\n";

    fn loaded(notify: &str) -> Result<Loaded, Faults> {
        let text = format!("{TARGET_EXAMPLE}\n{notify}");
        let environment: Environment = [("SECRET", "s3cret")].into_iter().collect();
        super::super::read(Some((Path::new("lk.toml"), &text)), &environment, Purpose::Dispatch)
    }

    #[test]
    fn a_receiver_needs_a_name_and_a_url() {
        let config = loaded(LEAST).unwrap().config;
        let [notify] = &config.notify[..] else { panic!("{:?}", config.notify) };
        assert_eq!(notify.events, EventKind::ALL.into());
        assert!(!notify.record_keys);
        assert_eq!(notify.interval, Duration::from_secs(60));
        assert_eq!((notify.receiver.name.as_str(), notify.receiver.method.as_str()), ("chat", "POST"));
        assert!(loaded("").unwrap().config.notify.is_empty());
    }

    #[test]
    fn it_has_what_a_target_has_to_show_who_asks() {
        let lines = "events = [\"target_shut\"]\nbody = '{\"text\": {{ body.data.text }}}'\n[notify.auth]\nbearer = \"${SECRET}\"\n\
            [notify.signature.hmac]\nheader = \"x-signature\"\nsecret = \"${SECRET}\"\n";
        let loaded = loaded(&format!("{LEAST}{lines}")).unwrap();
        let notify = &loaded.config.notify[0];
        assert_eq!(notify.events, [EventKind::TargetShut].into());
        assert!(matches!(notify.receiver.auth, AuthConfig::Bearer { .. }));
        assert!(notify.receiver.templates.body.is_some());
        assert!(!format!("{:?}", loaded.shown).contains("s3cret"));
    }

    #[test]
    fn faults_name_what_to_write() {
        let check = |notify: &str, key: &str, part: &str| {
            let faults = loaded(notify).unwrap_err().0;
            let found = faults.iter().any(|fault| fault.key == key && fault.to_string().contains(part));
            assert!(found, "{key}: {part} in {faults:?}");
        };
        check("[[notify]]\nname = \"chat\"\n", "notify[0].url", "is missing");
        check(&format!("{LEAST}{LEAST}"), "notify[1].name", "is the name of an earlier [[notify]]");
        check(&format!("{LEAST}events = []"), "notify[0].events", "leave it out for all events");
        check(&format!("{LEAST}events = [\"parked\"]"), "notify[0].events[0]", "\"record_parked\"");
        check(&format!("{LEAST}interval = \"1ms\""), "notify[0].interval", "1s");
        check(&format!("{LEAST}method = \"PUT\""), "notify[0].method", "there is no such key");
        let with_key = LEAST.replace("/hook", "/{record_key}");
        check(&with_key, "notify[0].url", "write a URL that is the same for all events");
        let with_template = LEAST.replace("/hook", "/{{ id }}");
        check(&with_template, "notify[0].url", "write a URL that is the same for all events");
    }

    #[test]
    fn what_travels_as_plain_text_is_warned_of() {
        let plain = LEAST.replace("https:", "http:");
        let warned = |notify: &str| {
            let warnings = warnings(&loaded(notify).unwrap().config);
            warnings.into_iter().filter(|warning| warning.starts_with("[[notify]] \"chat\"")).count()
        };
        assert_eq!(warned(&plain), 0);
        assert_eq!(warned(&format!("{plain}record_keys = true")), 1);
        assert_eq!(warned(&format!("{plain}[notify.auth]\nbearer = \"${{SECRET}}\"")), 1);
        assert_eq!(warned(&format!("{LEAST}record_keys = true")), 0);
    }
}
