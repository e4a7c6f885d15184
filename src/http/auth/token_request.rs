//! The requests that ask a token server for a token.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use serde_json::{Map, Value as Json, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::sensitive;
use crate::config::{ClientCredentials, JwtBearer, SendSecret, TokenUrl};

/// What a token is asked for with.
#[derive(Debug)]
pub(super) enum TokenRequest {
    /// The secret of a client.
    ClientCredentials(Box<ClientCredentials>),
    /// An assertion that is signed for each request.
    JwtBearer(Box<JwtBearer>),
}

/// A request, and what its answer must not make us show.
pub(super) struct PendingRequest {
    pub(super) request: Request<Bytes>,
    pub(super) secrets: Vec<String>,
}

impl TokenRequest {
    pub(super) fn url(&self) -> &TokenUrl {
        match self {
            Self::ClientCredentials(grant) => &grant.token_url,
            Self::JwtBearer(grant) => &grant.token_url,
        }
    }

    /// # Errors
    /// Why there is no request, in words.
    pub(super) fn prepare(&self, now: SystemTime) -> Result<PendingRequest, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let (authorization, scopes, secrets) = match self {
            Self::ClientCredentials(grant) => {
                form.append_pair("grant_type", "client_credentials");
                let (authorization, secrets) = authenticate(grant, &mut form);
                if let Some(audience) = &grant.audience {
                    form.append_pair("audience", audience);
                }
                for (name, value) in &grant.extra {
                    form.append_pair(name, value.reveal());
                }
                (authorization, &grant.scopes, secrets)
            }
            Self::JwtBearer(grant) => {
                let assertion = assertion(grant, now)?;
                form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                form.append_pair("assertion", &assertion);
                (None, &grant.scopes, vec![assertion])
            }
        };
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes.join(" "));
        }
        let mut request = Request::new(Bytes::from(form.finish()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            self.url().as_str().parse().map_err(|_| "token_url is not valid in HTTP".to_owned())?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("lanekeeper/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(PendingRequest { request, secrets })
    }
}

/// Adds identifier and secret of the client to the form, or returns them as a header.
fn authenticate(
    grant: &ClientCredentials,
    form: &mut form_urlencoded::Serializer<'_, String>,
) -> (Option<HeaderValue>, Vec<String>) {
    let (id, secret) = (grant.client_id.as_str(), grant.client_secret.reveal());
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let mut secrets = vec![secret.to_owned(), encoded(secret)];
    secrets.extend(grant.extra.iter().map(|(_, value)| value.reveal().to_owned()));
    match grant.send_secret {
        SendSecret::Body => {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
            (None, secrets)
        }
        // RFC 6749, section 2.3.1: both are form-encoded first.
        SendSecret::Header => {
            let credentials = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
            let header = sensitive(&format!("Basic {credentials}"));
            secrets.push(credentials);
            (Some(header), secrets)
        }
    }
}

/// A JWT (RFC 7523, section 3) in the compact form of JWS (RFC 7515, section 7.1).
fn assertion(grant: &JwtBearer, now: SystemTime) -> Result<String, String> {
    let issued_at = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| "this machine's clock is before 1970, and an assertion needs the time".to_owned())?
        .as_secs();
    let mut header = json!({ "alg": grant.key.algorithm(), "typ": "JWT" });
    if let Some(key_id) = &grant.key_id {
        header["kid"] = Json::from(key_id.as_str());
    }
    let mut claims: Map<String, Json> = grant.claims.iter().cloned().collect();
    claims.extend([
        ("iss".to_owned(), Json::from(grant.issuer.as_str())),
        ("sub".to_owned(), Json::from(grant.subject.as_str())),
        ("aud".to_owned(), Json::from(grant.audience.as_str())),
        ("iat".to_owned(), Json::from(issued_at)),
        ("exp".to_owned(), Json::from(issued_at + grant.lifetime.as_secs())),
        ("jti".to_owned(), Json::from(Uuid::new_v4().to_string())),
    ]);
    let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(&header), part(&Json::Object(claims)));
    let signature = grant.key.sign(message.as_bytes()).map_err(|fault| fault.to_string())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests;
