//! Values with what their references stand for.

use std::collections::BTreeMap;

use figment::value::Value;
use serde_json::Value as Json;

use super::fault::{Origin, Problem};
use super::strings::Strings;

/// A value with its references replaced.
pub(super) struct ResolvedValue {
    pub(super) written: Json,
    /// With each reference masked instead.
    pub(super) masked: Json,
}

impl From<Json> for ResolvedValue {
    fn from(written: Json) -> Self {
        Self { masked: written.clone(), written }
    }
}

/// Adds to `secrets` what the references stand for.
pub(super) fn resolve(
    strings: &Strings<'_>,
    value: &Value,
    origin: &Origin,
    secrets: &mut Vec<String>,
) -> Result<ResolvedValue, Problem> {
    Ok(match value {
        Value::String(_, text) => {
            let resolved = strings.resolve(text, origin)?;
            secrets.extend(resolved.secrets.into_iter().filter(|secret| !is_public(secret)));
            ResolvedValue { written: Json::from(resolved.text), masked: Json::from(resolved.masked) }
        }
        Value::Char(_, char) => Json::from(char.to_string()).into(),
        Value::Bool(_, flag) => Json::from(*flag).into(),
        Value::Num(_, number) => match number.to_i128().and_then(|integer| i64::try_from(integer).ok()) {
            Some(integer) => Json::from(integer).into(),
            None => number
                .to_u128()
                .and_then(|integer| u64::try_from(integer).ok())
                .map_or_else(|| Json::from(number.to_f64()), Json::from)
                .into(),
        },
        Value::Array(_, values) => {
            let (mut written, mut masked) = (Vec::new(), Vec::new());
            for value in values {
                let resolved = resolve(strings, value, origin, secrets)?;
                written.push(resolved.written);
                masked.push(resolved.masked);
            }
            ResolvedValue { written: Json::Array(written), masked: Json::Array(masked) }
        }
        Value::Dict(_, dict) => {
            let (mut written, mut masked) = (BTreeMap::new(), BTreeMap::new());
            for (name, value) in dict {
                let resolved = resolve(strings, value, origin, secrets)?;
                written.insert(name.clone(), resolved.written);
                masked.insert(name.clone(), resolved.masked);
            }
            ResolvedValue {
                written: Json::Object(written.into_iter().collect()),
                masked: Json::Object(masked.into_iter().collect()),
            }
        }
        Value::Empty(..) => Json::Null.into(),
    })
}

/// Returns true for certificates: they are no secrets. In so much base64, any words of a fault are found.
fn is_public(text: &str) -> bool {
    text.contains("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY")
}
