//! Reads a config key by key. It collects all faults, and remembers the origin of every value.
//!
//! The keys that are read are the known ones; all others are faults.

#![expect(clippy::disallowed_types, reason = "figment has merged the layers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Value};
use serde_json::Value as Json;

use super::fault::{Fault, Faults, Origin, Problem};
use super::layers::{Environment, origin};
use super::mask;
use super::parse::format_duration;
use super::resolved::{ResolvedValue, resolve};
use super::source::FileStamp;
use super::strings::{Reference, Strings};
use lanekeeper_core::secret::MASK;

/// An effective value as it may be shown: secrets are masked.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Shown {
    /// `broker`, or `target[0]`.
    pub section: String,
    /// `url`.
    pub key: &'static str,
    /// The value; `***` for a secret.
    pub value: Json,
    /// Where it comes from.
    #[serde(serialize_with = "as_text")]
    pub origin: Origin,
    /// The value with what is masked.
    #[serde(skip)]
    pub exact: Exact,
}

/// A value that may have secrets: it can be compared, and is not printed.
#[derive(Clone, PartialEq)]
pub struct Exact(pub(super) Json);

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

fn as_text<S: serde::Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(origin)
}

/// The files that were read.
type Stamps = BTreeMap<PathBuf, FileStamp>;

/// Reads sections, and collects values and faults.
pub struct Reader<'a> {
    figment: &'a Figment,
    strings: Strings<'a>,
    root: Dict,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
    shown: Vec<Shown>,
    /// What references in values stand for.
    secrets: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of the merged layers.
    pub fn new(figment: &'a Figment, environment: &'a Environment) -> Self {
        let root = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
        Self {
            figment,
            strings: Strings::new(environment),
            root,
            known: Vec::new(),
            faults: Vec::new(),
            shown: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// Returns true if there is no `[[target]]`, and at least one `[[ingest.client]]` or `[[ingest.hook]]`.
    pub fn is_of_a_door_alone(&self) -> bool {
        let has = |dict: &Dict, name: &str| matches!(dict.get(name), Some(Value::Array(_, tables)) if !tables.is_empty());
        let ingest = self.root.get("ingest").and_then(Value::as_dict);
        let takes_updates = ingest.is_some_and(|ingest| has(ingest, "client") || has(ingest, "hook"));
        takes_updates && !self.root.contains_key("target")
    }

    /// The section `[name]`.
    pub fn section(&mut self, name: &'static str) -> Section<'_, 'a> {
        self.known.push(name);
        let value = self.root.get(name).cloned();
        self.table(name.to_owned(), value)
    }

    /// The number of `[[name]]`; `None`: a fault was noted.
    pub fn count(&mut self, name: &'static str) -> Option<usize> {
        self.known.push(name);
        match self.root.get(name) {
            None => Some(0),
            Some(Value::Array(_, tables)) => Some(tables.len()),
            Some(other) => {
                let origin = origin(self.figment, other.tag());
                let problem =
                    Problem::new("is not a list of tables", format!("write it in the file as [[{name}]]"));
                self.faults.push(Fault { key: name.to_owned(), origin, problem });
                None
            }
        }
    }

    /// The `[[name]]` at this index.
    pub fn element(&mut self, name: &'static str, index: usize) -> Section<'_, 'a> {
        let value =
            self.root.get(name).and_then(Value::as_array).and_then(|tables| tables.get(index)).cloned();
        self.table(format!("{name}[{index}]"), value)
    }

    /// The value with its references replaced, parsed, and what may be shown of it.
    fn parse<T>(
        &mut self,
        value: &Value,
        origin: &Origin,
        parse: impl FnOnce(&mut Json) -> Result<T, Problem>,
    ) -> Result<(T, Json), Problem> {
        let ResolvedValue { written, masked } = resolve(&self.strings, value, origin, &mut self.secrets)?;
        let mut json = written.clone();
        let parsed = parse(&mut json)?;
        Ok((parsed, mask::shown(json, &written, &masked)))
    }

    fn table(&mut self, path: String, value: Option<Value>) -> Section<'_, 'a> {
        let origin = value.as_ref().map_or(Origin::BuiltIn, |value| origin(self.figment, value.tag()));
        let dict = match value {
            Some(Value::Dict(_, dict)) => Some(dict),
            None => Some(Dict::new()),
            Some(_) => {
                let written: String = path.split(['[', ']']).step_by(2).collect();
                let problem =
                    Problem::new("is not a table", format!("write [{written}], and its keys below"));
                self.faults.push(Fault { key: path.clone(), origin: origin.clone(), problem });
                None
            }
        };
        Section { reader: self, path, dict, origin, known: Vec::new() }
    }

    /// Notes a fault that belongs to no key that was read.
    pub fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Returns `value` with all values to show and the files that were read, or all faults. Notes unknown sections. If `value` is `None`, there must be
    /// a fault.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Shown>, Stamps), Faults> {
        let root = std::mem::take(&mut self.root);
        unknown(&mut self.faults, self.figment, "", &root, &self.known);
        match value {
            Some(value) if self.faults.is_empty() => {
                Ok((value, self.shown, self.strings.files.into_stamps()))
            }
            _ => Err(Faults(self.faults)),
        }
    }
}

