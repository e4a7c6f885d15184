//! Shows the target who we are.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::config::AuthConfig;
use lanekeeper_core::outcome::Outcome;

/// What the requests of one target carry to show who sends them.
#[derive(Debug)]
pub(super) enum Authenticator {
    /// Nothing.
    None,
    /// The same header for every request.
    Header(HeaderName, HeaderValue),
}

impl Authenticator {
    /// Asks nobody yet.
    pub(super) fn new(config: &AuthConfig) -> Self {
        match config {
            AuthConfig::None => Self::None,
            AuthConfig::Bearer { token } => {
                let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
                let mut value = value.expect("the config's check allows no other characters");
                value.set_sensitive(true);
                Self::Header(AUTHORIZATION, value)
            }
        }
    }

    /// Adds to the headers of a request what shows who we are.
    ///
    /// # Errors
    /// There is no credential now: the outcome of the attempt.
    #[expect(clippy::unused_async, reason = "kinds that fetch a token wait for it")]
    pub(super) async fn authorize(&self, headers: &mut HeaderMap) -> Result<(), Outcome> {
        if let Self::Header(name, value) = self {
            headers.insert(name, value.clone());
        }
        Ok(())
    }

    /// The target has refused what the request carried (401). Returns true if there is another credential now.
    #[expect(clippy::unused_async, reason = "kinds that fetch a token wait for it")]
    pub(super) async fn renew(&self) -> bool {
        false
    }
}
