//! Certificates of an authority of our own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Somebody who issues certificates. Trusted by a process that has `SSL_CERT_FILE` set to [`Authority::file`].
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: TempDir,
}

/// A certificate with its key.
pub struct Issued {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
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

    /// Writes both to files of the authority, whose names begin with `name`. The paths of the certificate and the key.
    pub fn write(&self, authority: &Authority, name: &str) -> [PathBuf; 2] {
        let [certificate, key] = ["pem", "key"].map(|end| authority.dir.path().join(format!("{name}.{end}")));
        std::fs::write(&certificate, self.pem()).expect("it can be written");
        std::fs::write(&key, self.key_pem()).expect("it can be written");
        [certificate, key]
    }
}
