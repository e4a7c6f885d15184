//! `[target.tls]`, against the server of OpenSSL.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use lanekeeper::config::TargetConfig;
use lanekeeper::http::Target;
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_core::update::Update;

use crate::authority::{Authority, Issued};
use crate::https_target::HttpsTarget;
use crate::proxy_server::ConnectProxy;
use crate::{attempt_of, target_at, target_with, targets, update};

/// `openssl s_server`, which answers 200 to GET.
struct OpensslServer {
    process: Child,
    port: u16,
}

impl OpensslServer {
    /// `issued`: what it shows. It knows the certificate of `authority`.
    fn start(authority: &Authority, issued: &Issued, arguments: &[&str]) -> Self {
        let [certificate, key] = issued.write(authority, "server");
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-verify_return_error"]);
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
        command.arg("-CAfile").arg(authority.file()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("OpenSSL is installed: scripts/test installs it");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        // It stops when nobody reads what it prints.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A target at this server, with lines of `[target.tls]` after those of the target.
fn at(server: &OpensslServer, host: &str, lines: &str, tls: &str) -> TargetConfig {
    let lines = format!("method = \"GET\"\n{lines}\n[target.tls]\n{tls}");
    let mut config = target_at(([127, 0, 0, 1], server.port).into(), &lines);
    let url = format!("https://{host}:{}/customers/{{record_key}}", server.port);
    config.url = UrlTemplate::parse(&url).unwrap();
    config
}

fn file(key: &str, path: &Path) -> String {
    format!("{key} = \"file:{}\"\n", path.display())
}

/// The keys for a client certificate, whose files `authority` holds.
fn client(authority: &Authority, issued: &Issued) -> String {
    let [certificate, key] = issued.write(authority, "client");
    file("certificate", &certificate) + &file("key", &key)
}

/// An attempt without a body: the server of OpenSSL reads none.
async fn sent(config: TargetConfig) -> Outcome {
    let update = Update { body: Bytes::new(), ..update("k") };
    targets(config).unwrap().attempt(attempt_of(update)).await
}

#[track_caller]
fn assert_fails(ended: Outcome, is_refused: bool, words: &str) {
    let failure = match ended {
        Outcome::Refused(failure) if is_refused => failure,
        Outcome::Retryable { failure, .. } if !is_refused => failure,
        other => panic!("{words:?}: {other:?}"),
    };
    assert_eq!(failure.cause, Cause::Connection);
    assert!(failure.detail.contains(words), "{words:?} in {:?}", failure.detail);
}

#[tokio::test]
async fn a_server_that_demands_a_client_certificate_gets_ours_or_we_say_what_is_wrong() {
    let [authority, other] = ["ours", "other"].map(Authority::new);
    let ca = file("ca", &authority.file());
    for (version, without) in [
        ("-tls1_3", "the target demands a client certificate, and we have none"),
        ("-tls1_2", "it may demand a client certificate"),
    ] {
        let server = authority.issue("localhost");
        let server = OpensslServer::start(&authority, &server, &["-Verify", "2", version]);
        let at = |tls: &str| at(&server, "localhost", "", &format!("{ca}{tls}"));
        let right = client(&authority, &authority.issue("lanekeeper"));
        for _ in 0..3 {
            assert_eq!(sent(at(&right)).await, Outcome::Applied, "{version}");
        }
        for _ in 0..5 {
            assert_fails(sent(at("")).await, true, without);
        }
        let stranger = client(&other, &other.issue("lanekeeper"));
        assert_fails(sent(at(&stranger)).await, true, "does not trust the authority");
        let expired = client(&authority, &authority.issue_expired("lanekeeper"));
        assert_fails(sent(at(&expired)).await, true, "our client certificate has expired: renew");
    }
}

#[tokio::test]
async fn the_authorities_of_the_config_replace_those_of_the_system() {
    let [authority, other] = ["ours", "other"].map(Authority::new);
    let server = OpensslServer::start(&authority, &authority.issue("localhost"), &[]);
    let at = |tls: &str| at(&server, "localhost", "", tls);
    let ours = file("ca", &authority.file());
    assert_eq!(sent(at(&ours)).await, Outcome::Applied);
    assert_fails(sent(at("")).await, false, "an authority that this machine does not trust (CN=ours)");
    assert_fails(sent(at(&file("ca", &other.file()))).await, false, "not in the target's tls.ca (CN=ours)");
    let both = authority.file().with_file_name("both.pem");
    std::fs::write(&both, format!("{}\n{}", other.pem(), authority.pem())).unwrap();
    assert_eq!(sent(at(&file("ca", &both))).await, Outcome::Applied);
}

#[tokio::test]
async fn the_name_of_the_config_replaces_that_of_the_url() {
    let authority = Authority::new("ours");
    let issued = authority.issue("crm.example");
    let names = ["-servername", "crm.example", "-servername_fatal"];
    let [certificate, key] = issued.write(&authority, "named");
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let arguments = [&names[..], &["-cert2", &certificate, "-key2", &key]].concat();
    let server = OpensslServer::start(&authority, &issued, &arguments);
    let ca = file("ca", &authority.file());
    let named = |name: &str| at(&server, "127.0.0.1", "", &format!("{ca}server_name = \"{name}\""));
    assert_eq!(sent(named("crm.example")).await, Outcome::Applied);
    let plain = OpensslServer::start(&authority, &issued, &[]);
    let ended = sent(at(&plain, "localhost", "", &ca)).await;
    assert_fails(ended, false, "not for the host name in the URL (it is for crm.example)");
    let ended = sent(at(&plain, "localhost", "", &format!("{ca}server_name = \"erp.example\""))).await;
    assert_fails(ended, false, "not for the target's tls.server_name (it is for crm.example)");
}

#[tokio::test]
async fn a_version_of_http_that_the_server_does_not_offer_is_a_refusal() {
    let authority = Authority::new("ours");
    let ca = file("ca", &authority.file());
    let check = async |alpn: &[&str], version: &str, words: Option<&str>| {
        let server = OpensslServer::start(&authority, &authority.issue("localhost"), alpn);
        let ended = sent(at(&server, "localhost", &format!("http_version = \"{version}\""), &ca)).await;
        match words {
            None => assert_eq!(ended, Outcome::Applied, "{alpn:?} {version}"),
            Some(words) => assert_fails(ended, true, words),
        }
    };
    check(&[], "auto", None).await;
    check(&[], "1.1", None).await;
    check(&[], "2", Some("does not offer HTTP/2")).await;
    check(&["-alpn", "http/1.1"], "auto", None).await;
    check(&["-alpn", "http/1.1"], "2", Some("no version of HTTP that http_version allows")).await;
    check(&["-alpn", "h2,http/1.1"], "1.1", None).await;
    // For HTTP/1.1 alone we ask for no protocol, and it is what a server speaks then.
    check(&["-alpn", "h2"], "1.1", None).await;
}

#[tokio::test]
async fn mutual_tls_goes_through_a_proxy() {
    let authority = Authority::new("ours");
    let server = OpensslServer::start(&authority, &authority.issue("crm.invalid"), &["-Verify", "2"]);
    let proxy = ConnectProxy::start(([127, 0, 0, 1], server.port).into()).await;
    let tls = file("ca", &authority.file()) + &client(&authority, &authority.issue("lanekeeper"));
    let through =
        |tls: &str| at(&server, "crm.invalid", &format!("proxy = \"http://{}\"", proxy.address), tls);
    assert_eq!(sent(through(&tls)).await, Outcome::Applied);
    assert!(proxy.asked()[0].starts_with(&format!("CONNECT crm.invalid:{} ", server.port)));
    let ended = sent(through(&file("ca", &authority.file()))).await;
    assert_fails(ended, true, "demands a client certificate");
}

/// Over HTTP/2, the error of a request has the alert as text alone.
#[tokio::test]
async fn the_reason_of_a_refused_handshake_is_known_in_both_versions_of_http() {
    let authority = Authority::new("ours");
    let ca = file("ca", &authority.file());
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let server = HttpsTarget::start_demanding(protocol, &authority.issue("localhost"), &authority).await;
        let lines = format!("[target.tls]\n{ca}");
        let mut config = target_at(([127, 0, 0, 1], server.port).into(), &lines);
        let url = format!("https://localhost:{}/customers/{{record_key}}", server.port);
        config.url = UrlTemplate::parse(&url).unwrap();
        let targets = targets(config).unwrap();
        for _ in 0..20 {
            let attempt = || targets.attempt(attempt_of(update("k")));
            let ended = tokio::join!(attempt(), attempt(), attempt());
            for ended in [ended.0, ended.1, ended.2] {
                assert_fails(ended, true, "the target demands a client certificate, and we have none");
            }
        }
        assert_eq!(server.seen(), []);
    }
}

/// It is another server than the target: it has a name of its own, and is shown no certificate of ours.
#[tokio::test]
async fn a_token_server_is_trusted_by_the_authorities_of_the_target_and_has_its_own_name() {
    let authority = Authority::new("ours");
    let server = HttpsTarget::start(b"h2", &authority.issue("localhost")).await;
    let sent = async |tls: &str| {
        let config = target_with(&format!(
            "url = \"https://crm.invalid/{{record_key}}\"\n[target.auth.oauth2]\n\
             token_url = \"https://localhost:{}/token\"\nclient_id = \"a\"\nclient_secret = \"b\"\n{tls}",
            server.port
        ));
        match targets(config).unwrap().attempt(attempt_of(update("k"))).await {
            Outcome::Refused(failure) => failure.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let issued = sent("").await;
    assert!(issued.contains("ours"), "who has issued its certificate: {issued}");
    let ca = file("ca", &authority.file());
    let answered = sent(&format!("[target.tls]\n{ca}\nserver_name = \"crm.example\"\n")).await;
    assert!(answered.contains("status 200"), "it was asked, and its answer is no token: {answered}");
    assert_eq!(server.seen().len(), 1);
}
