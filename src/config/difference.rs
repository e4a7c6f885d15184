//! What changes from the config that is in force to another one, and when each change takes effect.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

use super::model::Purpose;
use super::reader::Shown;

/// A key whose value changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As in a fault: `retry.delay_max`, `target[0].url`.
    pub key: String,
    /// When.
    pub takes_effect: TakesEffect,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TakesEffect {
    /// With the next attempt; what is in flight ends as it would have.
    AtOnce,
    /// With the next request to a door; those that it has taken end as they would have.
    WithTheNextRequest,
    /// When a connection is opened the next time.
    WithTheNextConnection,
    /// When the partitions of this process were given back and are attached again.
    WhenAttachedAgain,
    /// When the process is started again.
    AtTheNextStart,
}

impl TakesEffect {
    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AtOnce => "with the next attempt",
            Self::WithTheNextRequest => "with the next request",
            Self::WithTheNextConnection => "when a connection is opened the next time",
            Self::WhenAttachedAgain => "after all partitions were attached again",
            Self::AtTheNextStart => "after a restart",
        }
    }
}

/// The changes from one config to another, in the order of the keys, as far as a process that has read both for `purpose` uses
/// them.
#[must_use]
pub fn changes(purpose: Purpose, from: &[Shown], to: &[Shown]) -> Vec<Change> {
    let by_key = |shown: &[Shown]| -> BTreeMap<(String, &'static str), Shown> {
        shown.iter().map(|shown| ((shown.section.clone(), shown.key), shown.clone())).collect()
    };
    let (before, after) = (by_key(from), by_key(to));
    let mut order: Vec<_> = from.iter().chain(to).map(|shown| (shown.section.clone(), shown.key)).collect();
    let mut seen = std::collections::BTreeSet::new();
    order.retain(|key| is_used(purpose, (&key.0, key.1)) && seen.insert(key.clone()));
    let changed = order.into_iter().filter_map(|name| {
        let exact = |of: &BTreeMap<_, Shown>| of.get(&name).map(|shown| shown.exact.0.clone());
        let (old, new) = (exact(&before), exact(&after));
        let (section, key) = &name;
        (old != new).then(|| Change {
            key: format!("{section}.{key}"),
            takes_effect: takes_effect(section, key, old.as_ref(), new.as_ref()),
        })
    });
    changed.collect()
}

/// Keys of a target that more than the requests to it depend on.
const OF_DISPATCHING: [&str; 7] =
    ["name", "types", "timeout", "takeover_wait", "rate_max", "in_flight_max", "limits"];

/// The sections that a door uses, and `ingest`.
pub(crate) const OF_DOOR: [&str; 5] = ["instance", "broker", "updates", "admin", "log"];

/// One file may be for a door and for a process that dispatches: what the other one changes is nothing to it.
fn is_used(purpose: Purpose, (section, key): (&str, &str)) -> bool {
    let first = section.split(['.', '[']).next().unwrap_or_default();
    match purpose {
        // Of the updates, a door knows the exchange and how large a body may be.
        Purpose::Ingest if first == "updates" => ["exchange", "body_bytes_max"].contains(&key),
        Purpose::Ingest => first == "ingest" || OF_DOOR.contains(&first),
        _ => first != "ingest",
    }
}

/// Keys of `[ingest]` that each request is looked at with.
const OF_REQUESTS: [&str; 6] =
    ["confirm_timeout", "batch_lines_max", "batch_bytes_max", "require_id", "insecure", "drain_timeout"];

fn takes_effect(section: &str, key: &str, old: Option<&Json>, new: Option<&Json>) -> TakesEffect {
    if section.starts_with("ingest.client[") || section.starts_with("ingest.hook[") {
        return TakesEffect::WithTheNextRequest;
    }
    if let Some(of_target) = section.strip_prefix("target[") {
        let part = of_target.split_once(']').map_or("", |(_, part)| part);
        return match part {
            "" if OF_DISPATCHING.contains(&key) => TakesEffect::WhenAttachedAgain,
            ".failure" => TakesEffect::WhenAttachedAgain,
            _ => TakesEffect::AtOnce,
        };
    }
    if section.starts_with("notify[") {
        return TakesEffect::AtOnce;
    }
    let users_alone = || match (old, new) {
        (Some(old), Some(new)) => without_users(old) == without_users(new),
        _ => false,
    };
    match (section, key) {
        ("broker" | "ledger", "url") if users_alone() => TakesEffect::WithTheNextConnection,
        ("broker", "management_url") | ("admin.tls" | "ingest.tls", _) => TakesEffect::WithTheNextConnection,
        ("ingest", key) if OF_REQUESTS.contains(&key) => TakesEffect::WithTheNextRequest,
        // Whether there are traces at all is decided at the start.
        ("telemetry", "endpoint") if [old, new].iter().any(|url| *url == Some(&Json::from(""))) => {
            TakesEffect::AtTheNextStart
        }
        ("log", "filter") | ("admin", "read_token" | "write_token") | ("telemetry", _) => TakesEffect::AtOnce,
        ("retry" | "failure" | "breaker", _)
        | ("dispatch", "in_flight_max" | "drain_timeout" | "held_max" | "takeover_wait") => {
            TakesEffect::WhenAttachedAgain
        }
        _ => TakesEffect::AtTheNextStart,
    }
}

