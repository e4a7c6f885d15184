//! The keys of `[target.signature]`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use ring::signature::Ed25519KeyPair;
use serde_json::Value as Json;

use super::fault::Problem;
use super::parse::{choice, text};
use super::reader::Section;
use super::signature_template::{Placeholder, SignatureTemplate};
use super::target::header_name;
use lanekeeper_core::secret::{MASK, SecretBytes};

/// Secrets that sign at the same time: two of each kind, while both kinds are changed.
const SECRETS_MAX: usize = 4;

/// Bytes of a secret of Standard Webhooks (their specification, "Signature scheme").
const WEBHOOK_SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The headers of Standard Webhooks.
const WEBHOOK_HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// Secrets are written with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureConfig {
    /// Not at all.
    None,
    /// As the specification of Standard Webhooks says, with each of these keys.
    StandardWebhooks(Vec<WebhookKey>),
    /// With a header of the target's own.
    Hmac(HmacConfig),
}

/// A key of Standard Webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookKey {
    /// `whsec_…`: for HMAC-SHA256.
    Symmetric(SecretBytes),
    /// `whsk_…`: the seed of an ed25519 key.
    Ed25519(SecretBytes),
}

/// `[target.signature.hmac]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacConfig {
    /// The header with the signature, lower case; valid.
    pub header: String,
    /// The hash function.
    pub hash: SignatureHash,
    /// How the bytes of a signature are written.
    pub encoding: SignatureEncoding,
    /// At least one; each makes a signature.
    pub keys: Vec<SecretBytes>,
    /// What is signed.
    pub content: SignatureTemplate,
    /// The value of the header; has `{signature}` once, and is valid whatever the placeholders stand for.
    pub value: SignatureTemplate,
    /// What stands between the signatures of several keys.
    pub separator: String,
    /// The header with the time of the attempt, lower case; `None`: no header has it.
    pub timestamp_header: Option<String>,
    /// The unit of the time.
    pub timestamp_unit: TimestampUnit,
}

/// The hash function of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureHash {
    /// SHA-1, which some older APIs ask for.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Two digits for a byte, lower case.
    Hex,
    /// RFC 4648, section 4, with padding.
    Base64,
}

/// The unit of a time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretEncoding {
    Text,
    Hex,
    Base64,
}

const HASHES: [(&str, SignatureHash); 3] =
    [("sha256", SignatureHash::Sha256), ("sha512", SignatureHash::Sha512), ("sha1", SignatureHash::Sha1)];

const ENCODINGS: [(&str, SignatureEncoding); 2] =
    [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];

const SECRET_ENCODINGS: [(&str, SecretEncoding); 3] =
    [("text", SecretEncoding::Text), ("hex", SecretEncoding::Hex), ("base64", SecretEncoding::Base64)];

const TIMESTAMP_UNITS: [(&str, TimestampUnit); 2] =
    [("s", TimestampUnit::Seconds), ("ms", TimestampUnit::Milliseconds)];

/// Of `content`.
const IN_CONTENT: [Placeholder; 6] = [
    Placeholder::Body,
    Placeholder::Timestamp,
    Placeholder::UpdateId,
    Placeholder::Method,
    Placeholder::Path,
    Placeholder::Query,
];

/// Of `value`.
const IN_VALUE: [Placeholder; 2] = [Placeholder::Signature, Placeholder::Timestamp];

/// Reads `[target.signature]`; `None`: a fault was noted. `taken`: the headers that have another value, lower case.
pub fn read(target: &mut Section<'_, '_>, taken: &mut BTreeSet<String>) -> Option<SignatureConfig> {
    let is_set = target.has("signature");
    let mut section = target.table("signature");
    let is_empty = is_set && section.is_empty();
    let (has_webhooks, has_hmac) = (section.has("standard_webhooks"), section.has("hmac"));
    let webhooks = section.read_if_set("standard_webhooks", |raw| {
        let keys = secrets(raw, |text| text.split_whitespace().collect(), webhook_key)?;
        match WEBHOOK_HEADERS.into_iter().find(|header| !taken.insert((*header).to_owned())) {
            Some(header) => Err(header_is_taken(header)),
            None => Ok(keys),
        }
    });
    let hmac = if has_hmac { read_hmac(&mut section, taken) } else { section.known("hmac") };
    section.finish();
    match (has_webhooks, has_hmac) {
        (true, true) => {
            let what = "has standard_webhooks and hmac, and a request is signed in one way";
            target.fault("signature", Problem::constant(what, "leave one of them out"));
            None
        }
        (true, false) => webhooks.map(SignatureConfig::StandardWebhooks),
        (false, true) => hmac.map(SignatureConfig::Hmac),
        (false, false) => {
            if is_empty {
                let fix =
                    "write standard_webhooks = \"file:PATH\" or [target.signature.hmac], or leave it out";
                target.fault("signature", Problem::constant("has no key", fix));
            }
            // Another key was noted as unknown.
            (!is_set).then_some(SignatureConfig::None)
        }
    }
}

