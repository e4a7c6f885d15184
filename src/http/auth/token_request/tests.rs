use std::collections::BTreeMap;
use std::time::Duration;

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};

use super::*;
use crate::config::{AuthConfig, Environment, Purpose, load};

/// The grant of a config with these lines.
fn request(lines: &str) -> TokenRequest {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n{lines}", crate::config::TARGET_EXAMPLE)).unwrap();
    let loaded = load(Some(file.path()), &Environment::default(), Purpose::Dispatch);
    let mut targets = loaded.unwrap_or_else(|faults| panic!("{faults}")).config.targets;
    match targets.remove(0).auth {
        AuthConfig::OAuth2(grant) => TokenRequest::ClientCredentials(grant),
        AuthConfig::JwtBearer(grant) => TokenRequest::JwtBearer(grant),
        other => panic!("{other:?}"),
    }
}

const NOW: u64 = 1_700_000_000;

/// The header and the parameters.
fn prepare(lines: &str) -> (Option<String>, String, BTreeMap<String, String>) {
    let prepared = request(lines).prepare(UNIX_EPOCH + Duration::from_secs(NOW)).unwrap();
    let header = prepared.request.headers().get(AUTHORIZATION);
    let header = header.map(|value| value.to_str().unwrap().to_owned());
    let body = String::from_utf8(prepared.request.body().to_vec()).unwrap();
    let form = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    (header, body, form)
}

const CLIENT: &str = "[target.auth.oauth2]\ntoken_url = \"https://login.example/token?tenant=a\"\n\
    client_id = \"a b:c\"\nclient_secret = \"p%ss&wört\"\n";

/// RFC 6749, section 2.3.1: what basic authentication carries was form-encoded first.
#[test]
fn the_secret_goes_into_the_header_and_is_form_encoded_first() {
    let (header, body, _) = prepare(CLIENT);
    let expected = STANDARD.encode("a+b%3Ac:p%25ss%26w%C3%B6rt");
    assert_eq!(header.as_deref(), Some(format!("Basic {expected}").as_str()));
    assert_eq!(body, "grant_type=client_credentials");
}

#[test]
fn the_secret_goes_into_the_body_with_everything_else() {
    let (header, body, _) = prepare(&format!(
        "{CLIENT}send_secret = \"body\"\nscopes = [\"read\", \"write:all\"]\naudience = \"https://api/\"\nextra = {{ \
         resource = \"r&d\" }}"
    ));
    assert_eq!(header, None);
    assert_eq!(
        body,
        "grant_type=client_credentials&client_id=a+b%3Ac&client_secret=p%25ss%26w%C3%B6rt&audience=https%3A%2F%2Fapi\
         %2F&resource=r%26d&scope=read+write%3Aall"
    );
}

#[test]
fn the_request_is_a_form_for_the_token_url() {
    let request = request(CLIENT).prepare(SystemTime::now()).unwrap().request;
    assert_eq!(
        (request.method(), request.uri().to_string().as_str()),
        (&Method::POST, "https://login.example/token?tenant=a")
    );
    assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
    assert_eq!(request.headers()[ACCEPT], "application/json");
}

/// A private key as PEM, and its public key as ring takes it.
fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, Vec<u8>) {
    let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
    (pair.serialize_pem(), pair.public_key_raw().to_vec())
}

fn parts(assertion: &str) -> (Json, Json) {
    let part = |at| {
        let text = assertion.split('.').nth(at).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    (part(0), part(1))
}

fn check(algorithm: &str, pem: &str, public: &[u8], verification: &'static dyn VerificationAlgorithm) {
    let lines = format!(
        "[target.auth.jwt_bearer]\ntoken_url = \"https://login.example/token\"\nissuer = \"lanekeeper\"\nkey = \
         \"\"\"{pem}\"\"\"\nalgorithm = \"{algorithm}\"\nkey_id = \"k1\"\nscopes = [\"read\"]\nlifetime = \"60s\"\nclaims = {{ \
         scope = \"a b\", level = 5 }}"
    );
    let (header, _, form) = prepare(&lines);
    assert_eq!(header, None);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert_eq!(form["scope"], "read");
    let assertion = &form["assertion"];
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verified = UnparsedPublicKey::new(verification, public).verify(message.as_bytes(), &signature);
    assert!(verified.is_ok(), "{algorithm}");
    let (header, mut claims) = parts(assertion);
    assert_eq!(header, json!({ "alg": algorithm, "typ": "JWT", "kid": "k1" }));
    let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert!(Uuid::parse_str(id.as_str().unwrap()).is_ok());
    assert_eq!(
        claims,
        json!({
            "iss": "lanekeeper", "sub": "lanekeeper", "aud": "https://login.example/token", "iat": NOW,
            "exp": NOW + 60, "scope": "a b", "level": 5
        })
    );
}

/// ring makes no keys of RSA.
fn rsa_pem() -> String {
    let openssl = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl runs: scripts/test installs it");
    String::from_utf8(openssl.stdout).unwrap()
}

#[test]
fn an_assertion_is_signed_with_each_kind_of_key() {
    let (pem, public) = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    check("ES256", &pem, &public, &ECDSA_P256_SHA256_FIXED);
    let (pem, public) = key(&rcgen::PKCS_ECDSA_P384_SHA384);
    check("ES384", &pem, &public, &ECDSA_P384_SHA384_FIXED);
    let (pem, public) = key(&rcgen::PKCS_ED25519);
    check("EdDSA", &pem, &public, &ED25519);
    check("Ed25519", &pem, &public, &ED25519);
    let pem = rsa_pem();
    let pair = rcgen::KeyPair::from_pem(&pem).unwrap();
    for (algorithm, verification) in [
        ("RS256", &RSA_PKCS1_2048_8192_SHA256),
        ("RS384", &RSA_PKCS1_2048_8192_SHA384),
        ("RS512", &RSA_PKCS1_2048_8192_SHA512),
        ("PS256", &RSA_PSS_2048_8192_SHA256),
        ("PS384", &RSA_PSS_2048_8192_SHA384),
        ("PS512", &RSA_PSS_2048_8192_SHA512),
    ] {
        check(algorithm, &pem, pair.public_key_raw(), verification);
    }
}

#[test]
fn every_assertion_is_another_one() {
    let (pem, _) = key(&rcgen::PKCS_ED25519);
    let lines = format!(
        "[target.auth.jwt_bearer]\ntoken_url = \"http://h/t\"\nissuer = \"i\"\nkey = \"\"\"{pem}\"\"\"\nalgorithm = \"EdDSA\""
    );
    assert_ne!(prepare(&lines).2["assertion"], prepare(&lines).2["assertion"]);
}
