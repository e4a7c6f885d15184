//! The keys of `[target.tls]`, and certificates of our own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use serde_json::Value as Json;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::fault::Problem;
use super::model::TargetConfig;
use super::parse::{format_duration, text};
use super::reader::Section;
use lanekeeper_core::secret::MASK;

/// A certificate that ends within this time is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// `[target.tls]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// The authorities that are trusted, in DER; empty: those of the system.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What shows who we are; `None`: nothing does.
    pub client: Option<OwnCertificate>,
    /// The name that the server must have; `None`: the host of the URL.
    pub server_name: Option<ServerName<'static>>,
}

/// A certificate of our own with its key, which belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnCertificate {
    /// Ours, and those between it and an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key. Its `Debug` shows nothing of it.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// When the first one ends.
    expires: Option<SystemTime>,
}

/// Reads `[target.tls]`; `None`: a fault was noted.
pub fn read(target: &mut Section<'_, '_>) -> Option<TlsConfig> {
    let mut section = target.table("tls");
    let keys = ["ca", "server_name"];
    let [has_ca, has_name] = keys.map(|key| section.has(key));
    let authorities = section.read_if_set("ca", authorities);
    let client = own_certificate(&mut section);
    let server_name = section.read_if_set("server_name", server_name);
    let sound = has_ca == authorities.is_some() && has_name == server_name.is_some();
    section.finish();
    let client = client?;
    sound.then(|| TlsConfig { authorities: authorities.unwrap_or_default(), client, server_name })
}

/// Reads `certificate` and `key`. `Some(None)`: neither is written; `None`: a fault was noted.
#[expect(clippy::option_option, reason = "each function of a section says by `None` that a fault was noted")]
pub(super) fn own_certificate(section: &mut Section<'_, '_>) -> Option<Option<OwnCertificate>> {
    let [has_certificate, has_key] = ["certificate", "key"].map(|key| section.has(key));
    let chain = section.read_if_set("certificate", own_certificates);
    let key = section.read_if_set("key", key);
    let client = match (chain, key) {
        (Some(chain), Some(key)) => match OwnCertificate::new(chain, key) {
            Ok(client) => Some(client),
            Err(problem) => {
                section.fault("key", problem);
                None
            }
        },
        _ => None,
    };
    if has_certificate != has_key {
        let (has, lacks) = if has_key { ("key", "certificate") } else { ("certificate", "key") };
        let what = format!("is set, and {lacks} is not");
        section.fault(has, Problem::new(what, format!("set {lacks}, too: who we are is shown with both")));
    }
    (has_certificate == has_key && has_key == client.is_some()).then_some(client)
}

impl OwnCertificate {
    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Problem> {
        let provider = rustls::crypto::ring::default_provider();
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(Problem::constant(
                    "does not belong to the certificate",
                    "name the files of one pair, and put our own certificate first if there are several",
                ));
            }
            Err(_) => {
                return Err(Problem::constant(
                    "is of a kind that cannot be used",
                    "use a key of RSA (2048 to 4096 bits), ECDSA (P-256 or P-384) or ed25519",
                ));
            }
        }
        let expires = chain.iter().filter_map(expiry).min();
        Ok(Self { chain, key: Arc::new(key), expires })
    }

    /// A pair of which is known that it belongs together.
    #[cfg(test)]
    pub(crate) fn of(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self::new(chain, key).expect("they belong together")
    }

    /// When it ends and what is left of its time, if that is little.
    pub(crate) fn expiring(&self, now: SystemTime) -> Option<(String, Option<String>)> {
        let expires = self.expires?;
        let left = expires.duration_since(now).ok();
        if left.is_some_and(|left| left >= EXPIRES_SOON) {
            return None;
        }
        let in_hours = |left: Duration| format_duration(Duration::from_secs(left.as_secs() / 3600 * 3600));
        Some((humantime::format_rfc3339_seconds(expires).to_string(), left.map(in_hours)))
    }
}