fn read_hmac(signature: &mut Section<'_, '_>, taken: &mut BTreeSet<String>) -> Option<HmacConfig> {
    let mut section = signature.table("hmac");
    let header = section.read("header", |raw| own_header(raw, taken));
    let hash = section.read_or("algorithm", "sha256", choice(&HASHES));
    let secret_encoding = section.read_or("secret_encoding", "text", choice(&SECRET_ENCODINGS));
    let keys = section.read("secret", |raw| {
        secrets(
            raw,
            |text| vec![text],
            |text| hmac_key(text, secret_encoding.unwrap_or(SecretEncoding::Text)),
        )
    });
    let content =
        section.read_or("content", "{body}", |raw| SignatureTemplate::parse(&text(raw)?, &IN_CONTENT));
    let encoding = section.read_or("encoding", "hex", choice(&ENCODINGS));
    let value = section.read_or("value", "{signature}", value);
    let separator = section.read_or("separator", "", separator);
    let timestamp_header = section.read_or("timestamp_header", "", |raw| match text(raw)?.as_str() {
        "" => Ok(None),
        _ => own_header(raw, taken).map(Some),
    });
    let timestamp_unit = section.read_or("timestamp_unit", "s", choice(&TIMESTAMP_UNITS));
    if keys.as_ref().is_some_and(|keys| keys.len() > 1) && separator.as_ref().is_some_and(String::is_empty) {
        let what = "has several secrets, and nothing says how their signatures stand in one header";
        section
            .fault("secret", Problem::constant(what, "write one, or set separator, as in separator = \",\""));
    }
    if let (Some(content), Some(value), Some(None)) = (&content, &value, &timestamp_header)
        && content.count(Placeholder::Timestamp) > 0
        && value.count(Placeholder::Timestamp) == 0
    {
        let what = "signs {timestamp}, which no header shows to the target";
        let fix = "set timestamp_header, or write {timestamp} in value, too";
        section.fault("content", Problem::constant(what, fix));
    }
    section.finish();
    let separator = separator?;
    Some(HmacConfig {
        header: header?,
        hash: hash?,
        encoding: encoding?,
        keys: keys.filter(|keys| keys.len() == 1 || !separator.is_empty())?,
        content: content?,
        value: value?,
        separator,
        timestamp_header: timestamp_header?,
        timestamp_unit: timestamp_unit?,
    })
}

/// One secret or a list of them, which are never shown. `split` divides one string.
fn secrets<T>(
    raw: &mut Json,
    split: impl Fn(&str) -> Vec<&str>,
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    // First of all the value is masked, so that nothing can show it.
    let secrets: Vec<Json> = match std::mem::replace(raw, Json::from(MASK)) {
        Json::Array(secrets) => secrets,
        other => vec![other],
    };
    let mut parsed = Vec::new();
    for secret in &secrets {
        let Json::String(secret) = secret else {
            return Err(Problem::constant("is not a string", "put it in quotes, as in \"file:PATH\""));
        };
        parsed.extend(split(secret).into_iter().map(&parse));
    }
    if parsed.is_empty() || parsed.len() > SECRETS_MAX {
        let what = "has no secret, or more than 4";
        return Err(Problem::constant(what, "write one, or two while a secret is changed"));
    }
    let several = parsed.len() > 1;
    let each = parsed.into_iter().enumerate();
    each.map(|(index, secret)| {
        secret.map_err(|problem| if several { problem.of_index(index) } else { problem })
    })
    .collect()
}

