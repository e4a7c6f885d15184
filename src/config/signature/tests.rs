//! Faults of `[target.signature]`.

use std::path::Path;

use super::super::{Environment, Loaded, Purpose, TARGET_EXAMPLE, read};
use super::*;

/// 24 bytes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn loaded(lines: &str) -> Result<Loaded, String> {
    let text = format!("{TARGET_EXAMPLE}\n{lines}");
    let environment = [("SECRET", SECRET), ("SHORT", "whsec_c2hvcnQ=")].into_iter().collect::<Environment>();
    read(Some((Path::new("lk.toml"), &text)), &environment, Purpose::Dispatch)
        .map_err(|faults| faults.to_string())
}

/// The fault of these lines has these parts, and no part of a secret.
fn check(lines: &str, parts: &[&str]) {
    let report = loaded(lines).expect_err(lines);
    assert!(report.starts_with("the config has 1 fault\n"), "{lines}\n{report}");
    for part in parts {
        assert!(report.contains(part), "{lines}\n{part:?} in {report}");
    }
    for secret in ["MfKQ", "c2hv", "s3cret", "JJJJ"] {
        assert!(!report.contains(secret), "{lines}\n{report}");
    }
}

#[test]
fn a_secret_of_standard_webhooks_that_is_none_is_a_fault_without_its_text() {
    let fault = |secrets: &str, part: &str| {
        let key = "target[0].signature.standard_webhooks (lk.toml)";
        check(&format!("[target.signature]\nstandard_webhooks = {secrets}"), &[key, part]);
    };
    fault("\"s3cret\"", "has neither the prefix");
    fault("\"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"", "has neither the prefix");
    fault("\"whpk_JJJJ\"", "is a public key");
    fault("\"whsec_s3cret!\"", "is not base64");
    fault("\"whsec_c2hvcnQ=\"", "24 to 64 bytes");
    fault("\"${SHORT}\"", "24 to 64 bytes");
    fault(&format!("\"whsec_{}\"", "J".repeat(88)), "24 to 64 bytes");
    fault("\"whsk_c2hvcnQ=\"", "length of an ed25519 key");
    fault(&format!("\"whsk_{}==\"", "J".repeat(85) + "A"), "does not belong to its seed");
    fault(
        &format!("[\"{SECRET}\", \"whsec_c2hvcnQ=\"]"),
        "number 2 of the list does not have 24 to 64 bytes",
    );
    fault(&format!("\"{SECRET} whsec_c2hvcnQ=\""), "number 2 of the list");
    fault("\"\"", "no secret, or more than 4");
    fault("[]", "no secret, or more than 4");
    fault(&format!("\"{}\"", [SECRET; 5].join("\\n")), "no secret, or more than 4");
    fault("7", "not a string");
    fault(&format!("[\"{SECRET}\", 7]"), "not a string");
}

#[test]
fn secrets_are_read_and_never_shown() {
    for lines in [
        format!("[target.signature]\nstandard_webhooks = [\"{SECRET}\", \"${{SECRET}}\"]"),
        "[target.signature]\nstandard_webhooks = \"${SECRET}\"".to_owned(),
        "[target.signature.hmac]\nheader = \"X-Signature\"\nsecret = \"MfKQ s3cret\"".to_owned(),
        "[target.signature.hmac]\nheader = \"X-Signature\"\nsecret = \"MfKQ\"\nsecret_encoding = \"base64\""
            .to_owned(),
    ] {
        let loaded = loaded(&lines).unwrap();
        assert_ne!(loaded.config.targets[0].signature, SignatureConfig::None);
        let shown = format!("{loaded:?} {}", serde_json::to_string(&loaded.shown).unwrap());
        assert!(!shown.contains("MfKQ"), "{shown}");
        assert!(shown.contains("signature"), "{shown}");
    }
    assert_eq!(loaded("").unwrap().config.targets[0].signature, SignatureConfig::None);
}

#[test]
fn a_target_has_one_signature_or_none() {
    check("[target.signature]", &["target[0].signature (lk.toml)", "has no key"]);
    check("signature = \"s3cret\"", &["target[0].signature (lk.toml)", "is not a table"]);
    check("[target.signature]\nstandard_webhook = \"s3cret\"", &["did you mean `standard_webhooks`?"]);
    let both = format!(
        "[target.signature]\nstandard_webhooks = \"{SECRET}\"\nhmac = {{ header = \"x-a\", secret = \"s3cret\" }}"
    );
    check(&both, &["leave one of them out"]);
}

#[test]
fn each_key_of_an_hmac_is_checked() {
    let fault = |lines: &str, key: &str, part: &str| {
        let least = ["header = \"X-Signature\"", "secret = \"s3cret\""];
        let missing = |line: &&&str| !lines.starts_with(line.split_once('=').unwrap().0);
        let least: Vec<&str> = least.iter().filter(missing).copied().collect();
        let key = format!("target[0].signature.hmac.{key} (lk.toml)");
        check(&format!("[target.signature.hmac]\n{}\n{lines}", least.join("\n")), &[&key, part]);
    };
    fault("header = \"a b\"", "header", "is not a header name");
    fault("header = \"lanekeeper-x\"", "header", "is set by Lanekeeper");
    fault("header = \"Idempotency-Key\"", "header", "\"idempotency-key\", which headers");
    fault("timestamp_header = \"x-signature\"", "timestamp_header", "\"x-signature\", which headers");
    fault("algorithm = \"md5\"", "algorithm", "choose \"sha256\", \"sha512\" or \"sha1\"");
    fault("encoding = \"base32\"", "encoding", "choose \"hex\" or \"base64\"");
    fault("secret = \"\"", "secret", "is empty");
    fault(
        "secret = \"s3cret\"\nsecret_encoding = \"hex\"",
        "secret",
        "is not written as secret_encoding says",
    );
    fault("secret = \"abc\"\nsecret_encoding = \"hex\"", "secret", "is not written as secret_encoding says");
    fault(
        "secret = \"s3cret!\"\nsecret_encoding = \"base64\"",
        "secret",
        "is not written as secret_encoding says",
    );
    fault("secret = [\"s3cret\", \"s3cret2\"]", "secret", "set separator");
    fault("content = \"{signature}\"", "content", "{signature} is no placeholder of this key");
    fault("content = \"{timestamp}.{body}\"", "content", "which no header shows to the target");
    fault("value = \"sha256=\"", "value", "does not have {signature} once");
    fault("value = \"{signature}{signature}\"", "value", "does not have {signature} once");
    fault("value = \"{signature} \"", "value", "cannot be sent in a header");
    fault("value = \"ü{signature}\"", "value", "cannot be sent in a header");
    fault("separator = \"\\n\"", "separator", "cannot be sent in a header");
    fault("timestamp_unit = \"us\"", "timestamp_unit", "choose \"s\" or \"ms\"");
}

#[test]
fn what_sets_a_header_already_is_refused() {
    let key = "target[0].signature.standard_webhooks (lk.toml)";
    let webhooks = format!("[target.signature]\nstandard_webhooks = \"{SECRET}\"");
    check(
        &format!("idempotency_header = \"Webhook-Id\"\n{webhooks}"),
        &[key, "sets the header \"webhook-id\""],
    );
    check(&format!("headers = {{ webhook-timestamp = \"1\" }}\n{webhooks}"), &[key, "\"webhook-timestamp\""]);
    let hmac = "[target.signature.hmac]\nheader = \"Authorization\"\nsecret = \"s3cret\"";
    check(&format!("[target.auth]\nbearer = \"JJJJ\"\n{hmac}"), &["\"authorization\", which headers"]);
    loaded(hmac).unwrap();
}
