//! What can be wrong with the TLS certificate of a server, and what a person does about it.

/// Why a certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Nobody whom this machine trusts has issued it.
    #[error(
        "the certificate is issued by an authority that this machine does not trust{}; add the authority's certificate to \
         those of the system, or name a PEM file with it in the environment variable SSL_CERT_FILE",
        issuer.as_ref().map(|issuer| format!(" ({issuer})")).unwrap_or_default()
    )]
    UntrustedIssuer {
        /// The issuer's name, if it is known.
        issuer: Option<String>,
    },
    /// As `UntrustedIssuer`, where the config names the authorities.
    #[error(
        "the certificate is issued by an authority that is not in the target's tls.ca{}; add the authority's certificate to \
         it",
        issuer.as_ref().map(|issuer| format!(" ({issuer})")).unwrap_or_default()
    )]
    UnlistedIssuer {
        /// The issuer's name, if it is known.
        issuer: Option<String>,
    },
    /// It is for others.
    #[error(
        "the certificate is not for the host name in the URL{}; write the URL with a name that the certificate has, or get \
         one for this name",
        in_brackets(names)
    )]
    OtherHost {
        /// For whom it is, as far as it says so.
        names: Vec<String>,
    },
    /// As `OtherHost`, where the config names the server.
    #[error(
        "the certificate is not for the target's tls.server_name{}; write a name there that the certificate has",
        in_brackets(names)
    )]
    OtherServerName {
        /// For whom it is, as far as it says so.
        names: Vec<String>,
    },
    /// Its time is over.
    #[error("the certificate has expired; renew it, and check the clock of this machine")]
    Expired,
    /// Its time has not begun.
    #[error("the certificate is not valid yet; check the clocks of both machines")]
    NotYetValid,
}

fn in_brackets(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| plain(name)).collect();
    if names.is_empty() { String::new() } else { format!(" (it is for {})", names.join(", ")) }
}

/// rustls writes `DnsName("crm.example")`.
fn plain(name: &str) -> &str {
    let plain = name.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")"));
    plain.unwrap_or(name)
}
