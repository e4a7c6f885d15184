//! Each config in docs/connecting.md is one that `lanekeeper run` takes, and those of docs/ingest.md for other hosts are ones
//! that `lanekeeper ingest` takes.

use lanekeeper::config::{Environment, Purpose};

use crate::authority::Authority;

const TARGET: &str = "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"https://h/{record_key}\"\n";
/// Where the docs have secrets.
const SECRETS: &str = "/run/secrets/";

#[test]
fn the_targets_of_the_docs_are_sound() {
    let authority = Authority::new("ours");
    let [certificate, key] = authority.issue("lanekeeper").write(&authority, "client");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = authority.file().with_file_name("webhook");
    std::fs::write(&webhook, format!("{secret}\n")).unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(authority.file().with_file_name("crm.pem"), pair.serialize_pem()).unwrap();
    let variables = ["PROXY_USER", "PROXY_PASSWORD", "CRM_USER", "CRM_PASSWORD", "CRM_KEY", "CRM_SECRET"];
    let environment: Environment = variables.map(|name| (name, "s3cret")).into_iter().collect();
    let docs = include_str!("../../docs/connecting.md");
    let configs: Vec<&str> =
        docs.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(configs.len() >= 8);
    for config in configs {
        // Some show what is another way in a target.
        let config =
            if config.contains("[[target]]") { config.to_owned() } else { format!("{TARGET}{config}") };
        let (file, written) =
            (authority.file().with_file_name("lanekeeper.toml"), config.replace(SECRETS, ""));
        let written = written.replace("client.pem", &certificate.display().to_string());
        std::fs::write(&file, written.replace("client.key", &key.display().to_string())).unwrap();
        let loaded = lanekeeper::config::load(Some(&file), &environment, Purpose::Dispatch);
        loaded.unwrap_or_else(|faults| panic!("{config}\n{faults}"));
    }
}

#[test]
fn the_doors_of_the_docs_for_other_hosts_are_sound() {
    let authority = Authority::new("ours");
    let [certificate, key] = authority.issue("door.example").write(&authority, "door");
    let environment: Environment =
        [("DOOR_BROKER_PASSWORD", "s3cret"), ("TOKEN", "0123456789abcdef-crm")].into_iter().collect();
    let (_, section) = include_str!("../../docs/ingest.md").split_once("### Other hosts\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let configs: Vec<&str> =
        section.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(configs.len(), 2, "with a certificate, and without");
    for config in configs {
        let config = config
            .replace(&format!("{SECRETS}door.pem"), &certificate.display().to_string())
            .replace(&format!("{SECRETS}door.key"), &key.display().to_string());
        let config = format!("{config}\n[[ingest.client]]\nname = \"crm\"\ntokens = [\"${{TOKEN}}\"]\n");
        let file = authority.file().with_file_name("door.toml");
        std::fs::write(&file, &config).unwrap();
        let loaded = lanekeeper::config::load(Some(&file), &environment, Purpose::Ingest);
        let loaded = loaded.unwrap_or_else(|faults| panic!("{config}\n{faults}"));
        assert!(!loaded.config.ingest.is_on_loopback(), "{config}");
    }
}
