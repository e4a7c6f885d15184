//! What becomes of an update with a config, without a broker and without a target: for `try` and `test`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use lanekeeper_broker::Decoder;
use lanekeeper_broker::publisher::{as_received, json_line};
use lanekeeper_core::secret::MASK;
use lanekeeper_core::update::Update;
use lanekeeper_ledger::StoredUpdate;

use crate::config::Loaded;
use crate::http::preview::{Preview, Previews};
use crate::http::{Attempt, SendGuard};

/// A config, ready to be asked.
pub(super) struct Rehearsal {
    pub(super) previews: Previews,
    decoder: Decoder,
}

impl Rehearsal {
    /// # Errors
    /// In words: a setting is not valid in HTTP.
    pub(super) fn new(Loaded { config, shown, .. }: &Loaded) -> Result<Self, String> {
        let previews = Previews::new(&config.targets, shown).map_err(|fault| fault.to_string())?;
        let decoder = Decoder {
            routes: config.routes(),
            require_id: config.updates.require_id,
            body_bytes_max: config.updates.body_bytes_max,
        };
        Ok(Self { previews, decoder })
    }

    /// The update that a line of `lanekeeper publish` becomes, published now.
    ///
    /// # Errors
    /// In words: it is no update, or it would be dead-lettered.
    pub(super) fn update(&self, line: &[u8]) -> Result<Arc<Update>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let outgoing = json_line::parse(line, self.decoder.body_bytes_max, now)
            .map_err(|bad| format!("this is no update: {bad}; `lanekeeper publish --help` has the format"))?;
        as_received(&outgoing, &self.decoder)
            .map_err(|malformed| format!("this update would be dead-lettered: {malformed}"))
    }
}

impl Rehearsal {
    /// A parked update, for the target of now; `None`: no target takes it.
    pub(super) fn restored(&self, stored: StoredUpdate) -> Option<Update> {
        let target = self.decoder.routes.find(stored.update_type.as_deref())?;
        Some(stored.into_update(target))
    }
}

/// An attempt that nobody makes.
pub(super) fn attempt(update: Arc<Update>, number: u32, etag: Option<String>) -> Attempt {
    Attempt { update, number, tenure: None, etag, send_guard: SendGuard::always(), trace: None }
}

/// A header's value as it may be shown.
pub(super) fn shown(value: &HeaderValue) -> &str {
    if value.is_sensitive() { MASK } else { value.to_str().unwrap_or(MASK) }
}

/// The request as text: its first line, its headers, and its body if that is text.
pub(super) fn as_text(Preview { request, shown_url, .. }: &Preview) -> String {
    let mut text = format!("{} {shown_url}\n", request.method());
    for (name, value) in sorted(request.headers()) {
        let _ = writeln!(text, "{name}: {}", shown(value));
    }
    match std::str::from_utf8(request.body()) {
        Ok("") => {}
        Ok(body) => drop(writeln!(text, "\n{}", body.trim_end_matches('\n'))),
        Err(_) => drop(writeln!(text, "\n({} bytes that are no text)", request.body().len())),
    }
    text
}

/// In the order of their names, so that two requests can be compared.
fn sorted(headers: &HeaderMap) -> Vec<(&str, &HeaderValue)> {
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    headers.sort_by_key(|(name, _)| *name);
    headers
}
