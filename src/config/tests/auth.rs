//! `[target.auth]`: faults, and what is shown of it.

use super::{check_whole, read, target};

const OAUTH2: &str = "[target.auth.oauth2]\ntoken_url = \"https://login.example/token\"\nclient_id = \"lk\"\n\
    client_secret = \"s3cret\"\n";
const JWT: &str = "[target.auth.jwt_bearer]\ntoken_url = \"https://login.example/token\"\nissuer = \"lk\"\n";

#[test]
fn a_target_has_one_way_to_show_who_sends() {
    for (lines, key, part) in [
        ("auth = \"x\"", "", "write [target.auth]"),
        ("[target.auth]", "", "has none of bearer, basic, header, oauth2, jwt_bearer"),
        (
            "auth = { bearer = \"s3cret\", header = { name = \"a\", value = \"b\" } }",
            "",
            "has bearer and header",
        ),
        ("auth = { bearer = \"\" }", ".bearer", "cannot be sent"),
        ("auth = { bearer = \" s3cret\" }", ".bearer", "spaces at an end"),
        ("auth = { bearer = \"s3cret\\n\" }", ".bearer", "cannot be sent"),
        ("auth = { bearer = \"s3crét\" }", ".bearer", "printable ASCII"),
        ("auth = { bearer = 5 }", ".bearer", "not a string"),
        ("auth = { bearer = \"file:gone\" }", ".bearer", "gone"),
        ("auth = { basic = \"s3cret\" }", ".basic", "[target.auth.basic]"),
        ("auth = { basic = { user = \"s3:cret\", password = \"\" } }", ".basic.user", "RFC 7617"),
        (
            "auth = { basic = { user = \"u\", password = \"s3cret\\t\" } }",
            ".basic.password",
            "control characters",
        ),
        ("auth = { basic = { user = \"u\" } }", ".basic.password", "is missing"),
        ("auth = { header = { name = \"Host\", value = \"s3cret\" } }", ".header.name", "by the HTTP client"),
        ("auth = { header = { name = \"lanekeeper-x\", value = \"v\" } }", ".header.name", "by Lanekeeper"),
        (
            "auth = { header = { name = \"idempotency-key\", value = \"v\" } }",
            "",
            "another key of this target",
        ),
        (
            "headers = { Authorization = \"s3cret\" }\nauth = { bearer = \"t\" }",
            "",
            "\"authorization\", which",
        ),
        (
            "headers = { X-Key = \"s3cret\" }\nauth = { header = { name = \"x-key\", value = \"v\" } }",
            "",
            "\"x-key\"",
        ),
        ("auth = { beerer = \"s3cret\", bearer = \"t\" }", ".beerer", "did you mean `bearer`?"),
    ] {
        check(lines, &[(key, part)]);
    }
}

#[test]
fn what_a_token_server_is_asked_with_is_checked() {
    for (lines, key, part) in [
        ("send_secret = \"query\"", "send_secret", "\"header\" or \"body\""),
        ("scopes = [\"read s3cret\"]", "scopes[0]", "an element of its own"),
        ("scopes = [\"read\", \"\"]", "scopes[1]", "not one scope"),
        ("scopes = \"read\"", "scopes", "not a list"),
        ("audience = \"\"", "audience", "is empty"),
        ("extra = { scope = \"s3cret\" }", "extra.scope", "a key of its own"),
        ("extra = { a = 5 }", "extra.a", "not a string"),
        ("resource = \"x\"", "resource", "there is no such key"),
    ] {
        check(&format!("{OAUTH2}{lines}"), &[(&format!(".oauth2.{key}"), part)]);
    }
    for (url, part) in [
        ("ftp://h/s3cret", "no URL of HTTP"),
        ("s3cret", "not a URL"),
        ("https://u:s3cret@h/", "keys of their own"),
        ("https://h/#s3cret", "fragment"),
    ] {
        check(&OAUTH2.replace("https://login.example/token", url), &[(".oauth2.token_url", part)]);
    }
    let missing = [("token_url", "is missing"), ("client_id", "is missing"), ("client_secret", "is missing")]
        .map(|(key, part)| (format!(".oauth2.{key}"), part));
    let missing: Vec<(&str, &str)> = missing.iter().map(|(key, part)| (key.as_str(), *part)).collect();
    check("[target.auth.oauth2]\nscopes = [\"a\"]", &missing);
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_refused_with_what_makes_one() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    for (lines, key, part) in [
        ("key = \"s3cret\"".to_owned(), "key", "not a private key as PEM"),
        (format!("key = \"\"\"{key}\"\"\""), "key", "rsa_keygen_bits:2048"),
        (format!("key = \"\"\"{key}\"\"\"\nalgorithm = \"ES384\""), "key", "ec_paramgen_curve:P-384"),
        (format!("key = \"\"\"{key}\"\"\"\nalgorithm = \"Ed25519\""), "key", "-algorithm ED25519"),
        (format!("key = \"\"\"{key}\"\"\"\nalgorithm = \"HS256\""), "algorithm", "\"RS256\", "),
        (
            format!("key = \"\"\"{key}\"\"\"\nalgorithm = \"ES256\"\nclaims = {{ exp = 5 }}"),
            "claims.exp",
            "leave it out",
        ),
        (
            format!("key = \"\"\"{key}\"\"\"\nalgorithm = \"ES256\"\nlifetime = \"2h\""),
            "lifetime",
            "10s to 1h",
        ),
    ] {
        check(&format!("{JWT}{lines}"), &[(&format!(".jwt_bearer.{key}"), part)]);
    }
    check(&format!("{JWT}key = \"\"\"{key}\"\"\"\nalgorithm = \"ES256\""), &[]);
}

#[test]
fn no_secret_is_shown() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let line = key.lines().nth(1).unwrap();
    for lines in [
        "auth = { bearer = \"s3cret\" }",
        "auth = { basic = { user = \"s3cret\", password = \"s3cret\" } }",
        "auth = { header = { name = \"x-key\", value = \"s3cret\" } }",
        &OAUTH2.replace("/token", "/token?key=s3cret"),
        &format!("{OAUTH2}extra = {{ a = \"s3cret\" }}"),
        &format!("{JWT}key = \"\"\"{key}\"\"\"\nalgorithm = \"EdDSA\""),
    ] {
        let loaded = read(&target(lines), &[]).unwrap();
        let shown = format!("{loaded:?}");
        assert!(!shown.contains("s3cret") && !shown.contains(line), "{shown}");
        assert!(shown.contains("***"), "{shown}");
        assert_eq!(loaded.config.targets[0].auth, read(&target(lines), &[]).unwrap().config.targets[0].auth);
    }
}

/// Keys are below `target[0].auth`.
fn check(lines: &str, expected: &[(&str, &str)]) {
    let text = target(lines);
    let keys: Vec<String> = expected.iter().map(|(key, _)| format!("target[0].auth{key}")).collect();
    let expected: Vec<(&str, &str, &str)> =
        keys.iter().zip(expected).map(|(key, (_, part))| (key.as_str(), "lk.toml", *part)).collect();
    check_whole(&text, &[], &expected);
    if let Err(faults) = read(&text, &[]) {
        let quoted = faults.to_string();
        assert!(!quoted.contains("s3cret") || lines.contains("read s3cret"), "{quoted}");
    }
}
