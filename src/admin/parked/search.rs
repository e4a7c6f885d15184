//! Which parked records are looked for.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::fields::Fields;
use super::super::problem::{AdminProblem, ProblemCode};
use super::record_key;
use crate::config::Config;
pub(in super::super) use crate::wall_time::format_millis as format_ms;
use lanekeeper_core::routes::Routes;
use lanekeeper_ledger::{
    AnyLedger, FoundParked, LedgerError, Operations as _, ParkKind, ParkedCursor, ParkedFilter, ParkedState,
};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;

/// A search as people and programs write it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct ParkedSearch {
    /// A part of the key.
    pub(in super::super) contains: Option<String>,
    pub(in super::super) reason: Option<ParkKind>,
    pub(in super::super) state: Option<ParkedState>,
    /// The name of a target of the config.
    pub(in super::super) target: Option<String>,
    pub(in super::super) from_ms: Option<i64>,
    pub(in super::super) before_ms: Option<i64>,
    after: Option<ParkedCursor>,
    limit: Option<u32>,
}

impl ParkedSearch {
    pub(in super::super) fn parse(fields: &Fields, config: &Config) -> Result<Self, AdminProblem> {
        let invalid = |what: &str, fix: &str| {
            AdminProblem::new(ProblemCode::InvalidRequest, format!("`{what}` is not understood: {fix}"))
        };
        let named =
            |name: &str| ParkKind::named(name).ok_or_else(|| invalid("reason", &reasons().join(", ")));
        let state = |name: &str| {
            let states = [ParkedState::Parked, ParkedState::Releasing];
            let found = states.into_iter().find(|state| state.name() == name);
            found.ok_or_else(|| invalid("state", "parked or releasing"))
        };
        let time = |name: &'static str| {
            fields.get(name).map(|text| {
                parse_time(text)
                    .ok_or_else(|| invalid(name, "write a time in UTC, such as 2026-01-31T12:00:00Z"))
            })
        };
        let target = fields.get("target").map(|name| {
            let is_known = config.targets.iter().any(|target| target.name == name);
            is_known.then(|| name.to_owned()).ok_or_else(|| invalid("target", "name a target of the config"))
        });
        let after = match (fields.get("after_ms"), fields.get("after_key")) {
            (Some(since_ms), Some(key)) => {
                let since_ms =
                    since_ms.parse().map_err(|_| invalid("after_ms", "take it from the page before"))?;
                Some(ParkedCursor { since_ms, record_key: record_key(key)? })
            }
            _ => None,
        };
        let limit = fields.get("limit").map(|text| {
            let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or_else(|| invalid("limit", &format!("1 to {LIMIT_MAX}")))
        });
        Ok(Self {
            contains: fields.get("contains").map(str::to_owned),
            reason: fields.get("reason").map(named).transpose()?,
            state: fields.get("state").map(state).transpose()?,
            target: target.transpose()?,
            from_ms: time("from").transpose()?,
            before_ms: time("before").transpose()?,
            after,
            limit: limit.transpose()?,
        })
    }

    /// Finds the next records.
    pub(in super::super) async fn find(
        &self,
        ledger: &AnyLedger,
        config: &Config,
    ) -> Result<FoundParked, LedgerError> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        ledger.find_parked(&self.filter(config), self.after.as_ref(), limit).await
    }

    pub(super) fn filter(&self, config: &Config) -> ParkedFilter {
        let takes = self.target.clone().map(|name| {
            let (routes, names): (Routes, Vec<String>) =
                (config.routes(), config.targets.iter().map(|target| target.name.clone()).collect());
            let takes = move |update_type: Option<&str>| {
                routes.find(update_type).and_then(|target| names.get(target.0)) == Some(&name)
            };
            Arc::new(takes) as Arc<dyn Fn(Option<&str>) -> bool + Send + Sync>
        });
        ParkedFilter {
            key_contains: self.contains.clone(),
            reason: self.reason,
            state: self.state,
            from_ms: self.from_ms,
            before_ms: self.before_ms,
            takes,
        }
    }

    /// The fields of the search, without where it goes on.
    pub(in super::super) fn fields(&self) -> Vec<(&'static str, String)> {
        let time = |ms: Option<i64>| ms.map(format_ms);
        [
            ("contains", self.contains.clone()),
            ("reason", self.reason.map(|reason| reason.name().to_owned())),
            ("state", self.state.map(|state| state.name().to_owned())),
            ("target", self.target.clone()),
            ("from", time(self.from_ms)),
            ("before", time(self.before_ms)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// The query of the same search, going on from here.
    pub(in super::super) fn query(&self, after: Option<&ParkedCursor>) -> String {
        let mut query = String::new();
        let after = after.into_iter().flat_map(|after| {
            [("after_ms", after.since_ms.to_string()), ("after_key", after.record_key.as_str().to_owned())]
        });
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        for (name, value) in self.fields().into_iter().chain(limit).chain(after) {
            let separator = if query.is_empty() { '?' } else { '&' };
            let _ = write!(query, "{separator}{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC));
        }
        query
    }

    /// For people, and for the list of changes.
    pub(in super::super) fn in_words(&self) -> String {
        let mut words = "parked records".to_owned();
        let mut add = |text: String| {
            let _ = write!(words, " {text}");
        };
        if let Some(part) = &self.contains {
            add(format!("whose key contains {part:?}"));
        }
        if let Some(reason) = self.reason {
            add(format!("of the reason {}", reason.name()));
        }
        if let Some(target) = &self.target {
            add(format!("of the target {target}"));
        }
        if let Some(from) = self.from_ms {
            add(format!("parked from {}", format_ms(from)));
        }
        if let Some(before) = self.before_ms {
            add(format!("parked before {}", format_ms(before)));
        }
        if self.fields().is_empty() { "all parked records".to_owned() } else { words }
    }
}

/// The reasons that a record can be parked for. It has the reason of its first parked update, so that none is "behind".
pub(in super::super) fn reasons() -> Vec<&'static str> {
    ParkKind::ALL.into_iter().filter(|kind| *kind != ParkKind::Behind).map(ParkKind::name).collect()
}

/// `2026-01-31T12:00:00Z`. What a browser's field for a time gives has neither zone nor, mostly, seconds.
fn parse_time(text: &str) -> Option<i64> {
    let text = if text.len() == "2026-01-31T12:00".len() { format!("{text}:00") } else { text.to_owned() };
    let time: SystemTime = humantime::parse_rfc3339_weak(&text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Purpose, TARGET_EXAMPLE};

    fn config() -> Config {
        let path = Path::new("lk.toml");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(path);
        std::fs::write(&path, TARGET_EXAMPLE).unwrap();
        crate::config::load(Some(&path), &Environment::default(), Purpose::Dispatch).unwrap().config
    }

    #[test]
    fn a_search_leads_to_itself() {
        let config = config();
        let query = "contains=a%2F%C3%BC+b%26&reason=rejected&state=parked&target=crm&from=2026-01-31T12:00&before=2026-02-01T00:00:00Z";
        let search = ParkedSearch::parse(&Fields::parse(query).unwrap(), &config).unwrap();
        assert_eq!(search.contains.as_deref(), Some("a/ü b&"));
        let words = "parked records whose key contains \"a/ü b&\" of the reason rejected of the target crm parked from \
            2026-01-31T12:00:00Z parked before 2026-02-01T00:00:00Z";
        assert_eq!(search.in_words(), words);
        let record_key = record_key("odd key?&=%").unwrap();
        let next = search.query(Some(&ParkedCursor { since_ms: 7, record_key: record_key.clone() }));
        let again = ParkedSearch::parse(&Fields::parse(&next[1..]).unwrap(), &config).unwrap();
        assert_eq!(again.fields(), search.fields());
        assert_eq!(again.after, Some(ParkedCursor { since_ms: 7, record_key }));
        assert_eq!(ParkedSearch::default().query(None), "");
        assert_eq!(ParkedSearch::default().in_words(), "all parked records");
    }

    #[test]
    fn a_field_that_is_not_understood_is_named() {
        let config = config();
        for (query, part) in [
            ("reason=behindhand", "`reason` is not understood: rejected, exhausted, conflict, id_reused"),
            ("state=open", "parked or releasing"),
            ("target=erp", "name a target"),
            ("from=yesterday", "2026-01-31T12:00:00Z"),
            ("limit=0", "1 to 500"),
            ("after_ms=x&after_key=a", "`after_ms`"),
        ] {
            let problem = ParkedSearch::parse(&Fields::parse(query).unwrap(), &config).unwrap_err();
            assert!(problem.detail().contains(part), "{query}: {}", problem.detail());
        }
    }
}
