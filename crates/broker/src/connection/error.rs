//! Why there is no connection, and what a person does about each.

use std::io;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use rustls::CertificateError;

use super::version::{VERSION_MIN, Version};
use lanekeeper_core::certificate::CertificateFault;
use lanekeeper_core::error::error_chain;

/// Connecting to the broker failed. The broker is named as `host:port`, never with a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `broker.url` cannot be understood.
    #[error("broker.url: {fault}")]
    Url {
        /// What is wrong with it.
        fault: String,
    },
    /// Nobody answers at this address; may heal by itself.
    #[error("broker {address}: cannot connect")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No connection within the time for it; may heal by itself.
    #[error("broker {address}: cannot connect: no answer within {seconds} s")]
    Silent {
        /// Host and port.
        address: String,
        /// How long we waited.
        seconds: f64,
    },
    /// The broker's certificate is refused.
    #[error("broker {address}: {fault}")]
    Certificate {
        /// Host and port.
        address: String,
        /// Why.
        fault: CertificateFault,
    },
    /// Any other failure of TLS.
    #[error("broker {address}: TLS failed; amqps:// must name the port of a TLS listener (5671 by default)")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// User or password are wrong, or the user may not connect from here.
    #[error(
        "broker {address}: access refused; check user, password and virtual host {vhost} in broker.url: the broker \
         refuses the login of user {user}"
    )]
    LoginRefused {
        /// Host and port.
        address: String,
        /// The virtual host asked for.
        vhost: String,
        /// As in the URL.
        user: String,
    },
    /// The virtual host does not exist, or the user may not use it.
    #[error("broker {address}: access refused; check user, password and virtual host {vhost} in broker.url")]
    VhostRefused {
        /// Host and port.
        address: String,
        /// The virtual host asked for.
        vhost: String,
        /// The broker's words.
        #[source]
        source: Box<lapin::Error>,
    },
    /// The broker ended the connection before it was of use; may heal by itself.
    #[error("broker {address}: cannot connect")]
    Handshake {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: Box<lapin::Error>,
    },
    /// Its queues are not as this program needs them.
    #[error("broker {address}: it is RabbitMQ {version}; at least {VERSION_MIN} is needed")]
    TooOld {
        /// Host and port.
        address: String,
        /// What it says that it is.
        version: Version,
    },
    /// None of several hosts can be used.
    #[error("no host of broker.url can be used: {}", list(faults))]
    NoHost {
        /// Why, for each host; at least two.
        faults: Vec<ConnectError>,
    },
}

/// The reasons one after another, each with its causes.
fn list(faults: &[ConnectError]) -> String {
    faults.iter().map(|fault| error_chain(fault)).collect::<Vec<_>>().join("; ")
}

impl ConnectError {
    /// Whether waiting can heal it: a broker that is not there yet, or a network that comes back.
    #[must_use]
    pub fn can_heal(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Handshake { .. } => true,
            Self::Url { .. }
            | Self::Certificate { .. }
            | Self::Tls { .. }
            | Self::LoginRefused { .. }
            | Self::VhostRefused { .. }
            | Self::TooOld { .. } => false,
            Self::NoHost { faults } => faults.iter().any(Self::can_heal),
        }
    }

    /// How far the connection came: more says more about what is wrong.
    pub(super) fn progress(&self) -> u8 {
        match self {
            Self::Url { .. } | Self::Unreachable { .. } => 0,
            Self::Silent { .. } => 1,
            Self::Certificate { .. }
            | Self::Tls { .. }
            | Self::LoginRefused { .. }
            | Self::VhostRefused { .. }
            | Self::Handshake { .. }
            | Self::TooOld { .. }
            | Self::NoHost { .. } => 2,
        }
    }

    /// Whether the config is to blame, whatever the broker does.
    #[must_use]
    pub fn is_of_the_url(&self) -> bool {
        matches!(self, Self::Url { .. })
    }

    /// Of opening the stream: TCP, and TLS over it.
    pub(super) fn of_stream(host_port: &str, source: io::Error) -> Self {
        let address = host_port.to_owned();
        let fault = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (fault, fault.and_then(certificate_fault)) {
            (None, _) => Self::Unreachable { address, source },
            (Some(_), Some(fault)) => Self::Certificate { address, fault },
            (Some(_), None) => Self::Tls { address, source },
        }
    }

    /// Of what is done with a connection first, before it is of use.
    pub(crate) fn lost(host_port: &str, source: lapin::Error) -> Self {
        Self::Handshake { address: host_port.to_owned(), source: Box::new(source) }
    }

    /// Of the AMQP handshake over the stream.
    pub(super) fn of_handshake(host_port: &str, vhost: &str, user: &str, source: lapin::Error) -> Self {
        let (address, vhost) = (host_port.to_owned(), vhost.to_owned());
        match source.kind() {
            ErrorKind::ProtocolError(error) => match error.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                    Self::LoginRefused { address, vhost, user: user.to_owned() }
                }
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
                    Self::VhostRefused { address, vhost, source: Box::new(source) }
                }
                _ => Self::Handshake { address, source: Box::new(source) },
            },
            _ => Self::Handshake { address, source: Box::new(source) },
        }
    }
}

fn certificate_fault(error: &rustls::Error) -> Option<CertificateFault> {
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    match error {
        // Of the second, another authority has the same name: one that was made again, for example.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Some(CertificateFault::UntrustedIssuer { issuer: None })
        }
        CertificateError::NotValidForName => Some(CertificateFault::OtherHost { names: Vec::new() }),
        CertificateError::NotValidForNameContext { presented, .. } => {
            Some(CertificateFault::OtherHost { names: presented.clone() })
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some(CertificateFault::Expired)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some(CertificateFault::NotYetValid)
        }
        _ => None,
    }
}
