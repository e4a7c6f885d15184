//! The certificate that the receiver shows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::AnswerEnd;

/// Files with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate in PEM, followed by those that lead to an authority.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    pub(super) fn acceptor(&self, answer_end: AnswerEnd) -> io::Result<TlsAcceptor> {
        // An error means that this process has a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fault = |file: &Path, error: pem::Error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", file.display()))
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| fault(&self.certificate, error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| fault(&self.key, error))?;
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(|error| {
                let files = format!("{} and {}", self.certificate.display(), self.key.display());
                io::Error::new(io::ErrorKind::InvalidInput, format!("{files}: {error}"))
            })?;
        let protocols: &[&[u8]] = match answer_end {
            AnswerEnd::Length => &[b"h2", b"http/1.1"],
            // HTTP/2 shows by itself where an answer ends.
            AnswerEnd::Close | AnswerEnd::CloseWithoutNotify => &[b"http/1.1"],
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