/// When a certificate ends.
fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

pub(super) fn authorities(raw: &mut Json) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let certificates = certificates(raw)?;
    let mut roots = RootCertStore::empty();
    if certificates.iter().all(|certificate| roots.add(certificate.clone()).is_ok()) {
        return Ok(certificates);
    }
    Err(Problem::constant(
        "has a certificate that cannot be read",
        "write the certificates of the authorities as PEM, as in ca = \"file:/etc/crm/ca.pem\"",
    ))
}

/// Our own, and those between it and its authority.
fn own_certificates(raw: &mut Json) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let chain = certificates(raw)?;
    let is_version_3 = |certificate: &CertificateDer<'_>| {
        X509Certificate::from_der(certificate).is_ok_and(|(_, read)| read.version() == X509Version::V3)
    };
    if chain.first().is_some_and(is_version_3) {
        return Ok(chain);
    }
    Err(Problem::constant(
        "cannot be used: it is no certificate of X.509 version 3",
        "have it issued as version 3, with the extended key usage that it is for: clientAuth at a target, serverAuth at our port",
    ))
}

/// The certificates of a PEM text, at least one.
fn certificates(raw: &mut Json) -> Result<Vec<CertificateDer<'static>>, Problem> {
    const FIX: &str = "name a PEM file, which has lines \"-----BEGIN CERTIFICATE-----\": \"file:PATH\"";
    let pem = pem(raw)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Problem::constant("has no certificate", FIX)),
        Ok(certificates) if certificates.iter().any(|der| X509Certificate::from_der(der).is_err()) => {
            Err(Problem::constant("has a certificate that cannot be read", FIX))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(Problem::constant("has a certificate that is not whole", FIX)),
    }
}

fn key(raw: &mut Json) -> Result<PrivateKeyDer<'static>, Problem> {
    let pem = pem(raw)?;
    if pem.contains("ENCRYPTED") {
        return Err(Problem::constant(
            "is encrypted, and nobody is there to type a passphrase",
            "decrypt it with `openssl pkey -in KEY -out PLAIN`, and let only this user read the file",
        ));
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        Problem::constant(
            "has no private key",
            "name a PEM file, which has a line \"-----BEGIN PRIVATE KEY-----\": \"file:PATH\"",
        )
    })
}

/// A PEM text, of which nothing is shown.
fn pem(raw: &mut Json) -> Result<String, Problem> {
    let pem = text(raw)?;
    *raw = Json::from(MASK);
    Ok(pem)
}

fn server_name(raw: &mut Json) -> Result<ServerName<'static>, Problem> {
    let name = text(raw)?;
    ServerName::try_from(name.clone()).map_err(|_| {
        Problem::new(
            format!("{name:?} is neither a host name nor an IP address"),
            "write the name alone, without scheme and port",
        )
    })
}

/// A client certificate that has expired or soon will.
#[derive(Clone, Debug)]
pub struct Expiring {
    /// The name of the target.
    pub target: String,
    /// When it ends, as in RFC 3339.
    pub expires: String,
    /// What is left of its time, in whole hours; `None`: nothing.
    pub left: Option<String>,
}

/// The client certificates of these targets that have expired or soon will.
pub fn expiring(targets: &[TargetConfig], now: SystemTime) -> impl Iterator<Item = Expiring> {
    targets.iter().filter_map(move |target| {
        let (expires, left) = target.tls.client.as_ref()?.expiring(now)?;
        Some(Expiring { target: target.name.clone(), expires, left })
    })
}

impl fmt::Display for Expiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, expires, left } = self;
        write!(f, "target {target:?}: the client certificate (tls.certificate) ")?;
        match left {
            None => write!(f, "has expired at {expires}: the target will refuse it. Renew it."),
            Some(left) => write!(f, "expires at {expires}, in {left}. Renew it."),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
