//! Whether a request is signed by who it should be from. The signature is over the bytes of the body as they came.

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::config::{HookConfig, HookScheme, SignatureEncoding};
use lanekeeper_core::secret::SecretBytes;

/// Signatures of one request that are looked at: senders sign with two keys while one is changed.
const SIGNATURES_MAX: usize = 16;

/// Returns true if a request has what a signature needs, before its body is read.
pub(super) fn is_signed(hook: &HookConfig, headers: &HeaderMap) -> bool {
    headers.contains_key(match &hook.scheme {
        HookScheme::StandardWebhooks => "webhook-signature",
        HookScheme::Stripe => "stripe-signature",
        HookScheme::GitHub => "x-hub-signature-256",
        HookScheme::Shopify => "x-shopify-hmac-sha256",
        HookScheme::Hmac { header, .. } => header.as_str(),
    })
}

/// Checks signature and time. `now` is in seconds since 1970-01-01 UTC.
///
/// # Errors
/// What is wrong, in words that say nothing of the secret.
pub(super) fn verify(
    hook: &HookConfig,
    headers: &HeaderMap,
    body: &[u8],
    now: u64,
) -> Result<(), &'static str> {
    let secrets = hook.secrets.as_slice();
    match &hook.scheme {
        HookScheme::StandardWebhooks => {
            let (id, time) = (text(headers, "webhook-id")?, text(headers, "webhook-timestamp")?);
            is_timely(time, now, hook.tolerance)?;
            let all = text(headers, "webhook-signature")?;
            let of_version = all.split(' ').filter_map(|part| part.strip_prefix("v1,"));
            let signatures = of_version.filter_map(|signature| STANDARD.decode(signature).ok());
            matches(secrets, &[id.as_bytes(), b".", time.as_bytes(), b".", body], signatures)
        }
        HookScheme::Stripe => {
            let parts: Vec<(&str, &str)> = text(headers, "stripe-signature")?
                .split(',')
                .filter_map(|part| part.trim().split_once('='))
                .collect();
            let time = parts.iter().find(|(name, _)| *name == "t").ok_or("the signature has no time")?.1;
            is_timely(time, now, hook.tolerance)?;
            let of_version = parts.iter().filter(|(name, _)| *name == "v1");
            let signatures = of_version.filter_map(|(_, signature)| from_hex(signature));
            matches(secrets, &[time.as_bytes(), b".", body], signatures)
        }
        HookScheme::GitHub => {
            let signature = text(headers, "x-hub-signature-256")?.strip_prefix("sha256=").and_then(from_hex);
            matches(secrets, &[body], signature.into_iter())
        }
        HookScheme::Shopify => {
            let signature = STANDARD.decode(text(headers, "x-shopify-hmac-sha256")?).ok();
            matches(secrets, &[body], signature.into_iter())
        }
        HookScheme::Hmac { header, encoding, prefix, timestamp_header } => {
            let signature =
                text(headers, header)?.strip_prefix(prefix.as_str()).and_then(|text| match encoding {
                    SignatureEncoding::Hex => from_hex(text),
                    SignatureEncoding::Base64 => STANDARD.decode(text).ok(),
                });
            match timestamp_header {
                None => matches(secrets, &[body], signature.into_iter()),
                Some(header) => {
                    let time = text(headers, header)?;
                    is_timely(time, now, hook.tolerance)?;
                    matches(secrets, &[time.as_bytes(), b".", body], signature.into_iter())
                }
            }
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(text)), None) => Ok(text),
        _ => Err("a header of the signature is missing, comes twice, or is not ASCII"),
    }
}

fn is_timely(time: &str, now: u64, tolerance: Duration) -> Result<(), &'static str> {
    let time: u64 = time.parse().map_err(|_| "the signed time is no number of seconds")?;
    if time.abs_diff(now) <= tolerance.as_secs() {
        return Ok(());
    }
    Err(
        "the signed time is too old, or ahead of ours: this may be a repetition by somebody else, or a wrong clock",
    )
}

