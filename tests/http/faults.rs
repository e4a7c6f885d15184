//! Why there is no connection, or no answer, in words that name neither the record key nor the URL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper::config::TargetConfig;
use lanekeeper::http::Target;
use lanekeeper::http::client::{HttpTargets, Names};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::template::UrlTemplate;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::Server;
use crate::{TEST_TIMEOUT, attempt, attempt_of, target, targets, update};

/// The failure of an attempt at a target with this URL, which has the record key `k` in it.
fn failure_of(outcome: Outcome) -> Failure {
    let Outcome::Retryable { failure, retry_after: None } = outcome else { panic!("{outcome:?}") };
    for private in ["customers", "/k", "https:", "http:"] {
        assert!(!failure.detail.contains(private), "{private} in {}", failure.detail);
    }
    failure
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn at(url: &str) -> TargetConfig {
    TargetConfig {
        url: UrlTemplate::parse(&format!("{url}/customers/{{record_key}}")).unwrap(),
        ..target(([127, 0, 0, 1], 1).into())
    }
}

async fn attempt_with(config: TargetConfig, addresses: Vec<SocketAddr>) -> Outcome {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let names: Names = Arc::new(move |_| Some(addresses.clone()));
    let targets = HttpTargets::with_names(&[config], &names).unwrap();
    targets.attempt(attempt_of(update("k"))).await
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved() {
    // No label is that long, so that no server is asked.
    let name = format!("{}.example", "x".repeat(64));
    let failure =
        failure_of(targets(at(&format!("http://{name}"))).unwrap().attempt(attempt_of(update("k"))).await);
    assert_eq!(failure.cause, Cause::Connection, "{failure}");
    let says = format!("the name {name} cannot be resolved: ");
    assert!(failure.detail.starts_with(&says), "{failure}");
}

#[tokio::test]
async fn a_name_without_addresses() {
    let failure = failure_of(attempt_with(at("http://none.example"), Vec::new()).await);
    assert_eq!(failure.to_string(), "connection: the name none.example has no address");
}

#[tokio::test]
async fn a_refused_connection_names_each_address() {
    let (one, other) = (nobody().await, nobody().await);
    let failure = failure_of(attempt(target(one)).await);
    assert_eq!(failure.to_string(), format!("connection: connection refused by {one}"));
    let failure = failure_of(attempt_with(at("http://two.example"), vec![one, other]).await);
    let expected = format!("connection: connection refused by {one}; connection refused by {other}");
    assert_eq!(failure.to_string(), expected);
}

#[tokio::test]
async fn a_connection_that_takes_too_long_names_who_did_not_answer() {
    let silent = crate::connecting::silent_address().await;
    let refusing = nobody().await;
    let within = Duration::from_millis(600);
    let config = TargetConfig { connect_timeout: within, ..at("http://two.example") };
    let failure = failure_of(attempt_with(config, vec![silent.address, refusing]).await);
    assert_eq!(failure.cause, Cause::Timeout);
    let expected = format!(
        "no connection within 600ms: no answer from {}; connection refused by {refusing}",
        silent.address
    );
    assert_eq!(failure.detail, expected);
}

#[tokio::test]
async fn a_handshake_that_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let config = TargetConfig { connect_timeout: Duration::from_millis(400), ..at(&url) };
    let failure = failure_of(attempt(config).await);
    assert_eq!(failure.cause, Cause::Timeout);
    assert!(failure.detail.starts_with("no TLS session within 400ms"), "{failure}");
}

#[tokio::test]
async fn a_connection_that_is_closed_before_the_answer() {
    let closing = Server::start(|mut connection| async move {
        connection.request().await;
    })
    .await;
    let failure = failure_of(attempt(target(closing.address)).await);
    assert_eq!(failure.to_string(), "connection: the target closed the connection before it had answered");
    let resetting = Server::start(|mut connection| async move {
        connection.request().await;
        connection.stream.set_zero_linger().unwrap();
    })
    .await;
    let failure = failure_of(attempt(target(resetting.address)).await);
    assert_eq!(failure.to_string(), "connection: the connection was reset before the answer was complete");
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true).await;
    let failure = failure_of(attempt(target(server.address)).await);
    assert_eq!(
        failure.to_string(),
        "connection: the target closed the connection before its answer was complete"
    );
}

#[tokio::test]
async fn a_target_that_speaks_no_tls() {
    let closing = Server::start(|connection| async move { drop(connection) }).await;
    let failure = failure_of(attempt(at(&format!("https://{}", closing.address))).await);
    let says = ["the target closed the connection during the TLS handshake", "the connection was reset"];
    assert!(says.iter().any(|says| failure.detail.starts_with(says)), "{failure}");
    let plain = Server::start(|mut connection| async move {
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        connection.closed().await;
    })
    .await;
    let failure = failure_of(attempt(at(&format!("https://{}", plain.address))).await);
    assert!(failure.detail.starts_with("the target does not speak TLS at this port"), "{failure}");
}

/// An authority, and what it issues for a name.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, mut params: CertificateParams) -> TlsAcceptor {
        params.distinguished_name.push(DnType::CommonName, "the target");
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(certificate.der().clone(), &key)
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn for_name(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// The failure of an attempt at a target that shows a certificate, where `trusted` is trusted.
async fn refused(acceptor: TlsAcceptor, trusted: &Authority) -> Failure {
    let server = Server::start(move |connection| {
        let accepting = acceptor.accept(connection.stream);
        async move {
            let _ = accepting.await;
        }
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build().unwrap();
    let address = server.address;
    let names: Names = Arc::new(move |_| Some(vec![address]));
    let targets = HttpTargets::with_verifier(&[at("https://crm.example")], &names, verifier).unwrap();
    let ended = tokio::time::timeout(TEST_TIMEOUT, targets.attempt(attempt_of(update("k")))).await.unwrap();
    let failure = failure_of(ended);
    assert_eq!(failure.cause, Cause::Connection);
    failure
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_says_why_and_by_whom_it_was_issued() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (ours, proxy) = (Authority::new("Ours"), Authority::new("Inspecting\nProxy"));
    let check = async |acceptor: TlsAcceptor, begin: &str| {
        let failure = refused(acceptor, &ours).await;
        assert!(failure.detail.starts_with(begin), "{failure}");
    };
    check(
        proxy.issue(for_name("crm.example")),
        "the certificate is issued by an authority that this machine does not trust (CN=Inspecting Proxy)",
    )
    .await;
    let key = KeyPair::generate().unwrap();
    let own = for_name("crm.example").self_signed(&key).unwrap();
    check(
        acceptor(own.der().clone(), &key),
        "the certificate is issued by an authority that this machine does not trust (itself, CN=rcgen self signed cert)",
    )
    .await;
    check(
        ours.issue(for_name("erp.example")),
        "the certificate is not for the host name in the URL (it is for erp.example)",
    )
    .await;
    let mut expired = for_name("crm.example");
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    check(ours.issue(expired), "the certificate has expired").await;
    let mut early = for_name("crm.example");
    early.not_before = date_time_ymd(4000, 1, 1);
    check(ours.issue(early), "the certificate is not valid yet").await;
}
