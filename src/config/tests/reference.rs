//! `config/default.toml` is the reference of all keys.

use super::super::{DEFAULT_TOML, Origin, TARGET_EXAMPLE};
use super::read;

/// Lines of `config/default.toml` around keys that exclude each other.
const ONE_OF: &str = "# --- One of: ---";
const OR: &str = "# --- or: ---";
const UNTIL_HERE: &str = "# --- Until here. ---";

/// `config/default.toml` with the target that it shows, once with each of the alternatives that exclude each other.
fn references() -> Vec<String> {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(code) if code.starts_with(|c: char| !c.is_whitespace()) => code.to_owned(),
        _ => line.to_owned(),
    };
    // What all have, and between them the alternatives of each choice.
    let (mut common, mut choices) = (vec![String::new()], Vec::<Vec<String>>::new());
    let mut is_choice = false;
    for line in DEFAULT_TOML.lines() {
        match (line, is_choice) {
            (ONE_OF, false) => {
                is_choice = true;
                choices.push(vec![String::new()]);
            }
            (OR, true) => choices.last_mut().unwrap().push(String::new()),
            (UNTIL_HERE, true) => {
                is_choice = false;
                common.push(String::new());
            }
            (ONE_OF | OR | UNTIL_HERE, _) => panic!("alternatives do not nest: {line}"),
            (line, true) => *choices.last_mut().unwrap().last_mut().unwrap() += &(uncommented(line) + "\n"),
            (line, false) => *common.last_mut().unwrap() += &(uncommented(line) + "\n"),
        }
    }
    assert!(!is_choice, "{UNTIL_HERE} is missing");
    let most = choices.iter().map(Vec::len).max().unwrap();
    let reference = |chosen: usize| {
        let chosen = choices.iter().map(|choice| choice[chosen.min(choice.len() - 1)].as_str());
        common
            .iter()
            .map(String::as_str)
            .zip(chosen.chain([""]))
            .map(|(of_all, one)| of_all.to_owned() + one)
            .collect()
    };
    (0..most).map(reference).collect()
}

/// Keys that nothing stands for if they are left out.
const DEFAULT_NONE: [&str; 12] = [
    "ca",
    "standard_webhooks",
    "record_keys",
    "headers",
    "query",
    "body",
    "outcomes",
    "rate_max",
    "in_flight_max",
    "pointer",
    "value",
    "pattern",
];

#[test]
fn the_reference_has_every_key_and_says_its_default() {
    let references = references();
    assert_eq!(references.len(), 5, "as many as [target.auth] has ways");
    for reference in references {
        check_reference(&reference);
    }
}

fn check_reference(reference: &str) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let variables = ["CRM_TOKEN", "CRM_USER", "CRM_PASSWORD", "CRM_KEY", "CRM_SECRET", "TELEMETRY_KEY"]
        .map(|name| (name, "x"));
    let door_token = "0123456789abcdef-door";
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let variables = [
        &variables[..],
        &[
            ("CRM_PRIVATE_KEY", key.as_str()),
            ("WEBHOOK_SECRET", secret),
            ("CRM_DOOR_TOKEN", door_token),
            ("SHOP_SECRET", door_token),
        ],
    ]
    .concat();
    let dir = tempfile::tempdir().unwrap();
    super::super::tls::tests::write_files(dir.path());
    let reference = &reference.replace("/run/secrets", dir.path().to_str().unwrap());
    let loaded = read(reference, &variables).unwrap();
    let least = read(TARGET_EXAMPLE, &[]).unwrap();
    let (mut section, mut comment, mut keys) = (String::new(), String::new(), Vec::new());
    for line in reference.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment = format!("{comment} {text}");
        } else if let Some((key, value)) = line.split_once(" = ") {
            let said = comment.contains(&format!("Default: {value}"))
                || (matches!(
                    key,
                    "url"
                        | "name"
                        | "types"
                        | "tokens"
                        | "verify"
                        | "secrets"
                        | "record_key"
                        | "signature_header"
                        | "status"
                        | "outcome"
                        | "header"
                        | "secret"
                ) && (comment.contains("Required.") || comment.contains("Default: RabbitMQ's own")))
                || (DEFAULT_NONE.contains(&key) && comment.contains("Default: none."))
                || (section == "target[0].on[0]"
                    && comment.contains(&format!("Default: the target's {key}.")))
                || (section.starts_with("target[0].auth")
                    && ["none.", "the issuer.", "token_url.", "\"RS256\"."]
                        .iter()
                        .any(|default| comment.contains(&format!("Default: {default}"))))
                || (section.starts_with("target[0].auth") && comment.contains("Required."))
                || (matches!(section.as_str(), "target[0].tls" | "admin.tls" | "ingest.tls")
                    && comment.contains("Default: "))
                || (key == "limits" && comment.contains("Default: the target's name."));
            assert!(said, "{section} {key}: its comment says the default, {value}: {comment:?}");
            comment.clear();
            keys.push((section.clone(), key.to_owned()));
        } else {
            comment.clear();
            if line.starts_with('[') {
                let name = line.replace(['[', ']'], "");
                section = match name.strip_prefix("target") {
                    Some("") => "target[0]".to_owned(),
                    Some(of) if line.starts_with("[[") => {
                        let before = reference.split_at(line.as_ptr().addr() - reference.as_ptr().addr()).0;
                        let row = before.matches(&format!("\n{line}\n")).count();
                        format!("target[0]{of}[{row}]")
                    }
                    Some(of) => format!("target[0]{of}"),
                    None if line.starts_with("[[") => format!("{name}[0]"),
                    None => name,
                };
            }
        }
    }
    let known: Vec<(String, String)> =
        loaded.shown.iter().map(|shown| (shown.section.clone(), shown.key.to_owned())).collect();
    assert_eq!(keys, known, "keys of config/default.toml and keys that are read, in one order");
    for shown in least.shown.iter().filter(|shown| shown.origin == Origin::BuiltIn) {
        let written =
            loaded.shown.iter().find(|other| (&other.section, other.key) == (&shown.section, shown.key));
        assert_eq!(
            written.map(|written| &written.value),
            Some(&shown.value),
            "{}.{}",
            shown.section,
            shown.key
        );
    }
}
