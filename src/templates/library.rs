//! The filters and tests of templates that differ from those of minijinja.

use std::cmp::Ordering;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::impossible;
use super::json::{self, Exact};
use super::lint::Used;
use super::output::scalar;
use lanekeeper_core::template::encode_value;

/// Filters that could round a number, compare numbers by their kinds, or end the escaping of values.
const REMOVED: [&str; 14] = [
    "abs", "dictsort", "e", "escape", "float", "format", "groupby", "max", "min", "pprint", "round", "safe",
    "sort", "unique",
];

pub(super) fn add(environment: &mut Environment<'_>) {
    for name in REMOVED {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.add_filter("tojson", |value: Value| json::text_of(&value).map(Value::from_safe_string));
    environment.add_filter("urlencode", |value: Value| scalar(&value).map(|text| encode_value(&text)));
    environment.add_filter("int", int);
    for (names, accepts) in COMPARISONS {
        for name in names {
            environment.add_test(*name, move |a: Value, b: Value| compare(&a, &b, accepts));
        }
    }
}

/// Returns false if a filter or a test is not known. It is tried: the environment does not list its own.
pub(super) fn has(environment: &Environment<'_>, used: &Used) -> bool {
    let source = if used.is_filter {
        format!("{{{{ 1|{} }}}}", used.name)
    } else {
        format!("{{{{ 1 is {} }}}}", used.name)
    };
    let tried = environment.render_str(&source, ());
    !tried.is_err_and(|error| matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest))
}

type Accepts = fn(Ordering) -> bool;

/// Tests with all their names.
const COMPARISONS: [(&[&str], Accepts); 6] = [
    (&["eq", "equalto", "=="], Ordering::is_eq),
    (&["ne", "!="], Ordering::is_ne),
    (&["lt", "lessthan", "<"], Ordering::is_lt),
    (&["le", "<="], Ordering::is_le),
    (&["gt", "greaterthan", ">"], Ordering::is_gt),
    (&["ge", ">="], Ordering::is_ge),
];

/// Compares numbers exactly, whole ones and those with a fraction, and texts. Other values are equal or not.
fn compare(a: &Value, b: &Value, accepts: Accepts) -> Result<bool, Error> {
    if let (Some(a), Some(b)) = (Exact::of(a), Exact::of(b)) {
        return Ok(accepts(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(accepts(a.cmp(b)));
    }
    let is_equality = accepts(Ordering::Less) == accepts(Ordering::Greater);
    if is_equality {
        return Ok(accepts(if a == b { Ordering::Equal } else { Ordering::Less }));
    }
    Err(impossible("it compares values that are neither two numbers nor two texts"))
}

/// The whole number that a text says; a whole number as it is.
fn int(value: Value) -> Result<Value, Error> {
    let is_whole = value.kind() == ValueKind::Number && value.is_integer();
    let whole = value.as_str().and_then(|text| text.trim().parse::<i128>().ok());
    match whole {
        _ if is_whole => Ok(value),
        Some(whole) => Ok(Value::from(whole)),
        None => Err(impossible("int was asked for what is no whole number")),
    }
}
