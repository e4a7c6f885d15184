//! The keys of `[target.auth.oauth2]` and `[target.auth.jwt_bearer]`: what a token server is asked with.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;
use url::Url;

use super::signing_key::{ALGORITHMS, SigningKey};
use super::{AuthConfig, printable, secret};
use crate::config::fault::Problem;
use crate::config::mask;
use crate::config::parse::{choice, duration, text};
use crate::config::reader::{Section, Shape};
use lanekeeper_core::secret::{MASK, Secret};

/// `[target.auth.oauth2]`: the client credentials grant (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Where tokens are asked for.
    pub token_url: TokenUrl,
    /// The client's identifier.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// Where in a request the two are.
    pub send_secret: SendSecret,
    /// What the token is for; can be empty.
    pub scopes: Vec<String>,
    /// Who the token is for, a parameter that several servers have.
    pub audience: Option<String>,
    /// Further parameters of the request.
    pub extra: Vec<(String, Secret)>,
}

/// Where in a request the client's identifier and secret are (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendSecret {
    /// `Authorization: Basic` (`client_secret_basic`).
    Header,
    /// `client_id` and `client_secret` (`client_secret_post`).
    Body,
}

/// `[target.auth.jwt_bearer]`: an assertion as the grant (RFC 7523, section 2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct JwtBearer {
    /// Where tokens are asked for.
    pub token_url: TokenUrl,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`.
    pub audience: String,
    /// What signs the assertion.
    pub key: SigningKey,
    /// `kid` of the assertion's header.
    pub key_id: Option<String>,
    /// What the token is for; can be empty.
    pub scopes: Vec<String>,
    /// Further claims of the assertion.
    pub claims: Vec<(String, Json)>,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
}

/// The URL of a token server. Its query, which can have a secret, is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUrl(Url);

impl TokenUrl {
    /// With its query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The parsed URL.
    #[must_use]
    pub(in crate::config) const fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        f.write_str(&mask::url(shown.as_str()))
    }
}

impl fmt::Debug for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const SEND_SECRET: [(&str, SendSecret); 2] = [("header", SendSecret::Header), ("body", SendSecret::Body)];

/// Parameters that other keys set, or that this grant does not have.
const PARAMETERS: [&str; 6] = ["grant_type", "client_id", "client_secret", "scope", "audience", "assertion"];

/// Claims that other keys set.
const CLAIMS: [&str; 6] = ["iss", "sub", "aud", "iat", "exp", "jti"];

/// Of an assertion: a minute covers clocks that disagree a little, and more than an hour is refused by most servers.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(3600);

pub(super) fn client_credentials(mut section: Section<'_, '_>) -> Option<AuthConfig> {
    let token_url = section.read("token_url", token_url);
    let client_id = section.read("client_id", filled);
    let client_secret = section.read("client_secret", printable);
    let send_secret = section.read_or("send_secret", "header", choice(&SEND_SECRET));
    let scopes = section.each("scopes", Shape::List, |_, raw| scope(raw));
    let has_audience = section.has("audience");
    let audience = section.read_if_set("audience", filled);
    let extra = section.each("extra", Shape::Table, |name, raw| {
        let value = secret(raw)?;
        if PARAMETERS.contains(&name) {
            return Err(Problem::new(format!("the parameter {name:?} has a key of its own"), "leave it out"));
        }
        Ok((name.to_owned(), value))
    });
    section.finish();
    Some(AuthConfig::OAuth2(Box::new(ClientCredentials {
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        send_secret: send_secret?,
        scopes: scopes?,
        audience: if has_audience { Some(audience?) } else { None },
        extra: extra?,
    })))
}

pub(super) fn jwt_bearer(mut section: Section<'_, '_>) -> Option<AuthConfig> {
    let token_url = section.read("token_url", token_url);
    let issuer = section.read("issuer", filled);
    let subject = section.read_or("subject", issuer.as_deref().unwrap_or("-"), filled);
    let default = token_url.as_ref().map_or("-", TokenUrl::as_str).to_owned();
    let audience = section.read_or("audience", &default, |raw| {
        let audience = filled(raw)?;
        *raw = Json::from(mask::url(&audience));
        Ok(audience)
    });
    let pem = section.read("key", secret);
    let algorithm = section.read_or("algorithm", "RS256", choice(&ALGORITHMS));
    let key = pem.zip(algorithm).and_then(|(pem, algorithm)| {
        let key = SigningKey::new(pem, algorithm);
        key.map_err(|problem| section.fault("key", problem)).ok()
    });
    let has_key_id = section.has("key_id");
    let key_id = section.read_if_set("key_id", filled);
    let scopes = section.each("scopes", Shape::List, |_, raw| scope(raw));
    let claims = section.each("claims", Shape::Table, |name, raw| {
        if CLAIMS.contains(&name) {
            let what = format!("the claim {name:?} is set by another key, or for each assertion");
            return Err(Problem::new(what, "leave it out"));
        }
        Ok((name.to_owned(), raw.clone()))
    });
    let lifetime = section.read_or("lifetime", "5m", duration(LIFETIME));
    section.finish();
    Some(AuthConfig::JwtBearer(Box::new(JwtBearer {
        token_url: token_url?,
        issuer: issuer?,
        subject: subject?,
        audience: audience?,
        key: key?,
        key_id: if has_key_id { Some(key_id?) } else { None },
        scopes: scopes?,
        claims: claims?,
        lifetime: lifetime?,
    })))
}

/// Problems do not quote the URL: it may contain a secret.
fn token_url(raw: &mut Json) -> Result<TokenUrl, Problem> {
    let text = text(raw)?;
    *raw = Json::from(MASK);
    let fix = "write the URL at which the token server gives tokens, such as \"https://login.example/oauth2/token\"";
    let problem = |what: &str| Problem::new(what, fix);
    let url = Url::parse(&text).map_err(|error| problem(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(problem("is no URL of HTTP"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(problem("has a user or a password, which have keys of their own"));
    }
    if url.fragment().is_some() {
        return Err(problem("has a fragment (#…), which is never sent"));
    }
    *raw = Json::from(mask::url(url.as_str()));
    Ok(TokenUrl(url))
}

fn filled(raw: &mut Json) -> Result<String, Problem> {
    let value = text(raw)?;
    if value.is_empty() || value.contains(char::is_control) {
        return Err(Problem::new(
            "is empty, or has control characters",
            "write it as the API's documentation or its owner gives it",
        ));
    }
    Ok(value)
}

/// As RFC 6749, section 3.3 allows.
fn scope(raw: &mut Json) -> Result<String, Problem> {
    let scope = text(raw)?;
    let fit = |c: char| matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
    if scope.is_empty() || !scope.chars().all(fit) {
        return Err(Problem::new(
            format!("{scope:?} is not one scope"),
            "write each scope as an element of its own, without spaces: scopes = [\"read\", \"write\"]",
        ));
    }
    Ok(scope)
}
