//! A token server that others have written: authlib, which checks what it is asked with.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use lanekeeper::config::{Environment, Purpose};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};

use crate::oauth2::attempt;
use crate::server::{Server, answer};
use crate::targets;

/// authlib and Flask, with a server of them.
struct Authlib {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: String,
}

impl Authlib {
    fn start(public_key: &Path, kind: &str) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let packages = project.join(".lanekeeper/examples/oauth2");
        assert!(packages.join("authlib").is_dir(), "authlib is missing: scripts/test installs it");
        let mut process = Command::new("python3")
            .arg(project.join("tests/http/authlib_server.py"))
            .args([public_key.as_os_str(), kind.as_ref()])
            .env("PYTHONPATH", packages)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs: scripts/test installs it");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next().expect("it writes its port; its errors are above").unwrap();
        Self { process, lines, port }
    }

    /// The client, scope and subject of the next token.
    fn next_token(&mut self) -> String {
        self.lines.next().expect("it runs").unwrap()
    }
}

impl Drop for Authlib {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One attempt at a target with this `[target.auth]`, and the token that its request carried.
async fn ask(authlib: &Authlib, auth: &str) -> (Outcome, Option<String>) {
    let mut target = Server::answering(answer("204 No Content", "", ""), false).await;
    let text = format!(
        "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"http://{}/customers/{{record_key}}\"\n\
         connect_timeout = \"20s\"\n{}",
        target.address,
        auth.replace("PORT", &authlib.port)
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let loaded = lanekeeper::config::load(Some(file.path()), &Environment::default(), Purpose::Dispatch);
    let config = loaded.unwrap_or_else(|faults| panic!("{faults}")).config.targets.remove(0);
    let outcome = attempt(&targets(config).unwrap()).await;
    let request = if outcome == Outcome::Applied { target.next_request().await } else { String::new() };
    let token = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
    (outcome, token.map(ToOwned::to_owned))
}

fn client(id: &str, secret: &str, send_secret: &str) -> String {
    format!(
        "[target.auth.oauth2]\ntoken_url = \"http://127.0.0.1:PORT/token\"\nclient_id = \"{id}\"\n\
         client_secret = \"{secret}\"\nsend_secret = \"{send_secret}\"\nscopes = [\"read\", \"write\"]\n"
    )
}

#[tokio::test]
async fn it_takes_the_secret_in_the_header_and_in_the_body() {
    let mut authlib = Authlib::start(Path::new("none"), "-");
    for (id, send_secret) in [("basic:1", "header"), ("post&1", "body")] {
        let (outcome, token) = ask(&authlib, &client(id, "s3cr%t:&ä", send_secret)).await;
        assert_eq!(outcome, Outcome::Applied, "{send_secret}");
        assert!(token.is_some_and(|token| token.len() > 20));
        assert_eq!(authlib.next_token(), format!("{id} read write -"));
    }
}

#[tokio::test]
async fn its_error_is_the_reason_why_there_is_no_token() {
    let authlib = Authlib::start(Path::new("none"), "-");
    let (outcome, _) = ask(&authlib, &client("basic:1", "wrong", "header")).await;
    let Outcome::Refused(Failure { cause: Cause::NoCredential, detail }) = &outcome else {
        panic!("{outcome:?}")
    };
    let begin = format!("token server http://127.0.0.1:{}/token: status 401: invalid_client: ", authlib.port);
    assert!(detail.starts_with(&begin), "{detail}");
}

#[tokio::test]
async fn it_takes_an_assertion_of_each_kind_of_key() {
    let directory = tempfile::tempdir().unwrap();
    let [private, public] = ["private.pem", "public.pem"].map(|name| directory.path().join(name));
    for (kind, algorithm, arguments) in [
        ("RSA", "RS256", ["RSA", "rsa_keygen_bits:2048"]),
        ("RSA", "PS512", ["RSA", "rsa_keygen_bits:3072"]),
        ("EC", "ES384", ["EC", "ec_paramgen_curve:P-384"]),
        ("OKP", "EdDSA", ["ED25519", ""]),
        ("EC", "ES256", ["EC", "ec_paramgen_curve:P-256"]),
        ("OKP", "Ed25519", ["ED25519", ""]),
    ] {
        let option = if arguments[1].is_empty() { &[][..] } else { &["-pkeyopt", arguments[1]] };
        openssl(
            Command::new("openssl")
                .args(["genpkey", "-algorithm", arguments[0], "-out"])
                .arg(&private)
                .args(option),
        );
        openssl(
            Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public),
        );
        let mut authlib = Authlib::start(&public, kind);
        let auth = format!(
            "[target.auth.jwt_bearer]\ntoken_url = \"http://127.0.0.1:PORT/token\"\nissuer = \"jwt-1\"\n\
             subject = \"crm-writer\"\nkey = \"file:{}\"\nalgorithm = \"{algorithm}\"\nscopes = [\"write\"]\n",
            private.display()
        );
        let (outcome, token) = ask(&authlib, &auth).await;
        assert_eq!(outcome, Outcome::Applied, "{algorithm}");
        assert!(token.is_some());
        assert_eq!(authlib.next_token(), "jwt-1 write crm-writer");
    }
}

fn openssl(command: &mut Command) {
    let output = command.output().expect("openssl runs: scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