/// A URL, or several of them, without users and passwords.
fn without_users(urls: &Json) -> Json {
    match urls {
        Json::String(text) => {
            let mut without = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("//") {
                without = without + before + "//";
                let authority = &after[..after.find(['/', '?']).unwrap_or(after.len())];
                rest = &after[authority.rfind('@').map_or(0, |at| at + 1)..];
            }
            Json::from(without + rest)
        }
        Json::Array(urls) => urls.iter().map(without_users).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Environment, Purpose, TARGET_EXAMPLE, read};
    use super::*;
    use TakesEffect::{AtOnce, AtTheNextStart, WhenAttachedAgain, WithTheNextConnection, WithTheNextRequest};

    fn shown(text: &str) -> Vec<Shown> {
        let text =
            if text.contains("[[target]]") { text.to_owned() } else { format!("{text}\n{TARGET_EXAMPLE}") };
        shown_for(Purpose::Dispatch, &text)
    }

    fn shown_for(purpose: Purpose, text: &str) -> Vec<Shown> {
        let secrets = [("OLD", "s3cret-1-0123456789"), ("NEW", "s3cret-2-0123456789")];
        let environment: Environment = secrets.into_iter().collect();
        let loaded = read(Some((Path::new("lk.toml"), text)), &environment, purpose);
        loaded.unwrap_or_else(|faults| panic!("{faults}")).shown
    }

    #[track_caller]
    fn check(from: &str, to: &str, expected: &[(&str, TakesEffect)]) {
        let changes = changes(Purpose::Dispatch, &shown(from), &shown(to));
        let found: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.takes_effect)).collect();
        assert_eq!(found, expected);
        assert!(!format!("{changes:?}").contains("s3cret"));
    }

    #[test]
    fn each_change_is_named_with_its_time() {
        check("", "", &[]);
        check("[retry]\njitter = 0.2", "", &[]);
        check("", "[retry]\njitter = 0.1", &[("retry.jitter", WhenAttachedAgain)]);
        check("", "[log]\nfilter = \"debug\"", &[("log.filter", AtOnce)]);
        check("", "[dispatch]\nprefetch = 500", &[("dispatch.prefetch", AtTheNextStart)]);
        check(
            "",
            "[broker]\nmanagement_url = \"http://h:15672\"",
            &[("broker.management_url", WithTheNextConnection)],
        );
        check("", "[admin]\nread_token = \"s3cret-0123456789\"", &[("admin.read_token", AtOnce)]);
        check("", "[admin]\nwrite_token = \"s3cret-0123456789\"", &[("admin.write_token", AtOnce)]);
        check("", "[admin]\nlisten = \"127.0.0.1:1\"", &[("admin.listen", AtTheNextStart)]);
        check("", "[broker]\nheartbeat = \"7s\"", &[("broker.heartbeat", AtTheNextStart)]);
        let telemetry = |lines: &str| format!("[telemetry]\nendpoint = \"http://a\"\n{lines}");
        check("", &telemetry(""), &[("telemetry.endpoint", AtTheNextStart)]);
        check(
            &telemetry("headers = { a = \"${OLD}\" }"),
            &telemetry("headers = { a = \"${NEW}\" }\nsample_ratio = 0.5").replace("http://a", "http://b"),
            &[
                ("telemetry.endpoint", AtOnce),
                ("telemetry.sample_ratio", AtOnce),
                ("telemetry.headers", AtOnce),
            ],
        );
        let target = |lines: &str| format!("{TARGET_EXAMPLE}\n{lines}");
        check(
            &target("headers = { a = \"${OLD}\" }"),
            &target("headers = { a = \"${NEW}\" }"),
            &[("target[0].headers", AtOnce)],
        );
        check(&target(""), &target("in_flight_max = 8"), &[("target[0].in_flight_max", WhenAttachedAgain)]);
        check(
            &target(""),
            &target("[target.failure]\nrejected = \"block\""),
            &[("target[0].failure.rejected", WhenAttachedAgain)],
        );
        check(&target(""), &target("[target.auth]\nbearer = \"x\""), &[("target[0].auth.bearer", AtOnce)]);
        let notify = |line: &str| target(&format!("[[notify]]\nname = \"n\"\nurl = \"http://h\"\n{line}"));
        check(&notify(""), &notify("interval = \"5m\""), &[("notify[0].interval", AtOnce)]);
        let second = target(&TARGET_EXAMPLE.replace("crm", "erp"));
        let changes = changes(Purpose::Dispatch, &shown(""), &shown(&second));
        assert!(
            changes
                .iter()
                .any(|change| change.key == "target[1].name" && change.takes_effect == WhenAttachedAgain)
        );
    }

    #[test]
    fn a_door_and_a_dispatcher_with_one_file_look_at_their_own_keys() {
        let client = "[[ingest.client]]\nname = \"crm\"\ntokens = [\"${OLD}\"]\n";
        let file = |lines: &str, client: &str| format!("{lines}\n{client}{TARGET_EXAMPLE}");
        let check = |purpose, to: &str, expected: &[(&str, TakesEffect)]| {
            let changes = changes(purpose, &shown_for(purpose, &file("", client)), &shown_for(purpose, to));
            let found: Vec<_> =
                changes.iter().map(|change| (change.key.as_str(), change.takes_effect)).collect();
            assert_eq!(found, expected);
        };
        let other_token = file("", &client.replace("OLD", "NEW"));
        check(Purpose::Ingest, &other_token, &[("ingest.client[0].tokens", WithTheNextRequest)]);
        check(Purpose::Dispatch, &other_token, &[]);
        let other = file("[retry]\njitter = 0.1\n[updates]\npartitions = 3", client)
            .replace("name = \"crm\"\nty", "name = \"erp\"\nty");
        check(Purpose::Ingest, &other, &[]);
        for (lines, key, takes_effect) in [
            ("confirm_timeout = \"5s\"", "confirm_timeout", WithTheNextRequest),
            ("require_id = false", "require_id", WithTheNextRequest),
            ("pending_max = 5_000", "pending_max", AtTheNextStart),
            ("listen = \"127.0.0.1:1\"", "listen", AtTheNextStart),
        ] {
            let to = file(&format!("[ingest]\n{lines}"), client);
            check(Purpose::Ingest, &to, &[(&format!("ingest.{key}"), takes_effect)]);
            check(Purpose::Dispatch, &to, &[]);
        }
        let body = file("[updates]\nbody_bytes_max = 5_000", client);
        check(Purpose::Ingest, &body, &[("updates.body_bytes_max", AtTheNextStart)]);
        let added = file("", &(client.to_owned() + &client.replace("crm", "shop").replace("OLD", "NEW")));
        let keys = changes(
            Purpose::Ingest,
            &shown_for(Purpose::Ingest, &file("", client)),
            &shown_for(Purpose::Ingest, &added),
        );
        assert!(!keys.is_empty() && keys.iter().all(|change| change.takes_effect == WithTheNextRequest));
    }

    #[test]
    fn a_password_is_needed_at_the_next_connection() {
        let check = |section: &str, from: &str, to: &str, expected: TakesEffect| {
            let text = |url: &str| format!("[{section}]\nurl = {url}");
            check(&text(from), &text(to), &[(&format!("{section}.url"), expected)]);
        };
        check("broker", "\"amqp://u:${OLD}@h/v\"", "\"amqp://u:${NEW}@h/v\"", WithTheNextConnection);
        check("broker", "\"amqp://u:a@h/v\"", "\"amqp://u:a@i/v\"", AtTheNextStart);
        check("broker", "\"amqp://u:a@h/v\"", "\"amqp://u:b@h/w\"", AtTheNextStart);
        check("broker", "\"amqp://h\"", "\"amqp://u:b@h\"", WithTheNextConnection);
        check(
            "broker",
            "[\"amqp://u:a@h\", \"amqp://u:a@i\"]",
            "[\"amqp://u:b@h\", \"amqp://u:b@i\"]",
            WithTheNextConnection,
        );
        check(
            "broker",
            "\"amqp://u:a@h,amqp://u:a@i\"",
            "\"amqp://u:b@h,amqp://u:b@i\"",
            WithTheNextConnection,
        );
        check("ledger", "\"postgres://u:p@s@a,b/d\"", "\"postgres://u:q@a,b/d\"", WithTheNextConnection);
        check(
            "ledger",
            "\"postgres://u:p@a/d?sslmode=disable\"",
            "\"postgres://u:p@a/d?sslmode=require\"",
            AtTheNextStart,
        );
        check("ledger", "\"sqlite://a\"", "\"sqlite://b\"", AtTheNextStart);
    }
}
