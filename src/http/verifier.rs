//! Names the issuer of a certificate that nobody here trusts: the error of rustls does not.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::detail::certificate_fault;
use lanekeeper_core::certificate::CertificateFault;

/// Refuses what all verifiers within refuse.
#[derive(Debug)]
pub(super) struct NamingVerifier {
    /// Its fault is the one that is named.
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    /// What it believes is believed too.
    pub(super) beside: Option<Arc<dyn ServerCertVerifier>>,
    /// The config says who is trusted (`tls.ca`).
    pub(super) has_own_authorities: bool,
    /// The config says who the server is (`tls.server_name`).
    pub(super) has_own_name: bool,
}

impl NamingVerifier {
    /// The fault in words for whoever can correct it.
    fn name(&self, fault: CertificateFault, certificate: &CertificateDer<'_>) -> CertificateFault {
        match fault {
            CertificateFault::UntrustedIssuer { .. } if self.has_own_authorities => {
                CertificateFault::UnlistedIssuer { issuer: issuer(certificate) }
            }
            CertificateFault::UntrustedIssuer { .. } => {
                CertificateFault::UntrustedIssuer { issuer: issuer(certificate) }
            }
            CertificateFault::OtherHost { names } if self.has_own_name => {
                CertificateFault::OtherServerName { names }
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for NamingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |by: &Arc<dyn ServerCertVerifier>| {
            by.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        if let Some(verified) = self.beside.as_ref().and_then(|beside| verify(beside).ok()) {
            return Ok(verified);
        }
        verify(&self.inner).map_err(|error| match certificate_fault(&error) {
            Some(fault) => {
                let fault = self.name(fault, end_entity);
                CertificateError::Other(OtherError(Arc::new(fault))).into()
            }
            None => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

/// The name of the issuer, as the certificate says it: nothing proves it.
fn issuer(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let issuer = certificate.issuer().to_string();
    let own = if certificate.issuer().as_raw() == certificate.subject().as_raw() { "itself, " } else { "" };
    (!issuer.is_empty()).then(|| format!("{own}{issuer}"))
}
