//! The body of an update as values of a template, and values as JSON, without changing a digit of a number.
//!
//! A list or an object keeps its text, and is taken apart when a template looks into it: put out as a whole, it is
//! what the publisher wrote. An integer is one of minijinja; any other number keeps its text, and only its text is put out.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, OnceLock};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::impossible;
use super::output::ROUNDED;

/// Longest body that a template can look into, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Lists and objects within each other.
const DEPTH_MAX: usize = 128;

/// A number that is not a whole one of 128 bits, as it was written.
#[derive(Debug)]
pub(super) struct Decimal(Box<str>);

impl Decimal {
    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl Object for Decimal {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !Exact::new(&self.0).digits.is_empty()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(Exact::new(&self.0).cmp(&Exact::new(other.downcast_ref::<Self>()?.text())))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A decimal number: the sign, and `0.DIGITS` times ten to the power of `exponent`. Zero has no digits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exact {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Exact {
    /// Of a number as JSON writes it.
    pub(super) fn new(text: &str) -> Self {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let leading = i64::try_from(all.len() - digits.len()).unwrap_or(i64::MAX);
        let whole = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        let negative = exponent.starts_with('-');
        let power = exponent.parse().unwrap_or(if negative { i64::MIN / 4 } else { i64::MAX / 4 });
        let exponent: i64 = whole.saturating_sub(leading).saturating_add(power);
        let digits = digits.trim_end_matches('0').to_owned();
        match digits.as_str() {
            "" => Self { is_negative: false, digits, exponent: 0 },
            _ => Self { is_negative, digits, exponent },
        }
    }

    /// Of a value; `None`: it is no number, or one that may be rounded.
    pub(super) fn of(value: &Value) -> Option<Self> {
        if let Some(decimal) = value.downcast_object_ref::<Decimal>() {
            return Some(Self::new(decimal.text()));
        }
        value.is_integer().then(|| Self::new(&value.to_string()))
    }

    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = || self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        match (sign(self), sign(other)) {
            (a, b) if a != b => a.cmp(&b),
            (0, _) => Ordering::Equal,
            (1, _) => size(),
            _ => size().reverse(),
        }
    }
}

/// A list or an object with its text.
struct Node {
    text: Arc<str>,
    start: usize,
    end: usize,
    children: OnceLock<Children>,
}

enum Children {
    List(Vec<Value>),
    Object { order: Vec<Value>, values: HashMap<String, Value> },
}

impl Node {
    fn raw(&self) -> &str {
        &self.text[self.start..self.end]
    }

    fn is_list(&self) -> bool {
        self.raw().starts_with('[')
    }

    fn children(&self) -> &Children {
        self.children.get_or_init(|| {
            let value = |raw: &RawValue| value_of(&self.text, raw.get());
            if self.is_list() {
                let raw: Vec<&RawValue> = serde_json::from_str(self.raw()).unwrap_or_default();
                return Children::List(raw.into_iter().map(value).collect());
            }
            let Pairs(raw) = serde_json::from_str(self.raw()).unwrap_or_default();
            // Of equal names, the last counts, as with most parsers.
            let mut values = HashMap::with_capacity(raw.len());
            let mut order = Vec::with_capacity(raw.len());
            for (name, raw) in raw {
                if values.insert(name.clone(), value(raw)).is_none() {
                    order.push(Value::from(name));
                }
            }
            Children::Object { order, values }
        })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} bytes)", self.end - self.start)
    }
}

impl Object for Node {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.is_list() { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match self.children() {
            Children::List(values) => values.get(key.as_usize()?).cloned(),
            Children::Object { values, .. } => values.get(key.as_str()?).cloned(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.children() {
            Children::List(values) => Enumerator::Seq(values.len()),
            Children::Object { order, .. } => Enumerator::Values(order.clone()),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.raw())
    }
}

/// The members of an object, in their order.
#[derive(Default)]
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// The body of an update as a value.
///
/// # Errors
/// It is not JSON, or exceeds a bound.
pub(super) fn parse(body: &[u8]) -> Result<Value, Error> {
    if body.len() > BODY_BYTES_MAX {
        return Err(impossible(
            "the update's body is longer than 1 MiB, which is what a template can look into",
        ));
    }
    let text = std::str::from_utf8(body).map_err(|_| impossible("the update's body is not JSON"))?;
    if depth(text) > DEPTH_MAX {
        return Err(impossible("the update's body has more than 128 lists and objects within each other"));
    }
    let text: Arc<str> = Arc::from(text);
    let raw: &RawValue =
        serde_json::from_str(&text).map_err(|_| impossible("the update's body is not JSON"))?;
    Ok(value_of(&text, raw.get()))
}

/// The value of a part of a text, which is valid JSON.
fn value_of(text: &Arc<str>, part: &str) -> Value {
    match part.as_bytes().first() {
        Some(b'n') => Value::from(()),
        Some(b't') => Value::from(true),
        Some(b'f') => Value::from(false),
        Some(b'"') => serde_json::from_str::<String>(part).map_or_else(
            |_| Value::from(impossible("a text of the update's body is not Unicode")),
            Value::from,
        ),
        Some(b'{' | b'[') => {
            let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
            let end = start + part.len();
            debug_assert_eq!(text.get(start..end), Some(part), "a part of the text itself, not of a copy");
            Value::from_object(Node { text: Arc::clone(text), start, end, children: OnceLock::new() })
        }
        _ => match part.parse::<i128>() {
            Ok(whole) if part != "-0" => Value::from(whole),
            _ => Value::from_object(Decimal(part.into())),
        },
    }
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value as JSON.
///
/// # Errors
/// It has no exact JSON.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write(&mut text, value, 0)?;
    Ok(text)
}

fn write(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(impossible("a value has more than 128 lists and objects within each other"));
    }
    if let Some(decimal) = value.downcast_object_ref::<Decimal>() {
        out.push_str(decimal.text());
        return Ok(());
    }
    if let Some(node) = value.downcast_object_ref::<Node>() {
        out.push_str(node.raw());
        return Ok(());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => drop(write!(out, "{value}")),
        ValueKind::Number => return Err(impossible(ROUNDED)),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, name) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push(',');
                }
                let text = name.as_str().ok_or_else(|| impossible("a name in an object is no text"))?;
                write_text(out, text);
                out.push(':');
                write(out, &value.get_item(&name)?, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Undefined => return Err(impossible("a value that it needs is not there")),
        _ => return Err(impossible("a value has no JSON")),
    }
    Ok(())
}

fn write_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