/// A section: one table of the config.
pub struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    path: String,
    /// `None`: it is not a table, and the fault was noted.
    dict: Option<Dict>,
    origin: Origin,
    known: Vec<&'static str>,
}

impl<'a> Section<'_, 'a> {
    /// Reads the value of a key; `None`: a fault was noted. `parse` gets what is written, with variables replaced, and
    /// leaves there what may be shown.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&mut Json) -> Result<T, Problem>,
    ) -> Option<T> {
        self.known.push(key);
        let Some(value) = self.dict.as_ref()?.get(key).cloned() else {
            let fix = format!("add `{key}`; config/default.toml explains it");
            self.fault(key, Problem::new("is missing", fix));
            return None;
        };
        let origin = origin(self.reader.figment, value.tag());
        let parsed = self.reader.parse(&value, &origin, parse);
        match parsed {
            Ok((parsed, json)) => {
                self.show(key, json, origin);
                Some(parsed)
            }
            Err(problem) => {
                self.note(key, origin, problem);
                None
            }
        }
    }

    /// As `read`, with a default for a missing key.
    pub fn read_or<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl FnOnce(&mut Json) -> Result<T, Problem>,
    ) -> Option<T> {
        if let Some(dict) = &mut self.dict {
            dict.entry(key.to_owned()).or_insert_with(|| Value::from(default));
        }
        self.read(key, parse)
    }

    /// The table `key` of this section; empty if it is missing.
    pub fn table(&mut self, key: &'static str) -> Section<'_, 'a> {
        self.known.push(key);
        let value = self.dict.as_ref().and_then(|dict| dict.get(key)).cloned();
        self.reader.table(format!("{}.{key}", self.path), value)
    }

    /// The number of `[[….key]]` of this section; `None`: a fault was noted.
    pub fn count(&mut self, key: &'static str) -> Option<usize> {
        self.known.push(key);
        match self.dict.as_ref()?.get(key) {
            None => Some(0),
            Some(Value::Array(_, tables)) => Some(tables.len()),
            Some(_) => {
                let written: String = self.path.split(['[', ']']).step_by(2).collect();
                let fix = format!("write it in the file as [[{written}.{key}]]");
                self.fault(key, Problem::new("is not a list of tables", fix));
                None
            }
        }
    }

    /// The `[[….key]]` at this index.
    pub fn element(&mut self, key: &'static str, index: usize) -> Section<'_, 'a> {
        let tables = self.dict.as_ref().and_then(|dict| dict.get(key)).and_then(Value::as_array);
        let value = tables.and_then(|tables| tables.get(index)).cloned();
        self.reader.table(format!("{}.{key}[{index}]", self.path), value)
    }

    /// As `table`; `None`: it is not written.
    pub fn table_if_set(&mut self, key: &'static str) -> Option<Section<'_, 'a>> {
        if self.has(key) {
            return Some(self.table(key));
        }
        self.known.push(key);
        None
    }

    /// Returns false if something else than a table is written, which was noted.
    pub const fn is_table(&self) -> bool {
        self.dict.is_some()
    }

    /// What the string of a key refers to.
    pub fn reference(&self, key: &str) -> Reference {
        let value = self.dict.as_ref().and_then(|dict| dict.get(key)).and_then(Value::as_str);
        value.map_or(Reference::None, Reference::of)
    }

    /// The entries of the table `key` whose strings refer to something.
    pub fn references(&self, key: &str) -> BTreeSet<String> {
        let table = self.dict.as_ref().and_then(|dict| dict.get(key)).and_then(Value::as_dict);
        let refers =
            |value: &Value| value.as_str().is_some_and(|text| Reference::of(text) != Reference::None);
        table.into_iter().flatten().filter(|(_, value)| refers(value)).map(|(name, _)| name.clone()).collect()
    }

    /// The text that is shown of a key that was read; empty: a fault was noted.
    pub fn shown(&self, key: &str) -> String {
        let mut shown = self.reader.shown.iter().rev();
        let found = shown.find(|shown| shown.section == self.path && shown.key == key);
        found.and_then(|shown| shown.value.as_str()).unwrap_or_default().to_owned()
    }

    /// Returns true if the key is written.
    pub fn has(&self, key: &str) -> bool {
        self.dict.as_ref().is_some_and(|dict| dict.contains_key(key))
    }

    /// Notes that there is such a key, which is not written.
    pub fn known<T>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        None
    }

    /// Returns true if it is a table without keys.
    pub fn is_empty(&self) -> bool {
        self.dict.as_ref().is_some_and(Dict::is_empty)
    }

    /// As `read`, for a key that may be left out; `None`: it is, or a fault was noted.
    pub fn read_if_set<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&mut Json) -> Result<T, Problem>,
    ) -> Option<T> {
        if self.has(key) {
            return self.read(key, parse);
        }
        self.known.push(key);
        None
    }

    /// Reads every element of a list or every entry of a table, each with its own faults; `None`: a fault was noted. `parse`
    /// gets the entry's name (in a list: empty) and its value. A missing key counts as empty.
    pub fn each<T>(
        &mut self,
        key: &'static str,
        shape: Shape,
        mut parse: impl FnMut(&str, &mut Json) -> Result<T, Problem>,
    ) -> Option<Vec<T>> {
        self.known.push(key);
        let Some(value) = self.dict.as_ref()?.get(key).cloned() else {
            return Some(Vec::new());
        };
        let whole = origin(self.reader.figment, value.tag());
        let entries: Vec<(String, Value)> = match (value, shape) {
            (Value::Array(_, values), Shape::List) => {
                values.into_iter().map(|value| (String::new(), value)).collect()
            }
            (Value::Dict(_, dict), Shape::Table) => dict.into_iter().collect(),
            _ => {
                self.note(key, whole, shape.problem(key));
                return None;
            }
        };
        let mut read = Vec::new();
        let mut sound = true;
        for (index, (name, value)) in entries.into_iter().enumerate() {
            let origin = origin(self.reader.figment, value.tag());
            let parsed = self.reader.parse(&value, &origin, |json| parse(&name, json));
            match parsed {
                Ok((parsed, json)) => read.push((parsed, (name, json))),
                Err(problem) => {
                    sound = false;
                    self.note(&shape.path(key, index, &name), origin, problem);
                }
            }
        }
        if !sound {
            return None;
        }
        let (parsed, shown): (Vec<T>, Vec<(String, Json)>) = read.into_iter().unzip();
        let shown = match shape {
            Shape::List => Json::Array(shown.into_iter().map(|(_, json)| json).collect()),
            Shape::Table => Json::Object(shown.into_iter().collect()),
        };
        self.show(key, shown, whole);
        Some(parsed)
    }

    /// Notes a fault of a key that was read.
    pub fn fault(&mut self, key: &'static str, problem: Problem) {
        let value = self.dict.as_ref().and_then(|dict| dict.get(key));
        let origin =
            value.map_or_else(|| self.origin.clone(), |value| origin(self.reader.figment, value.tag()));
        self.note(key, origin, problem);
    }

    /// Notes a fault if the duration of `key` is longer than that of `max_key`.
    pub fn at_most(
        &mut self,
        key: &'static str,
        value: Option<Duration>,
        max_key: &'static str,
        max: Option<Duration>,
    ) {
        if let (Some(value), Some(max)) = (value, max)
            && value > max
        {
            let (value, max) = (format_duration(value), format_duration(max));
            let what = format!("{value:?} is longer than {max_key} = {max:?}");
            self.fault(key, Problem::new(what, format!("shorten it, or raise {max_key}")));
        }
    }

    /// Replaces the value to show, such as an empty name by the host name.
    pub fn show_instead(&mut self, key: &'static str, value: &str, origin: Origin) {
        self.reader.shown.retain(|shown| !(shown.section == self.path && shown.key == key));
        self.show(key, Json::from(value), origin);
    }

    /// Notes unknown keys. Call it when all keys were read.
    pub fn finish(self) {
        let dict = self.dict.unwrap_or_default();
        unknown(&mut self.reader.faults, self.reader.figment, &self.path, &dict, &self.known);
    }

    fn note(&mut self, key: &str, origin: Origin, problem: Problem) {
        let problem = mask::problem(problem, &self.reader.secrets);
        self.reader.faults.push(Fault { key: format!("{}.{key}", self.path), origin, problem });
    }

    fn show(&mut self, key: &'static str, value: Json, origin: Origin) {
        let written = self.dict.as_ref().and_then(|dict| dict.get(key));
        let resolved =
            written.and_then(|value| resolve(&self.reader.strings, value, &origin, &mut Vec::new()).ok());
        let exact = Exact(resolved.map_or(Json::Null, |resolved| resolved.written));
        self.reader.shown.push(Shown { section: self.path.clone(), key, value, origin, exact });
    }
}

