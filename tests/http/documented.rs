//! Each config in docs/connecting.md is one that `lanekeeper run` takes.

use lanekeeper::config::{Environment, Purpose};

use crate::authority::Authority;

/// Where the docs have secrets.
const SECRETS: &str = "/run/secrets/";

#[test]
fn the_targets_of_the_docs_are_sound() {
    let authority = Authority::new("ours");
    let [certificate, key] = authority.issue("lanekeeper").write(&authority, "client");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = authority.file().with_file_name("webhook");
    std::fs::write(&webhook, format!("{secret}\n")).unwrap();
    let environment: Environment =
        [("PROXY_USER", "app"), ("PROXY_PASSWORD", "s3cret")].into_iter().collect();
    let docs = include_str!("../../docs/connecting.md");
    let configs: Vec<&str> =
        docs.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(configs.len() >= 4);
    for config in configs {
        let (file, written) =
            (authority.file().with_file_name("lanekeeper.toml"), config.replace(SECRETS, ""));
        let written = written.replace("client.pem", &certificate.display().to_string());
        std::fs::write(&file, written.replace("client.key", &key.display().to_string())).unwrap();
        let loaded = lanekeeper::config::load(Some(&file), &environment, Purpose::Dispatch);
        loaded.unwrap_or_else(|faults| panic!("{config}\n{faults}"));
    }
}