pub(super) fn webhook_key(secret: &str) -> Result<WebhookKey, Problem> {
    const FIX: &str = "write it as whoever verifies the signatures shows it: \"whsec_\" and base64, or \"whsk_\" and base64";
    let decoded = |secret: &str| {
        let what = "is not base64 after its prefix";
        BASE64.decode(secret).map_err(|_| Problem::constant(what, FIX))
    };
    if let Some(secret) = secret.strip_prefix("whsec_") {
        let key = decoded(secret)?;
        if !WEBHOOK_SECRET_BYTES.contains(&key.len()) {
            let what = "does not have 24 to 64 bytes, as the specification of Standard Webhooks demands";
            return Err(Problem::constant(
                what,
                "get a longer or shorter one; `openssl rand -base64 32` makes one",
            ));
        }
        return Ok(WebhookKey::Symmetric(SecretBytes::new(key)));
    }
    if let Some(secret) = secret.strip_prefix("whsk_") {
        return ed25519_key(&decoded(secret)?);
    }
    Err(Problem::constant(
        if secret.starts_with("whpk_") {
            "is a public key, which verifies signatures and makes none"
        } else {
            "is not a secret of Standard Webhooks: it has neither the prefix \"whsec_\" nor \"whsk_\""
        },
        FIX,
    ))
}

/// The seed, or the seed and the public key, as most libraries write them.
fn ed25519_key(bytes: &[u8]) -> Result<WebhookKey, Problem> {
    const FIX: &str =
        "write \"whsk_\" and the base64 of the 32 bytes of an ed25519 seed, or of seed and public key";
    let (seed, public) = match bytes.len() {
        32 => (bytes, None),
        64 => (&bytes[..32], Some(&bytes[32..])),
        _ => return Err(Problem::constant("does not have the length of an ed25519 key", FIX)),
    };
    let sound = match public {
        None => Ed25519KeyPair::from_seed_unchecked(seed).is_ok(),
        Some(public) => Ed25519KeyPair::from_seed_and_public_key(seed, public).is_ok(),
    };
    if !sound {
        return Err(Problem::constant("has a public key that does not belong to its seed", FIX));
    }
    Ok(WebhookKey::Ed25519(SecretBytes::new(seed)))
}

fn hmac_key(secret: &str, encoding: SecretEncoding) -> Result<SecretBytes, Problem> {
    let decoded = match encoding {
        SecretEncoding::Text => Some(secret.as_bytes().to_vec()),
        SecretEncoding::Base64 => BASE64.decode(secret.trim()).ok(),
        SecretEncoding::Hex => from_hex(secret.trim()),
    };
    match decoded {
        Some(key) if !key.is_empty() => Ok(SecretBytes::new(key)),
        Some(_) => Err(Problem::constant("is empty", "write the secret, as in \"file:PATH\"")),
        None => Err(Problem::constant(
            "is not written as secret_encoding says",
            "correct it, or choose another secret_encoding: \"text\", \"hex\" or \"base64\"",
        )),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}

/// A header that has no other value.
fn own_header(raw: &mut Json, taken: &mut BTreeSet<String>) -> Result<String, Problem> {
    let header = header_name(&text(raw)?)?;
    if taken.insert(header.clone()) { Ok(header) } else { Err(header_is_taken(&header)) }
}

fn header_is_taken(header: &str) -> Problem {
    Problem::new(
        format!(
            "sets the header {header:?}, which headers, idempotency_header, [target.auth] or another key of the signature sets, too"
        ),
        "leave one of them out",
    )
}

fn value(raw: &mut Json) -> Result<SignatureTemplate, Problem> {
    let text = text(raw)?;
    let value = SignatureTemplate::parse(&text, &IN_VALUE)?;
    if value.count(Placeholder::Signature) != 1 {
        let fix = "write it once, as in \"sha256={signature}\"";
        return Err(Problem::constant("does not have {signature} once", fix));
    }
    sendable(&text).map(|()| value)
}

fn separator(raw: &mut Json) -> Result<String, Problem> {
    let text = text(raw)?;
    sendable(&format!("{{{text}}}")).map(|()| text)
}

/// Checks what stands around signatures in a header.
fn sendable(text: &str) -> Result<(), Problem> {
    let fit = text.trim() == text && text.is_ascii() && HeaderValue::from_str(text).is_ok();
    if fit {
        return Ok(());
    }
    Err(Problem::constant("cannot be sent in a header", "write printable ASCII, without spaces at an end"))
}

#[cfg(test)]
mod tests;
