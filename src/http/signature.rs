//! Signs requests. It comes last: what it signs is what is sent.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Request;
use http::header::{HeaderName, HeaderValue};
use ring::hmac;
use ring::signature::Ed25519KeyPair;

use crate::config::{
    HmacConfig, Part, Placeholder, SignatureConfig, SignatureEncoding, SignatureHash, SignatureTemplate,
    TimestampUnit, WebhookKey,
};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Signs the requests of one target.
#[derive(Debug)]
pub(super) enum Signer {
    /// Does nothing.
    None,
    /// As Standard Webhooks says.
    Webhooks(Vec<Key>),
    /// With a header of the target's own.
    Hmac(Box<HmacSigner>),
}

#[derive(Debug)]
pub(super) enum Key {
    Symmetric(hmac::Key),
    Ed25519(Ed25519KeyPair),
}

#[derive(Debug)]
pub(super) struct HmacSigner {
    header: HeaderName,
    timestamp_header: Option<HeaderName>,
    keys: Vec<hmac::Key>,
    config: HmacConfig,
}

impl Signer {
    pub(super) fn new(config: &SignatureConfig) -> Self {
        match config {
            SignatureConfig::None => Self::None,
            SignatureConfig::StandardWebhooks(keys) => Self::Webhooks(keys.iter().map(key).collect()),
            SignatureConfig::Hmac(config) => {
                let hash = match config.hash {
                    SignatureHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    SignatureHash::Sha256 => hmac::HMAC_SHA256,
                    SignatureHash::Sha512 => hmac::HMAC_SHA512,
                };
                let name = |name: &str| {
                    HeaderName::from_bytes(name.as_bytes()).expect("the config's check allows no other name")
                };
                Self::Hmac(Box::new(HmacSigner {
                    header: name(&config.header),
                    timestamp_header: config.timestamp_header.as_deref().map(name),
                    keys: config.keys.iter().map(|key| hmac::Key::new(hash, key.reveal())).collect(),
                    config: config.clone(),
                }))
            }
        }
    }

    /// Adds the headers of the signature to a request that has all others. `now` is the time of the attempt.
    ///
    /// # Errors
    /// The update's id cannot be sent in a header, in words.
    pub(super) fn sign(
        &self,
        request: &mut Request<Bytes>,
        update_id: &str,
        now: SystemTime,
    ) -> Result<(), String> {
        // A clock before 1970 makes signatures that no target accepts, which shows what is wrong.
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        match self {
            Self::None => Ok(()),
            Self::Webhooks(keys) => sign_webhook(keys, request, update_id, since_1970.as_secs()),
            Self::Hmac(signer) => {
                signer.sign(request, update_id, since_1970);
                Ok(())
            }
        }
    }
}

fn key(key: &WebhookKey) -> Key {
    match key {
        WebhookKey::Symmetric(key) => Key::Symmetric(hmac::Key::new(hmac::HMAC_SHA256, key.reveal())),
        WebhookKey::Ed25519(seed) => Key::Ed25519(
            Ed25519KeyPair::from_seed_unchecked(seed.reveal()).expect("the config's check has made it once"),
        ),
    }
}

/// Standard Webhooks, "Signature scheme" and "Webhook headers".
fn sign_webhook(
    keys: &[Key],
    request: &mut Request<Bytes>,
    update_id: &str,
    timestamp: u64,
) -> Result<(), String> {
    let id = HeaderValue::from_str(update_id).ok().filter(|id| id.to_str().is_ok());
    let id = id.ok_or("the update id is not valid in the header webhook-id; nothing was sent")?;
    let before_body = format!("{update_id}.{timestamp}.");
    let mut signatures = String::new();
    for key in keys {
        let separator = if signatures.is_empty() { "" } else { " " };
        let (version, signature) = match key {
            Key::Symmetric(key) => {
                let mut hmac = hmac::Context::with_key(key);
                hmac.update(before_body.as_bytes());
                hmac.update(request.body());
                ("v1", BASE64.encode(hmac.sign()))
            }
            Key::Ed25519(key) => {
                let content = [before_body.as_bytes(), request.body()].concat();
                ("v1a", BASE64.encode(key.sign(&content)))
            }
        };
        let _ = write!(signatures, "{separator}{version},{signature}");
    }
    let headers = request.headers_mut();
    headers.insert(WEBHOOK_ID, id);
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(WEBHOOK_SIGNATURE, header_value(&signatures));
    Ok(())
}

impl HmacSigner {
    fn sign(&self, request: &mut Request<Bytes>, update_id: &str, since_1970: Duration) {
        let config = &self.config;
        let timestamp = match config.timestamp_unit {
            TimestampUnit::Seconds => u128::from(since_1970.as_secs()),
            TimestampUnit::Milliseconds => since_1970.as_millis(),
        }
        .to_string();
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let mut hmac = hmac::Context::with_key(key);
                each_part(
                    &config.content,
                    |placeholder| part(placeholder, request, update_id, &timestamp),
                    |part| {
                        hmac.update(part);
                    },
                );
                encode(config.encoding, hmac.sign().as_ref())
            })
            .collect();
        let signatures = signatures.join(&config.separator);
        let mut value = Vec::new();
        let of_value = |placeholder| match placeholder {
            Placeholder::Signature => signatures.as_bytes(),
            other => part(other, request, update_id, &timestamp),
        };
        each_part(&config.value, of_value, |part| value.extend_from_slice(part));
        let value = header_value(&String::from_utf8_lossy(&value));
        let headers = request.headers_mut();
        headers.insert(&self.header, value);
        if let Some(name) = &self.timestamp_header {
            headers.insert(name, header_value(&timestamp));
        }
    }
}

/// Hands each part of a template to `take`, in their order.
fn each_part<'a>(
    template: &'a SignatureTemplate,
    of: impl Fn(Placeholder) -> &'a [u8],
    mut take: impl FnMut(&'a [u8]),
) {
    for part in template.parts() {
        take(match part {
            Part::Text(text) => text.as_bytes(),
            Part::Placeholder(placeholder) => of(*placeholder),
        });
    }
}

fn part<'a>(
    placeholder: Placeholder,
    request: &'a Request<Bytes>,
    update_id: &'a str,
    timestamp: &'a str,
) -> &'a [u8] {
    match placeholder {
        Placeholder::Body => request.body(),
        Placeholder::Timestamp => timestamp.as_bytes(),
        Placeholder::UpdateId => update_id.as_bytes(),
        Placeholder::Method => request.method().as_str().as_bytes(),
        Placeholder::Path => request.uri().path().as_bytes(),
        Placeholder::Query => request.uri().query().unwrap_or_default().as_bytes(),
        Placeholder::Signature => &[],
    }
}

fn encode(encoding: SignatureEncoding, bytes: &[u8]) -> String {
    match encoding {
        SignatureEncoding::Base64 => BASE64.encode(bytes),
        SignatureEncoding::Hex => bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    }
}

/// # Panics
/// If the config's check lets a text through that no header can have: a fault of ours.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("base64, digits, and text that the config's check allows")
}

#[cfg(test)]
mod tests;
