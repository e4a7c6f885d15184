//! An https target that shows certificates of an authority of our own.

use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, Issued};

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
        Self::start_with(protocol, acceptor(protocol, issued, None)).await
    }

    /// One that demands client certificates of an authority.
    pub async fn start_demanding(protocol: &'static [u8], issued: &Issued, authority: &Authority) -> Self {
        Self::start_with(protocol, acceptor(protocol, issued, Some(authority))).await
    }

    async fn start_with(protocol: &'static [u8], acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let acceptor = Arc::new(Mutex::new(acceptor));
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
        *self.acceptor.lock().expect("no panic holds it") = acceptor(self.protocol, issued, None);
    }

    /// Demands client certificates of this authority from now on, whatever it did before. Connections that are open stay.
    pub fn demand(&self, issued: &Issued, authority: &Authority) {
        *self.acceptor.lock().expect("no panic holds it") = acceptor(self.protocol, issued, Some(authority));
    }

    pub fn seen(&self) -> Vec<(Version, String)> {
        self.seen.lock().expect("no panic holds it").clone()
    }
}

/// `demanded`: who issues the client certificates; `None`: none are demanded.
fn acceptor(
    protocol: &[u8],
    Issued { certificate, key }: &Issued,
    demanded: Option<&Authority>,
) -> TlsAcceptor {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is one");
    let config = match demanded {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let der = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("it is PEM");
            roots.add(der).expect("it is a certificate");
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("it has a root");
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        config.with_single_cert(vec![certificate.der().clone()], key).expect("the two belong together");
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<(Version, String)>>>) {
    let stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        // One side does not like the certificate of the other. To close now would reset the connection, and our alert with it.
        Err((_, mut stream)) => {
            let mut rest = [0; 4096];
            while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
            return;
        }
    };
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
