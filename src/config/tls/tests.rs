//! Faults and warnings of `[target.tls]`.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::super::{Environment, Loaded, Purpose, TARGET_EXAMPLE, read};
use super::*;

/// A certificate that signs itself, with its key, which ends this many days from now.
fn issue(days: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["crm.example".to_owned()]).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let ends = SystemTime::now() + day * 10_000 - day * u32::try_from(10_000 - days).unwrap();
    params.not_after = ends.into();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// `ca.pem`, `client.pem` and `client.key`, which belong together.
pub(in super::super) fn write_files(dir: &Path) {
    let (certificate, key) = issue(1000);
    std::fs::write(dir.join("ca.pem"), &certificate).unwrap();
    std::fs::write(dir.join("client.pem"), &certificate).unwrap();
    std::fs::write(dir.join("client.key"), &key).unwrap();
}

fn load(dir: &Path, lines: &str) -> Result<Loaded, String> {
    let text = format!("{TARGET_EXAMPLE}\n[target.tls]\n{lines}");
    let file = dir.join("lk.toml");
    read(Some((&file, &text)), &Environment::default(), Purpose::Dispatch)
        .map_err(|faults| faults.to_string())
}

#[test]
fn each_file_is_checked_and_nothing_of_it_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path());
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let key = std::fs::read_to_string(dir.path().join("client.key")).unwrap();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBO\n-----END ENCRYPTED PRIVATE KEY-----\n";
    write("encrypted.key", encrypted);
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\nMIIFHDBO\n-----END RSA PRIVATE KEY-----\n";
    write("old.key", old);
    write("other.key", &issue(10).1);
    write("odd.key", "-----BEGIN PRIVATE KEY-----\nMIIFHDBO\n-----END PRIVATE KEY-----\n");
    write("none.pem", "MIIFHDBO");
    write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIFHDBO\n");
    write("odd.pem", "-----BEGIN CERTIFICATE-----\nMIIFHDBO\n-----END CERTIFICATE-----\n");
    let fault = |lines: &str, key: &str, part: &str| {
        let report = load(dir.path(), lines).expect_err(lines);
        let expected = format!("the config has 1 fault\n\ntarget[0].tls.{key} (");
        assert!(report.starts_with(&expected) && report.contains(part), "{lines}\n{report}");
        assert!(!report.contains("MIIF"), "{report}");
    };
    let certificate = "certificate = \"file:client.pem\"";
    let with_key = |name: &str| format!("{certificate}\nkey = \"file:{name}\"");
    fault(&with_key("other.key"), "key", "does not belong to the certificate");
    fault(&with_key("encrypted.key"), "key", "is encrypted");
    fault(&with_key("old.key"), "key", "is encrypted");
    fault(&with_key("client.pem"), "key", "has no private key");
    fault(&with_key("odd.key"), "key", "of a kind that cannot be used");
    fault(&with_key("gone.key"), "key", "cannot read the file");
    fault(certificate, "certificate", "is set, and key is not");
    fault("key = \"file:client.key\"", "key", "is set, and certificate is not");
    let pair = |name: &str| format!("certificate = \"file:{name}\"\nkey = \"file:client.key\"");
    fault(&pair("client.key"), "certificate", "has no certificate");
    fault(&pair("odd.pem"), "certificate", "cannot be read");
    fault("ca = \"file:none.pem\"", "ca", "has no certificate");
    fault("ca = \"file:cut.pem\"", "ca", "not whole");
    fault("ca = \"file:odd.pem\"", "ca", "cannot be read");
    fault("server_name = \"https://crm\"", "server_name", "\"https://crm\" is neither a host name");
    fault("server_name = 7", "server_name", "is not a string");
    fault("ca_file = \"ca.pem\"", "ca_file", "there is no such key");
    let inline = format!(
        "certificate = \"file:client.pem\"\nkey = '''\n{key}'''\nca = \"file:ca.pem\"\nserver_name = \"crm\""
    );
    let loaded = load(dir.path(), &inline).unwrap();
    let tls = &loaded.config.targets[0].tls;
    assert_eq!((tls.authorities.len(), tls.client.as_ref().unwrap().chain.len()), (1, 1));
    let shown = format!("{loaded:?} {}", serde_json::to_string(&loaded.shown).unwrap());
    let secret = key.lines().nth(1).unwrap();
    assert!(!shown.contains(secret) && !shown.contains("BEGIN"), "{shown}");
    assert!(shown.contains("\"key\",\"value\":\"***\""), "{shown}");
}

#[test]
fn a_fault_elsewhere_keeps_its_words_beside_many_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let certificates: String = (0..50).map(|_| issue(10).0).collect();
    std::fs::write(dir.path().join("ca.pem"), certificates).unwrap();
    let report = load(dir.path(), "ca = \"file:ca.pem\"\n[target.failure]\nrejected = \"drop\"").unwrap_err();
    assert!(report.contains("\"drop\" is not a value of this key"), "{report}");
}

#[test]
fn a_client_certificate_that_ends_soon_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let check = |days: i64, expected: Option<&str>| {
        let (certificate, key) = issue(days);
        std::fs::write(dir.path().join("client.pem"), certificate).unwrap();
        std::fs::write(dir.path().join("client.key"), key).unwrap();
        let lines = "certificate = \"file:client.pem\"\nkey = \"file:client.key\"";
        let config = load(dir.path(), lines).unwrap().config;
        let warnings = super::super::warnings(&config);
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{days}: {warnings:?}");
        if let Some(expected) = expected {
            assert!(warnings[0].contains(expected), "{days}: {warnings:?}");
        }
    };
    check(1000, None);
    check(15, None);
    check(13, Some("expires at "));
    check(1, Some("Renew it."));
    check(-1, Some("has expired at "));
}