/// The kind of a key with many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `[a, b]`.
    List,
    /// `{ a = b }`.
    Table,
}

impl Shape {
    fn problem(self, key: &str) -> Problem {
        match self {
            Self::List => Problem::new("is not a list", format!("write {key} = [\"…\", \"…\"]")),
            Self::Table => Problem::new("is not a table", format!("write {key} = {{ name = \"value\" }}")),
        }
    }

    fn path(self, key: &str, index: usize, name: &str) -> String {
        match self {
            Self::List => format!("{key}[{index}]"),
            Self::Table => format!("{key}.{name}"),
        }
    }
}

fn unknown(faults: &mut Vec<Fault>, figment: &Figment, path: &str, dict: &Dict, known: &[&'static str]) {
    for (key, value) in dict.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
        let near = known
            .iter()
            .map(|known| (strsim::jaro_winkler(key, known), known))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        let fix = match near {
            Some((_, near)) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let (key, origin) = match path {
            "" => (key.clone(), origin(figment, first_leaf(value).tag())),
            path => (format!("{path}.{key}"), origin(figment, first_leaf(value).tag())),
        };
        faults.push(Fault { key, origin, problem: Problem::new("there is no such key", fix) });
    }
}

/// The first value of a table. If several layers have parts of a table, the origin of its first value says more.
fn first_leaf(value: &Value) -> &Value {
    match value {
        Value::Dict(_, dict) => dict.values().next().map_or(value, first_leaf),
        _ => value,
    }
}
