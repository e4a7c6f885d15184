//! Shows the target who we are.
//!
//! A token of a token server is fetched once for all attempts (`tokens`): `token_cache` decides when, `token_request` builds the
//! request, and `token_answer` reads what comes back.

mod token_answer;
mod token_cache;
mod token_request;
mod tokens;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use self::token_cache::Token;
use self::token_request::TokenRequest;
use self::tokens::Tokens;
use super::connect::Connector;
use super::deadline::Deadline;
use crate::config::AuthConfig;
use lanekeeper_core::outcome::{Cause, Failure, Outcome};

/// What the requests of one target carry to show who sends them.
#[derive(Debug)]
pub(super) enum Authenticator {
    /// Nothing.
    None,
    /// The same header for every request.
    Header(HeaderName, HeaderValue),
    /// A token, as long as it is good.
    Token(Arc<Tokens>),
}

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    /// Nothing, or what never changes.
    Fixed,
    /// This token.
    Token(Token),
}

/// What there is to send after the target has refused a credential.
#[derive(Debug)]
pub(super) enum Renewal {
    /// Another credential: the request may be sent again.
    Renewed,
    /// The same as before: the target means what it says.
    Unchanged,
    /// Nothing: the outcome of the attempt.
    Failed(Outcome),
}

impl Authenticator {
    /// Asks nobody yet. `connector` opens the connections to a token server. `before`: the one with the same config, whose token
    /// is used on.
    pub(super) fn new(
        config: &AuthConfig,
        target: &str,
        connector: impl FnOnce() -> Connector,
        before: Option<&Self>,
    ) -> Self {
        let token = |request, connector| {
            let before = match before {
                Some(Self::Token(before)) => Some(before.as_ref()),
                _ => None,
            };
            Self::Token(Arc::new(Tokens::new(target, request, connector, before)))
        };
        if let Some((name, value)) = fixed_header(config) {
            return Self::Header(name, value);
        }
        match config {
            AuthConfig::None
            | AuthConfig::Bearer { .. }
            | AuthConfig::Basic { .. }
            | AuthConfig::Header { .. } => Self::None,
            AuthConfig::OAuth2(grant) => token(TokenRequest::ClientCredentials(grant.clone()), connector()),
            AuthConfig::JwtBearer(grant) => token(TokenRequest::JwtBearer(grant.clone()), connector()),
        }
    }

    /// Adds to the headers of a request what shows who we are.
    ///
    /// # Errors
    /// There is no credential now: the outcome of the attempt.
    pub(super) async fn authorize(
        &self,
        headers: &mut HeaderMap,
        deadline: &mut Deadline,
    ) -> Result<Credential, Outcome> {
        match self {
            Self::None => Ok(Credential::Fixed),
            Self::Header(name, value) => {
                headers.insert(name, value.clone());
                Ok(Credential::Fixed)
            }
            Self::Token(tokens) => {
                let token = match tokens.at_hand() {
                    Some(token) => token,
                    // Boxed: it is seldom, and every attempt would carry it.
                    None => Box::pin(tokens.wait(deadline)).await?,
                };
                headers.insert(AUTHORIZATION, token.header.clone());
                Ok(Credential::Token(token))
            }
        }
    }

    /// The target has refused this credential (401).
    pub(super) async fn renew(&self, refused: &Credential, deadline: &mut Deadline) -> Renewal {
        match (self, refused) {
            (Self::Token(tokens), Credential::Token(token)) => Box::pin(tokens.renew(token, deadline)).await,
            _ => Renewal::Unchanged,
        }
    }

    /// The target has applied an update with this credential.
    pub(super) fn accepted(&self, credential: &Credential) {
        if let (Self::Token(tokens), Credential::Token(token)) = (self, credential) {
            tokens.accepted(token);
        }
    }
}

/// The header that is the same for every request; `None`: there is none, or a token server gives its value.
pub(super) fn fixed_header(config: &AuthConfig) -> Option<(HeaderName, HeaderValue)> {
    match config {
        AuthConfig::None | AuthConfig::OAuth2(_) | AuthConfig::JwtBearer(_) => None,
        AuthConfig::Bearer { token } => {
            Some((AUTHORIZATION, sensitive(&format!("Bearer {}", token.reveal()))))
        }
        AuthConfig::Basic { user, password } => {
            Some((AUTHORIZATION, basic(user.reveal(), password.reveal())))
        }
        AuthConfig::Header { name, value } => {
            let name = HeaderName::try_from(name).expect("the config's check allows no other names");
            Some((name, sensitive(value.reveal())))
        }
    }
}

/// The outcome of an attempt that has nothing to show who we are.
fn no_credential(detail: String) -> Outcome {
    Outcome::Refused(Failure { cause: Cause::NoCredential, detail })
}

/// The outcome of an attempt that spent the time for connections on a token.
pub(super) fn came_too_late() -> Outcome {
    no_credential(
        "the token server took most of connect_timeout, and the rest was too short to connect".to_owned(),
    )
}

/// As RFC 7617, section 2, with UTF-8.
fn basic(user: &str, password: &str) -> HeaderValue {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn sensitive(value: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(value).expect("the config's check allows no other characters");
    value.set_sensitive(true);
    value
}
