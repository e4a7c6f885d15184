//! What a template sees of an update.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::Value;
use minijinja::value::{Enumerator, Object};

use super::json;
use crate::wall_time::format_seconds;
use lanekeeper_core::update::Update;

/// The names that templates may use.
const NAMES: [&str; 10] = [
    "record_key",
    "update_id",
    "update_type",
    "version",
    "headers",
    "published_at",
    "time",
    "attempt",
    "content_type",
    "body",
];

/// An update and the number of its attempt. Its body is parsed if a template looks at it, once for all templates.
struct UpdateContext {
    update: Arc<Update>,
    attempt: u32,
    body: OnceLock<Value>,
}

/// The context of templates for an attempt.
pub fn context_of(update: &Arc<Update>, attempt: u32) -> Value {
    Value::from_object(UpdateContext { update: Arc::clone(update), attempt, body: OnceLock::new() })
}

impl fmt::Debug for UpdateContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpdateContext({:?})", self.update)
    }
}

impl Object for UpdateContext {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        let update = &*self.update;
        match name {
            "record_key" => Some(Value::from(update.record_key.as_str())),
            "update_id" => Some(Value::from(update.id.as_str())),
            "update_type" => update.update_type.as_deref().map(Value::from),
            "version" => update.version.map(Value::from),
            "headers" => {
                let pairs =
                    update.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
                Some(Value::from(pairs.collect::<BTreeMap<String, Value>>()))
            }
            "published_at" => update.published_at.map(Value::from),
            "time" => update.published_at.map(|seconds| Value::from(format_seconds(seconds))),
            "attempt" => Some(Value::from(self.attempt)),
            "content_type" => update.content_type.as_deref().map(Value::from),
            "body" => {
                Some(self.body.get_or_init(|| json::parse(&update.body).unwrap_or_else(Value::from)).clone())
            }
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&NAMES)
    }
}
