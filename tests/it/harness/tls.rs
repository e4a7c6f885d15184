//! Certificates of an authority of our own, and an https target that shows them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Somebody who issues certificates. Trusted by a process that has `SSL_CERT_FILE` set to [`Authority::file`].
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: TempDir,
}

/// A certificate with its key.
pub struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("it needs no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("it signs itself").pem();
        let dir = tempfile::tempdir().expect("a directory can be made");
        std::fs::write(dir.path().join("ca.pem"), &pem).expect("it can be written");
        Self { issuer: Issuer::new(params, key), pem, dir }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For a host of this name.
    pub fn issue(&self, name: &str) -> Issued {
        self.sign(&CertificateParams::new(vec![name.to_owned()]).expect("it is a name"))
    }

    /// For a host of this name, in files beside that of the authority: the certificate and its key.
    pub fn issue_files(&self, name: &str) -> [PathBuf; 2] {
        let issued = self.issue(name);
        [("cert.pem", issued.pem()), ("key.pem", issued.key_pem())].map(|(file, pem)| {
            let path = self.dir.path().join(file);
            std::fs::write(&path, pem).expect("it can be written");
            path
        })
    }

    /// One whose time is over.
    pub fn issue_expired(&self, name: &str) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Issued { certificate, key }
    }
}

impl Issued {
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// An API behind https. It answers 200 to everything, and remembers protocol and path of each request.
pub struct HttpsTarget {
    pub port: u16,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    seen: Arc<Mutex<Vec<(Version, String)>>>,
    protocol: &'static [u8],
}

impl HttpsTarget {
    /// `protocol`: `h2` or `http/1.1`, the only one that it offers (ALPN).
    pub async fn start(protocol: &'static [u8], issued: &Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let acceptor = Arc::new(Mutex::new(acceptor(protocol, issued)));
        let (of_server, seen) = (Arc::clone(&acceptor), Arc::new(Mutex::new(Vec::new())));
        let remembered = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = of_server.lock().expect("no panic holds it").clone();
                tokio::spawn(serve(stream, acceptor, Arc::clone(&remembered)));
            }
        });
        Self { port, acceptor, seen, protocol }
    }

    /// Shows another certificate from now on.
    pub fn show(&self, issued: &Issued) {
        *self.acceptor.lock().expect("no panic holds it") = acceptor(self.protocol, issued);
    }

    pub fn seen(&self) -> Vec<(Version, String)> {
        self.seen.lock().expect("no panic holds it").clone()
    }
}

fn acceptor(protocol: &[u8], Issued { certificate, key }: &Issued) -> TlsAcceptor {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is one");
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config =
        config.with_single_cert(vec![certificate.der().clone()], key).expect("the two belong together");
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<(Version, String)>>>) {
    let Ok(stream) = acceptor.accept(stream).await else { return }; // the client does not like the certificate
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        seen.lock().expect("no panic holds it").push((request.version(), request.uri().path().to_owned()));
        async { Ok::<_, std::convert::Infallible>(Response::new(String::new())) }
    });
    let stream = TokioIo::new(stream);
    // The client closes as it likes.
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    };
}
