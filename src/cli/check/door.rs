//! What `lanekeeper check` says of a config for a door alone.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{list, print, section};
use crate::cli::exit::Exit;
use crate::config::{
    Config, DOOR_ALONE, HookScheme, IngestConfig, Loaded, OF_DOOR, Origin, Shown, format_duration,
    warnings_of_door,
};

pub(super) fn main(loaded: &Loaded, json: bool) -> Exit {
    let text = if json { format!("{:#}\n", as_json(loaded)) } else { as_text(loaded) };
    print(&text, Exit::Done)
}

/// The values that a door uses, and those that somebody has set.
fn values(loaded: &Loaded) -> Vec<Shown> {
    let is_used = |shown: &&Shown| {
        OF_DOOR.contains(&&*shown.section)
            || shown.section.starts_with("ingest")
            || !matches!(shown.origin, Origin::BuiltIn)
    };
    loaded.shown.iter().filter(is_used).cloned().collect()
}

fn as_text(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = format!("{DOOR_ALONE} `lanekeeper run` needs a [[target]].\n\n");
    for values in values(loaded).chunk_by(|a, b| a.section == b.section) {
        text += &section(values);
    }
    text += &door(config);
    text + &list(&warnings_of_door(config))
}

fn door(config: &Config) -> String {
    let ingest = &config.ingest;
    let mut text = "Door\n".to_owned();
    let mut row = |name: &str, what: &str| {
        let _ = writeln!(text, "  {name:9}{what}");
    };
    let listen = ingest.listen.map(|address| address.to_string()).unwrap_or_default();
    let reach = if ingest.is_on_loopback() { "this host alone" } else { "other hosts, too" };
    row("listen", &format!("{listen}, reached by {reach}"));
    row("TLS", tls(ingest));
    for client in &ingest.clients {
        let types: Vec<String> = client.types.iter().map(ToString::to_string).collect();
        let tokens = count(client.tokens.len(), "token");
        let rate = if client.rate_max.is_some() { "with" } else { "without" };
        row(
            "client",
            &format!(
                "{}: {tokens} in {}; types {}; at most {} updates wait; {rate} rate_max",
                client.name,
                client.header,
                types.join(", "),
                client.pending_max
            ),
        );
    }
    for hook in &ingest.hooks {
        let secrets = count(hook.secrets.len(), "secret");
        row(
            "hook",
            &format!(
                "/hooks/{}: {}, {secrets}; at most {} updates wait; answered within {}",
                hook.name,
                scheme(&hook.scheme),
                hook.pending_max,
                format_duration(hook.confirm_timeout)
            ),
        );
    }
    row(
        "bounds",
        &format!(
            "{} updates with {} bytes wait, {} of one record; {} connections; {} updates with {} bytes in one request, each up to \
             {} bytes",
            ingest.pending_max,
            ingest.pending_bytes_max,
            ingest.pending_per_record_max,
            ingest.connections_max,
            ingest.batch_lines_max,
            ingest.batch_bytes_max,
            config.updates.body_bytes_max
        ),
    );
    let ledger = if config.ledger.is_some() {
        "a door opens none; `lanekeeper run` must have one, and `lanekeeper check` of its config says if it does"
    } else {
        "none"
    };
    row("ledger", ledger);
    text
}

