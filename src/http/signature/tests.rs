//! Signatures against published examples, and against those that another implementation has made.

use std::time::UNIX_EPOCH;

use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};

use super::*;
use crate::config::{Environment, Purpose, TARGET_EXAMPLE, load};

/// The signer of a target with these lines.
fn signer(lines: &str) -> Signer {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TARGET_EXAMPLE}\n[target.signature{lines}")).unwrap();
    let loaded = load(Some(file.path()), &Environment::default(), Purpose::Dispatch);
    let config = loaded.unwrap_or_else(|faults| panic!("{faults}")).config;
    Signer::new(&config.targets[0].signature)
}

/// A request with this body that was signed at this time, in seconds since 1970.
fn signed(lines: &str, id: &str, body: &[u8], at: u64) -> Request<Bytes> {
    let request = Request::post("https://crm.example/customers/a%2Fb?x=1&y=%20");
    let mut request = request.body(Bytes::copy_from_slice(body)).unwrap();
    signer(lines).sign(&mut request, id, UNIX_EPOCH + Duration::from_millis(at * 1000 + 7)).unwrap();
    request
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> &'a str {
    request.headers()[name].to_str().unwrap()
}

fn check_webhook(secrets: &str, expected: &str) {
    let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
    let request = signed(&format!("]\nstandard_webhooks = {secrets}"), id, body, 1_614_265_330);
    assert_eq!(header(&request, "webhook-id"), id);
    assert_eq!(header(&request, "webhook-timestamp"), "1614265330");
    assert_eq!(header(&request, "webhook-signature"), expected, "{secrets}");
}

/// The first is the example of the libraries of Standard Webhooks. That of ed25519, whose key is the one of RFC 8032, 7.1,
/// test 1, was made with OpenSSL.
#[test]
fn a_webhook_is_signed_as_standard_webhooks_says() {
    let symmetric = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let ed25519 =
        "v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw==";
    let seed = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    let seed_and_public =
        "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
    check_webhook("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"", symmetric);
    check_webhook(&format!("\"{seed}\""), ed25519);
    check_webhook(&format!("\"{seed}=\""), ed25519);
    check_webhook(&format!("\"{seed_and_public}\""), ed25519);
    let both = format!("{symmetric} {ed25519}");
    check_webhook(&format!("[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\", \"{seed}\"]"), &both);
    check_webhook(&format!("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\\n{seed}\""), &both);
}

#[test]
fn each_attempt_has_its_own_time_and_the_id_of_the_update() {
    let lines = "]\nstandard_webhooks = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";
    let [first, second] = [100, 105].map(|at| signed(lines, "u-1", b"x", at));
    assert_eq!([&first, &second].map(|request| header(request, "webhook-id")), ["u-1"; 2]);
    assert_eq!([&first, &second].map(|request| header(request, "webhook-timestamp")), ["100", "105"]);
    assert_ne!(header(&first, "webhook-signature"), header(&second, "webhook-signature"));
    let mut request = Request::new(Bytes::new());
    let unfit = signer(lines).sign(&mut request, "ü", UNIX_EPOCH);
    assert!(unfit.unwrap_err().contains("webhook-id"));
    assert!(request.headers().is_empty());
}

#[test]
fn any_message_that_ed25519_has_signed_is_verified() {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec());
    let lines = format!("]\nstandard_webhooks = \"whsk_{}\"", BASE64.encode([7; 32]));
    for body in [&b""[..], b"{}", &[0xff; 1000]] {
        let request = signed(&lines, "a.b", body, 5);
        let signature = header(&request, "webhook-signature").strip_prefix("v1a,").unwrap().to_owned();
        let content = [b"a.b.5.", body].concat();
        public.verify(&content, &BASE64.decode(signature).unwrap()).unwrap();
    }
}

fn check_hmac(lines: &str, body: &[u8], at: u64, expected: &[(&str, &str)]) {
    let request = signed(&format!(".hmac]\n{lines}"), "u-1", body, at);
    let headers: Vec<(&str, &str)> =
        request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, expected, "{lines}");
}

/// RFC 4231, sections 4.2 to 4.4, 4.7 and 4.8; for SHA-1, RFC 2202, section 3.
#[test]
fn an_hmac_is_that_of_the_rfcs() {
    let check = |key: &str, data: &[u8], [sha256, sha512]: [&str; 2]| {
        for (algorithm, expected) in [("sha256", sha256), ("sha512", sha512)] {
            let lines = format!(
                "header = \"X\"\nsecret = \"{key}\"\nsecret_encoding = \"hex\"\nalgorithm = \"{algorithm}\""
            );
            check_hmac(&lines, data, 0, &[("x", expected)]);
        }
    };
    check(
        &"0b".repeat(20),
        b"Hi There",
        [
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e6\
             96c203a126854",
        ],
    );
    check(
        "4a656665",
        b"what do ya want for nothing?",
        [
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636\
             e070a38bce737",
        ],
    );
    check(
        &"aa".repeat(20),
        &[0xdd; 50],
        [
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278\
             859e13292fb",
        ],
    );
    check(
        &"aa".repeat(131),
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        [
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915\
             a985d786598",
        ],
    );
    let sha1 = "header = \"X\"\nsecret = \"Jefe\"\nalgorithm = \"sha1\"";
    let data = b"what do ya want for nothing?";
    check_hmac(sha1, data, 0, &[("x", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")]);
    let sha1 = format!("{sha1}\nencoding = \"base64\"");
    check_hmac(&sha1, data, 0, &[("x", "7/zfauXrL6LSdBbV8YTfnCWafHk=")]);
}

/// The example of GitHub's docs ("Validating webhook deliveries") and that of Slack's ("Verifying requests from Slack").
#[test]
fn the_schemes_of_real_apis_can_be_written() {
    check_hmac(
        "header = \"X-Hub-Signature-256\"\nsecret = \"It's a Secret to Everybody\"\nvalue = \"sha256={signature}\"",
        b"Hello, World!",
        0,
        &[("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")],
    );
    check_hmac(
        "header = \"X-Slack-Signature\"\nsecret = \"8f742231b10e8888abcd99yyyzzz85a5\"\n\
         content = \"v0:{timestamp}:{body}\"\nvalue = \"v0={signature}\"\n\
         timestamp_header = \"X-Slack-Request-Timestamp\"",
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&\
          user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com\
          %2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14\
          d10d2c447fce8b6703c",
        1_531_420_618,
        &[
            (
                "x-slack-signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
            ("x-slack-request-timestamp", "1531420618"),
        ],
    );
}

#[test]
fn a_template_says_what_is_signed_and_several_secrets_sign_at_once() {
    let hmac = |key: &[u8], content: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        encode(SignatureEncoding::Hex, hmac::sign(&key, content.as_bytes()).as_ref())
    };
    let content = "POST\n/customers/a%2Fb\nx=1&y=%20\nu-1\n5007\n{}";
    let (one, two) = (hmac(b"one", content), hmac(b"two", content));
    check_hmac(
        "header = \"X-Signature\"\nsecret = [\"one\", \"two\"]\nseparator = \",v1=\"\ntimestamp_unit = \"ms\"\n\
         content = \"{method}\\n{path}\\n{query}\\n{update_id}\\n{timestamp}\\n{body}\"\n\
         value = \"t={timestamp},v1={signature}\"",
        b"{}",
        5,
        &[("x-signature", &format!("t=5007,v1={one},v1={two}"))],
    );
}
