//! How an answer over TLS ends: with and without the farewell (`close_notify`).

use std::sync::Arc;
use std::time::Duration;

use lanekeeper::config::{AnswerBody, TargetConfig};
use lanekeeper::http::Target;
use lanekeeper::http::client::{HttpTargets, Names};
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::template::UrlTemplate;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::server::{Connection, Server};
use crate::{attempt_of, target, update};

const TO_THE_END: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}";

/// How the target ends a connection after its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Closing {
    /// With `close_notify`.
    Farewell,
    /// The TCP connection alone is closed.
    Close,
    /// The TCP connection is reset.
    Reset,
    /// Not at all.
    Silence,
}

/// The two sides of a certificate: who shows it, and who trusts it.
fn tls() -> (TlsAcceptor, Arc<dyn ServerCertVerifier>) {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let client = WebPkiServerVerifier::builder(Arc::new(trusted)).build().unwrap();
    (TlsAcceptor::from(Arc::new(server)), client)
}

async fn serve(connection: Connection, acceptor: TlsAcceptor, answer: &str, closing: Closing) {
    let mut stream = acceptor.accept(connection.stream).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(br#"{"sequence":1}"#) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request is complete");
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    match closing {
        Closing::Farewell => stream.shutdown().await.unwrap(),
        Closing::Close => {}
        Closing::Reset => {
            // A reset takes with it what the client has not read.
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_buf(&mut request)).await;
            stream.get_ref().0.set_zero_linger().unwrap();
        }
        Closing::Silence => while !matches!(stream.read_buf(&mut request).await, Ok(0) | Err(_)) {},
    }
}

/// One attempt at a target that gives this answer and ends so.
async fn outcome_of(answer: &'static str, closing: Closing, answer_body: AnswerBody) -> Outcome {
    let (acceptor, client) = tls();
    let server = Server::start(move |connection| serve(connection, acceptor.clone(), answer, closing)).await;
    let url = format!("https://localhost:{}/customers/{{record_key}}", server.address.port());
    let config = TargetConfig {
        url: UrlTemplate::parse(&url).unwrap(),
        timeout: if closing == Closing::Silence { Duration::from_secs(1) } else { crate::TEST_TIMEOUT },
        answer_body,
        ..target(server.address)
    };
    let address = server.address;
    let names: Names = Arc::new(move |_| Some(vec![address]));
    let targets = HttpTargets::with_verifier(&[config], &names, client).unwrap();
    let outcome = targets.attempt(attempt_of(update("k"))).await;
    assert_eq!(server.connections(), 1, "{answer:?} {closing:?}");
    outcome
}

async fn assert_failed(answer: &'static str, closing: Closing, cause: Cause) {
    match outcome_of(answer, closing, AnswerBody::Complete).await {
        Outcome::Retryable { failure, .. } => assert_eq!(failure.cause, cause, "{answer:?} {closing:?}"),
        other => panic!("{answer:?} {closing:?}: {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_lasts_to_the_end_of_the_connection_needs_no_farewell() {
    for answer in [
        TO_THE_END,
        "HTTP/1.0 200 OK\r\n\r\n{}",
        "HTTP/1.1 201 Created\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ] {
        for closing in [Closing::Farewell, Closing::Close] {
            let outcome = outcome_of(answer, closing, AnswerBody::Complete).await;
            assert_eq!(outcome, Outcome::Applied, "{answer:?} {closing:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_shows_where_it_should_have_ended_is_not_believed_before() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nx: hal",
    ] {
        assert_failed(answer, Closing::Close, Cause::Connection).await;
        assert_failed(answer, Closing::Farewell, Cause::Connection).await;
    }
}

#[tokio::test]
async fn a_reset_or_silence_ends_no_answer() {
    assert_failed(TO_THE_END, Closing::Reset, Cause::Connection).await;
    assert_failed(TO_THE_END, Closing::Silence, Cause::Timeout).await;
    for closing in [Closing::Reset, Closing::Silence] {
        let outcome = outcome_of(TO_THE_END, closing, AnswerBody::Ignore).await;
        assert_eq!(outcome, Outcome::Applied, "{closing:?}");
    }
}