fn tls(ingest: &IngestConfig) -> &'static str {
    match &ingest.tls {
        None => "none: it speaks plain HTTP",
        Some(tls) if tls.client_authorities.is_empty() => "with the certificate of ingest.tls",
        Some(_) => {
            "with the certificate of ingest.tls; clients must show a certificate of an authority of client_ca"
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn scheme(scheme: &HookScheme) -> &'static str {
    match scheme {
        HookScheme::StandardWebhooks => "standard_webhooks",
        HookScheme::Stripe => "stripe",
        HookScheme::GitHub => "github",
        HookScheme::Shopify => "shopify",
        HookScheme::Hmac { .. } => "hmac_sha256",
    }
}

fn as_json(loaded: &Loaded) -> Json {
    json!({
        "for": "ingest",
        "values": values(loaded),
        "warnings": warnings_of_door(&loaded.config),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Purpose, TARGET_EXAMPLE, load};

    const CLIENT: &str = "[[ingest.client]]\nname = \"crm\"\ntokens = [\"${TOKEN}\"]\n";
    const HOOK: &str = "[[ingest.hook]]\nname = \"shop\"\nverify = \"shopify\"\nsecrets = [\"${TOKEN}\"]\nrecord_key = \
                        [\"/id\"]\n";

    fn loaded(text: &str, purpose: Purpose) -> Result<Loaded, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door.toml");
        std::fs::write(&path, text).unwrap();
        let environment: Environment = [("TOKEN", "0123456789abcdef-crm")].into_iter().collect();
        load(Some(&path), &environment, purpose).map_err(|faults| faults.to_string())
    }

    #[test]
    fn what_is_in_the_file_decides_what_it_is_judged_as() {
        let check = |text: &str, expected| {
            assert_eq!(loaded(text, Purpose::Check).unwrap().purpose, expected, "{text}");
        };
        check(CLIENT, Purpose::Ingest);
        check(HOOK, Purpose::Ingest);
        check(TARGET_EXAMPLE, Purpose::Dispatch);
        check(&format!("{CLIENT}{TARGET_EXAMPLE}"), Purpose::Dispatch);
        let lacks_a_target = |text: &str, purpose| {
            let faults = loaded(text, purpose).unwrap_err();
            assert!(faults.contains("there is no [[target]]"), "{faults}");
            faults
        };
        lacks_a_target("", Purpose::Check);
        lacks_a_target("[ingest]\nrequire_id = false\n", Purpose::Check);
        assert!(lacks_a_target(CLIENT, Purpose::Dispatch).contains("`lanekeeper ingest` alone"));
        // `doctor` needs no target.
        let examine = |text: &str, expected| {
            assert_eq!(loaded(text, Purpose::Examine).unwrap().purpose, expected, "{text}");
        };
        examine(CLIENT, Purpose::Ingest);
        examine("", Purpose::Publish);
        examine(&format!("{CLIENT}{TARGET_EXAMPLE}"), Purpose::Publish);
        // What only a door needs is a fault for a door.
        let faults = loaded(&format!("[ingest]\nlisten = \"0.0.0.0:1\"\n{CLIENT}"), Purpose::Check);
        assert!(faults.unwrap_err().contains("without TLS"));
    }

    #[test]
    fn a_door_is_shown_without_its_secrets() {
        let loaded = loaded(&format!("[ledger]\nurl = \"none\"\n{CLIENT}{HOOK}"), Purpose::Check).unwrap();
        let (text, json) = (as_text(&loaded), as_json(&loaded));
        assert!(!text.contains("0123456789") && !json.to_string().contains("0123456789"), "{text}{json}");
        assert!(text.starts_with("Judged as a config for a door alone"), "{text}");
        assert!(!text.contains("[retry]") && text.contains("[ledger]"), "{text}");
        assert_eq!(json["for"], "ingest");
        insta::assert_snapshot!(text[text.find("Door\n").unwrap()..], @r#"
        Door
          listen   127.0.0.1:9480, reached by this host alone
          TLS      none: it speaks plain HTTP
          client   crm: 1 token in authorization; types *; at most 5000 updates wait; without rate_max
          hook     /hooks/shop: shopify, 1 secret; at most 5000 updates wait; answered within 4s
          bounds   10000 updates with 67108864 bytes wait, 100 of one record; 256 connections; 1000 updates with 8388608 bytes in one request, each up to 1048576 bytes
          ledger   none

        Warnings
        - [ingest]: without a ledger, an update that its sender sends again by another door, or after a restart, is published twice and sent to its target twice. Set ledger.url for `lanekeeper run`.
        "#);
    }
}
