//! What happens below the answers: TLS, connections that hang, odd heads, and how an answer ends.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_lab::receiver::{AnswerEnd, Receiver, ReceiverSettings, TlsFiles};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::TEST_TIMEOUT;

const REQUEST: &[u8] = b"PUT /records/k HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx";
const LAST_REQUEST: &[u8] =
    b"PUT /records/k HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx";

async fn started(settings: ReceiverSettings) -> SocketAddr {
    Receiver::new(settings).spawn().await.unwrap()
}

/// Sends it, and reads to the end of the connection: what came, and how it ended.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
) -> (String, Result<(), ErrorKind>) {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(TEST_TIMEOUT, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    (String::from_utf8(answer).unwrap(), ended.map(drop).map_err(|error| error.kind()))
}

/// A certificate for `localhost`, and a client that trusts it.
struct Tls {
    files: TlsFiles,
    client: ClientConfig,
    _dir: TempDir,
}

impl Tls {
    fn new(protocols: &[&[u8]]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(made.cert.der().clone()).unwrap();
        let mut client = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { files: TlsFiles { certificate, key }, client, _dir: dir }
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(self.client.clone())).connect(name, tcp).await.unwrap()
    }
}

#[tokio::test]
async fn connections_that_hang_say_nothing_and_end_and_new_ones_work() {
    let hang_for = Duration::from_millis(300);
    let settings =
        ReceiverSettings { hang_connections_after: Some(1), hang_for, ..ReceiverSettings::default() };
    let address = started(settings).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    let mut answer = [0; 4096];
    let length = first.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    for hanging in [&mut first, &mut idle] {
        let (answer, _) = exchange(hanging, REQUEST).await;
        assert_eq!(answer, "");
    }
    let mut new = TcpStream::connect(address).await.unwrap();
    let (answer, ended) = exchange(&mut new, LAST_REQUEST).await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended.is_ok(), "{answer} {ended:?}");
}

#[tokio::test]
async fn the_port_of_https_serves_both_versions_of_http_and_plain_http() {
    for (offered, taken) in
        [(&[&b"h2"[..], b"http/1.1"][..], b"h2".to_vec()), (&[b"http/1.1"], b"http/1.1".to_vec())]
    {
        let tls = Tls::new(offered);
        let address =
            started(ReceiverSettings { tls: Some(tls.files.clone()), ..ReceiverSettings::default() }).await;
        let mut stream = tls.connect(address).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&*taken));
        if taken == b"http/1.1" {
            let (answer, ended) = exchange(&mut stream, LAST_REQUEST).await;
            assert!(answer.starts_with("HTTP/1.1 200") && ended.is_ok(), "{answer} {ended:?}");
        }
        let mut plain = TcpStream::connect(address).await.unwrap();
        let report = b"GET /report HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        let (answer, _) = exchange(&mut plain, report).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"updates\""), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_ends_as_it_was_asked_for() {
    let check = async |answer_end, expected: Result<(), ErrorKind>| {
        let tls = Tls::new(&[b"h2", b"http/1.1"]);
        let settings =
            ReceiverSettings { tls: Some(tls.files.clone()), answer_end, ..ReceiverSettings::default() };
        let mut stream = tls.connect(started(settings).await).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "no HTTP/2");
        let (answer, ended) = exchange(&mut stream, REQUEST).await;
        assert!(answer.starts_with("HTTP/1.0 200") && !answer.contains("content-length"), "{answer}");
        assert_eq!(ended, expected, "{answer_end:?}");
    };
    check(AnswerEnd::Close, Ok(())).await;
    check(AnswerEnd::CloseWithoutNotify, Err(ErrorKind::UnexpectedEof)).await;
}

#[tokio::test]
async fn heads_are_as_odd_as_asked_for() {
    let settings = ReceiverSettings { extra_fields: 900, folded_field: true, ..ReceiverSettings::default() };
    let address = started(settings).await;
    let (answer, _) = exchange(&mut TcpStream::connect(address).await.unwrap(), LAST_REQUEST).await;
    assert!(answer.contains("\r\nx-folded: one\r\n\ttwo\r\n"), "{answer}");
    assert_eq!(answer.matches("\r\nx-extra-").count(), 900);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let missing = std::path::PathBuf::from("/nowhere/certificate.pem");
    let files = TlsFiles { certificate: missing.clone(), key: missing };
    let receiver = Receiver::new(ReceiverSettings { tls: Some(files), ..ReceiverSettings::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = receiver.run(listener, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/certificate.pem: "), "{error}");
}