fn matches(
    secrets: &[SecretBytes],
    signed: &[&[u8]],
    signatures: impl Iterator<Item = Vec<u8>>,
) -> Result<(), &'static str> {
    let keys: Vec<hmac::Key> =
        secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal())).collect();
    let signed = signed.concat();
    let is_good = |signature: Vec<u8>| keys.iter().any(|key| hmac::verify(key, &signed, &signature).is_ok());
    if signatures.take(SIGNATURES_MAX).any(is_good) {
        Ok(())
    } else {
        Err("no signature fits the body and a secret")
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use axum::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::HookValue;

    const NOW: u64 = 1_614_265_330;

    fn hook(scheme: HookScheme, secrets: &[&[u8]]) -> HookConfig {
        HookConfig {
            name: "h".to_owned(),
            scheme,
            secrets: secrets.iter().map(|secret| SecretBytes::new(secret.to_vec())).collect(),
            tolerance: Duration::from_secs(300),
            record_key: Vec::new(),
            key_prefix: String::new(),
            id: HookValue::Literal(String::new()),
            id_prefix: String::new(),
            update_type: None,
            type_prefix: String::new(),
            version: None,
            ignore_types: Vec::new(),
            answer: 202,
            confirm_timeout: Duration::from_secs(4),
            pending_max: NonZeroUsize::MIN,
        }
    }

    #[track_caller]
    fn check(hook: &HookConfig, headers: &[(&'static str, &str)], body: &str, now: u64, expected: bool) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let found = verify(hook, &headers, body.as_bytes(), now);
        assert_eq!(found.is_ok(), expected, "{headers:?} {body}: {found:?}");
    }

    #[test]
    fn standard_webhooks_are_verified_as_its_library_signs_them() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let one = hook(HookScheme::StandardWebhooks, &[&key]);
        let body = r#"{"test": 2432232314}"#;
        let library = standardwebhooks::Webhook::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let made = library.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body.as_bytes()).unwrap();
        // As in the libraries' own tests of the same secret, id, time and body.
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let with = |id: &'static str, signature: &str, time: &str| {
            [
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", time.to_owned()),
                ("webhook-signature", signature.to_owned()),
            ]
        };
        let run = |hook: &HookConfig, id, signature: &str, time: &str, body: &str, now, expected| {
            let headers = with(id, signature, time);
            let headers: Vec<(&'static str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            check(hook, &headers, body, now, expected);
        };
        let (id, time) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        run(&one, id, &made, time, body, NOW, true);
        run(&one, id, &format!("v1,AAAA v1a,x {made}"), time, body, NOW, true);
        run(&one, id, &made, time, &format!("{body} "), NOW, false);
        run(&one, "msg_other", &made, time, body, NOW, false);
        run(&one, id, &made, "1614265331", body, NOW, false);
        run(&one, id, &made, time, body, NOW + 300, true);
        run(&one, id, &made, time, body, NOW + 301, false);
        run(&one, id, &made, time, body, NOW - 301, false);
        run(&one, id, &made, "now", body, NOW, false);
        run(&one, id, "", time, body, NOW, false);
        run(&hook(HookScheme::StandardWebhooks, &[b"another key", &key]), id, &made, time, body, NOW, true);
        run(&hook(HookScheme::StandardWebhooks, &[b"another key"]), id, &made, time, body, NOW, false);
        let many = "v1,AAAA ".repeat(SIGNATURES_MAX);
        run(&one, id, &format!("{many}{made}"), time, body, NOW, false);
    }

    #[test]
    fn the_schemes_of_senders_are_verified() {
        // The example of GitHub's documentation, "Validating webhook deliveries".
        let github = hook(HookScheme::GitHub, &[b"It's a Secret to Everybody"]);
        let name = "x-hub-signature-256";
        let signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        check(&github, &[(name, &format!("sha256={signature}"))], "Hello, World!", 0, true);
        check(&github, &[(name, &format!("sha256={}", signature.to_uppercase()))], "Hello, World!", 0, true);
        check(&github, &[(name, signature)], "Hello, World!", 0, false);
        check(&github, &[(name, &format!("sha256={}", &signature[1..]))], "Hello, World!", 0, false);
        check(&github, &[(name, &format!("sha256={signature}"))], "Hello, World?", 0, false);
        check(&github, &[], "Hello, World!", 0, false);

        let sign =
            |key: &[u8], signed: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        let hex = |tag: &hmac::Tag| {
            tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
        };
        let stripe = hook(HookScheme::Stripe, &[b"whsec_old", b"whsec_test"]);
        let made = hex(&sign(b"whsec_test", &format!("{NOW}.{{\"id\":\"evt_1\"}}")));
        let header = |rest: &str| format!("t={NOW},{rest}");
        let good = header(&format!("v1=00,v1={made},v0=00"));
        check(&stripe, &[("stripe-signature", &good)], "{\"id\":\"evt_1\"}", NOW, true);
        check(&stripe, &[("stripe-signature", &good)], "{\"id\":\"evt_1\"}", NOW + 301, false);
        check(
            &stripe,
            &[("stripe-signature", &header(&format!("v0={made}")))],
            "{\"id\":\"evt_1\"}",
            NOW,
            false,
        );
        check(&stripe, &[("stripe-signature", &format!("v1={made}"))], "{\"id\":\"evt_1\"}", NOW, false);

        let shopify = hook(HookScheme::Shopify, &[b"hush"]);
        let made = STANDARD.encode(sign(b"hush", "{\"id\":1}"));
        check(&shopify, &[("x-shopify-hmac-sha256", &made)], "{\"id\":1}", 0, true);
        check(&shopify, &[("x-shopify-hmac-sha256", &made)], "{\"id\":2}", 0, false);

        let own = |timestamp_header: Option<&str>| {
            let scheme = HookScheme::Hmac {
                header: "x-signature".to_owned(),
                encoding: SignatureEncoding::Hex,
                prefix: "v1=".to_owned(),
                timestamp_header: timestamp_header.map(str::to_owned),
            };
            hook(scheme, &[b"secret"])
        };
        let made = format!("v1={}", hex(&sign(b"secret", "{}")));
        check(&own(None), &[("x-signature", &made)], "{}", 0, true);
        check(&own(None), &[("x-signature", &made[3..])], "{}", 0, false);
        let made = format!("v1={}", hex(&sign(b"secret", &format!("{NOW}.{{}}"))));
        let time = NOW.to_string();
        check(&own(Some("x-time")), &[("x-signature", &made), ("x-time", &time)], "{}", NOW, true);
        check(&own(Some("x-time")), &[("x-signature", &made)], "{}", NOW, false);
        check(&own(Some("x-time")), &[("x-signature", &made), ("x-time", &time)], "{}", NOW + 999, false);
    }
}
