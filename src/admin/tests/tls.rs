//! The port with a certificate of its own.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::port::{Listen, Port, READ, config, over_tls};
use crate::config::{AdminConfig, OwnCertificate};

/// A certificate for the name `admin.example` that signs itself.
fn issue() -> (OwnCertificate, ClientConfig) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    let issued = params.self_signed(&key).unwrap();
    let der: CertificateDer<'static> = issued.der().clone();
    let own = OwnCertificate::of(
        vec![der.clone()],
        PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
    );
    let mut roots = RootCertStore::empty();
    roots.add(der).unwrap();
    (own, ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth())
}

#[tokio::test]
async fn the_port_speaks_tls_with_the_certificate_that_is_in_force() {
    let (own, trusting) = issue();
    let with = |tls: &OwnCertificate| AdminConfig {
        tls: Some(tls.clone()),
        ..config(Listen::Elsewhere, Some(READ), None)
    };
    let port = Port::open(&with(&own)).await;
    let ask = async |trusting: &ClientConfig, path: &str, headers: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: admin.example\r\nconnection: close\r\n{headers}\r\n");
        over_tls(port.address, trusting.clone(), "admin.example", &request).await
    };
    assert_eq!(ask(&trusting, "/livez", "").await.unwrap().body, "alive\n");
    let page = ask(&trusting, "/login", "").await.unwrap();
    let cookie = page.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-lanekeeper-9419-login=") && cookie.ends_with("; Secure"), "{cookie}");
    let authorized = format!("authorization: Bearer {READ}\r\n");
    assert_eq!(ask(&trusting, "/", &authorized).await.unwrap().status, 200);

    let (renewed, trusting_renewed) = issue();
    assert!(ask(&trusting_renewed, "/livez", "").await.is_err());
    port.access.change(&with(&renewed));
    assert!(ask(&trusting, "/livez", "").await.is_err());
    assert_eq!(ask(&trusting_renewed, "/livez", "").await.unwrap().status, 200);
}
