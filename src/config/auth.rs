//! The keys of `[target.auth]`.

mod oauth2;
mod signing_key;

use std::collections::BTreeSet;

use serde_json::Value as Json;

pub use self::oauth2::{ClientCredentials, JwtBearer, SendSecret, TokenUrl};
pub use self::signing_key::{SigningFault, SigningKey};
use super::fault::Problem;
use super::parse::text;
use super::reader::Section;
use super::target::header_name;
use lanekeeper_core::secret::{MASK, Secret};

/// How requests show who sends them.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthConfig {
    /// Not at all, or with the target's `headers`.
    None,
    /// `Authorization: Bearer TOKEN` (RFC 6750).
    Bearer {
        /// The token.
        token: Secret,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// Without `:`. Secret, since some APIs take their key as the user's name.
        user: Secret,
        /// The password; can be empty.
        password: Secret,
    },
    /// A header of the API's own.
    Header {
        /// In lower case.
        name: String,
        /// Its value.
        value: Secret,
    },
    /// A token that a token server gives for the secret of a client (RFC 6749, section 4.4).
    OAuth2(Box<ClientCredentials>),
    /// A token that a token server gives for an assertion (RFC 7523, section 2.1).
    JwtBearer(Box<JwtBearer>),
}

impl AuthConfig {
    /// The header that it sets, in lower case.
    #[must_use]
    pub fn header_name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Header { name, .. } => Some(name),
            Self::Bearer { .. } | Self::Basic { .. } | Self::OAuth2(_) | Self::JwtBearer(_) => {
                Some(AUTHORIZATION)
            }
        }
    }
}

/// The header that carries what shows who we are, unless [`AuthConfig::Header`] names another one.
const AUTHORIZATION: &str = "authorization";

/// The keys, of which a target has one.
const KINDS: [&str; 5] = ["bearer", "basic", "header", "oauth2", "jwt_bearer"];

/// Reads `[target.auth]`; `None`: a fault was noted. `taken`: the headers that other keys of the target set, in lower case.
pub fn read(target: &mut Section<'_, '_>, taken: &BTreeSet<String>) -> Option<AuthConfig> {
    if !target.has("auth") {
        target.table("auth").finish();
        return Some(AuthConfig::None);
    }
    let mut section = target.table("auth");
    if !section.is_table() {
        return None;
    }
    let written: Vec<&str> = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
    let bearer = section.read_if_set("bearer", credential).map(|token| AuthConfig::Bearer { token });
    let basic = section.table_if_set("basic").and_then(basic);
    let header = section.table_if_set("header").and_then(header);
    let oauth2 = section.table_if_set("oauth2").and_then(oauth2::client_credentials);
    let jwt_bearer = section.table_if_set("jwt_bearer").and_then(oauth2::jwt_bearer);
    section.finish();
    if written.len() != 1 {
        let problem = match written.as_slice() {
            [] => Problem::new(
                format!("has none of {}", KINDS.join(", ")),
                "write one, such as bearer = \"file:PATH\", or leave [target.auth] out",
            ),
            several => Problem::new(
                format!("has {}, and requests carry one of them", several.join(" and ")),
                "keep one, and remove the others",
            ),
        };
        target.fault("auth", problem);
        return None;
    }
    let auth = bearer.or(basic).or(header).or(oauth2).or(jwt_bearer)?;
    let sets = auth.header_name().unwrap_or(AUTHORIZATION);
    if taken.contains(sets) {
        let what = format!("sets the header {sets:?}, which another key of this target sets too");
        target.fault("auth", Problem::new(what, "remove it from `headers` or `idempotency_header`"));
        return None;
    }
    Some(auth)
}

fn basic(mut section: Section<'_, '_>) -> Option<AuthConfig> {
    let user = section.read("user", |raw| {
        let user = printable(raw)?;
        if user.reveal().contains(':') {
            return Err(Problem::new(
                "has a \":\", which ends a user's name in HTTP (RFC 7617, section 2)",
                "write the name alone, and the password as `password`",
            ));
        }
        Ok(user)
    });
    let password = section.read("password", printable);
    section.finish();
    Some(AuthConfig::Basic { user: user?, password: password? })
}

fn header(mut section: Section<'_, '_>) -> Option<AuthConfig> {
    let name = section.read("name", |raw| header_name(&text(raw)?));
    let value = section.read("value", credential);
    section.finish();
    Some(AuthConfig::Header { name: name?, value: value? })
}

/// Any text without control characters. It is never shown.
fn printable(raw: &mut Json) -> Result<Secret, Problem> {
    let value = secret(raw)?;
    if value.reveal().contains(char::is_control) {
        return Err(Problem::new("has control characters, such as a line end", "remove them"));
    }
    Ok(value)
}

/// What a header can carry. It is never shown.
fn credential(raw: &mut Json) -> Result<Secret, Problem> {
    let value = secret(raw)?;
    let text = value.reveal();
    // All servers read these in the same way (RFC 9110, section 5.5).
    let fit = !text.is_empty() && text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if fit {
        Ok(value)
    } else {
        Err(Problem::new(
            "cannot be sent: it is empty, has spaces at an end, or characters other than printable ASCII",
            "write the token or key alone, as in \"file:/run/secrets/token\"",
        ))
    }
}

/// Any text. First of all it is masked, so that nothing can show it.
fn secret(raw: &mut Json) -> Result<Secret, Problem> {
    match std::mem::replace(raw, Json::from(MASK)) {
        Json::String(value) => Ok(Secret::new(value)),
        _ => Err(Problem::new("is not a string", "put it in quotes: \"…\"")),
    }
}
