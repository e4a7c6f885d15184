//! Merges the three layers of the config: the environment over the file over the built-in defaults.

#![expect(clippy::disallowed_types, reason = "figment merges the layers")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::fault::{Fault, Faults, Origin, Problem};

/// The defaults and the reference of all keys, built into the program.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

const PREFIX: &str = "LANEKEEPER_";
const SEPARATOR: &str = "__";

/// A copy of the environment variables.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, OsString>);

/// Why a variable cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableFault {
    /// It is not set.
    #[error("is not set")]
    Missing,
    /// It is not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    /// The variable's value.
    ///
    /// # Errors
    /// It is not set, or not UTF-8.
    pub fn text(&self, name: &str) -> Result<&str, VariableFault> {
        self.0.get(name).ok_or(VariableFault::Missing)?.to_str().ok_or(VariableFault::NotUtf8)
    }

    /// The variables that are config keys, with their sections and key.
    fn keys(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.0.keys().filter_map(|name| {
            let path = name.strip_prefix(PREFIX)?;
            path.contains(SEPARATOR)
                .then(|| (name.as_str(), path.split(SEPARATOR).map(str::to_ascii_lowercase).collect()))
        })
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Values with one origin, as a provider of figment.
struct Layer {
    origin: Origin,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let named = Metadata::named(self.origin.to_string());
        match &self.origin {
            Origin::File(path) => named.source(Source::File(path.clone())),
            Origin::Variable(name) => named.source(Source::Custom(name.clone())),
            Origin::BuiltIn | Origin::HostName => named,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Merges the layers. `file` is its path and content.
///
/// # Errors
/// The file is not TOML, or a variable is not UTF-8. Other faults are not looked for then.
pub fn merge(file: Option<(&Path, &str)>, environment: &Environment) -> Result<Figment, Faults> {
    let built_in = parse(DEFAULT_TOML).expect("config/default.toml is TOML");
    let mut figment = Figment::from(Layer { origin: Origin::BuiltIn, values: built_in });
    let mut faults = Vec::new();
    if let Some((path, text)) = file {
        let origin = Origin::File(path.to_owned());
        match parse(text) {
            Ok(values) => figment = figment.merge(Layer { origin, values }),
            Err(problem) => faults.push(Fault { key: String::new(), origin, problem }),
        }
    }
    for (name, path) in environment.keys() {
        let origin = Origin::Variable(name.to_owned());
        match environment.text(name) {
            Ok(text) => figment = figment.merge(Layer { origin, values: nest(&path, text) }),
            Err(fault) => {
                let problem = Problem::new(format!("the value {fault}"), "set it to text, or unset it");
                faults.push(Fault { key: path.join("."), origin, problem });
            }
        }
    }
    if faults.is_empty() { Ok(figment) } else { Err(Faults(faults)) }
}

/// Finds variables with one underscore instead of two between section and key, such as `LANEKEEPER_BROKER_URL`. Without
/// this fault they would be silently ignored.
pub fn near_misses(environment: &Environment) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (section, keys) in &parse(DEFAULT_TOML).expect("config/default.toml is TOML") {
        for key in keys.as_dict().into_iter().flat_map(Dict::keys) {
            let variable =
                |separator: &str| format!("{PREFIX}{section}{separator}{key}").to_ascii_uppercase();
            let name = variable("_");
            if environment.0.contains_key(&name) {
                let problem = Problem::new(
                    "the variable has one underscore between section and key, and is not read",
                    format!("name it {}", variable(SEPARATOR)),
                );
                faults.push(Fault {
                    key: format!("{section}.{key}"),
                    origin: Origin::Variable(name),
                    problem,
                });
            }
        }
    }
    faults
}

/// The origin of a value with this tag.
pub fn origin(figment: &Figment, tag: Tag) -> Origin {
    match figment.get_metadata(tag).and_then(|metadata| metadata.source.clone()) {
        Some(Source::File(path)) => Origin::File(path),
        Some(Source::Custom(variable)) => Origin::Variable(variable),
        _ => Origin::BuiltIn,
    }
}

/// Parses TOML. A problem says where the fault is, without quoting the line as the TOML parser does: it may hold a secret.
fn parse(text: &str) -> Result<Dict, Problem> {
    <Toml as Format>::from_str(text).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Problem::new(
            format!("line {line}, column {column}: {}", error.message().replace('\n', ", ")),
            "correct the TOML there; the other keys are checked after that",
        )
    })
}

fn nest(path: &[String], text: &str) -> Dict {
    let (key, rest) = path.split_first().expect("a variable with a separator has two parts");
    let value = match rest {
        [] => Value::from(text),
        rest => Value::from(nest(rest, text)),
    };
    Dict::from([(key.clone(), value)])
}
