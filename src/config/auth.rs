//! The keys of `[target.auth]`.

use http::HeaderValue;
use serde_json::Value as Json;

use super::fault::Problem;
use super::parse::text;
use super::reader::Section;
use lanekeeper_core::secret::{MASK, Secret};

/// How requests show who sends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// Not at all, or with the target's `headers`.
    None,
    /// `Authorization: Bearer TOKEN` (RFC 6750).
    Bearer {
        /// The token.
        token: Secret,
    },
}

/// Reads `[target.auth]`; `None`: a fault was noted.
pub fn read(target: &mut Section<'_, '_>) -> Option<AuthConfig> {
    let is_set = target.has("auth");
    let mut section = target.table("auth");
    let bearer = section.read_if_set("bearer", token);
    let is_empty = is_set && !section.has("bearer");
    section.finish();
    if is_empty {
        target.fault(
            "auth",
            Problem::new("has no key", "write bearer = \"file:PATH\", or leave [target.auth] out"),
        );
    }
    match bearer {
        Some(token) => Some(AuthConfig::Bearer { token }),
        None => (!is_set).then_some(AuthConfig::None),
    }
}

/// A credential: what a header can carry. It is never shown.
fn token(raw: &mut Json) -> Result<Secret, Problem> {
    let token = text(raw)?;
    *raw = Json::from(MASK);
    let fit = !token.is_empty() && token.trim() == token && HeaderValue::from_str(&token).is_ok();
    if fit {
        Ok(Secret::new(token))
    } else {
        Err(Problem::new(
            "is not a token that can be sent",
            "write the token alone, as in \"file:/run/secrets/token\"",
        ))
    }
}
