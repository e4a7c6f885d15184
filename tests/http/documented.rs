//! Each config in docs/connecting.md is one that `lanekeeper run` takes.

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
