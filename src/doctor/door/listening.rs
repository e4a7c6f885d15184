//! Tries if the door can have its addresses on this host, and asks who has them otherwise.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::admin::command_of;
use crate::config::{Config, Purpose};
use crate::doctor::running::{AskError, ask, of_this_host};

/// The two addresses of a door. `None`: it listens at none, or the system chooses the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    /// `ingest.listen`.
    pub(super) ingest: Option<(SocketAddr, PortState)>,
    /// `admin.listen`.
    pub(super) admin: Option<(SocketAddr, PortState)>,
    /// What listens at `admin.listen`, if somebody does.
    pub(super) at_admin: Occupant,
}

/// If an address can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortState {
    /// It can.
    Free,
    /// Somebody listens there.
    Taken,
    /// It is no address of this host.
    OfAnotherHost,
    /// This user may not listen there.
    NotPermitted,
    /// The system's words.
    Refused(String),
}

/// What listens at `admin.listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// Nothing, or it cannot be asked.
    Unknown,
    /// A door.
    Door,
    /// A `lanekeeper run`.
    Dispatcher,
    /// It starts or stops.
    NotReady,
    /// Nothing of ours, or it does not answer: why.
    Other(String),
}

impl Listening {
    pub(super) async fn of(config: &Config) -> Self {
        let ingest = config.ingest.listen.filter(|address| address.port() != 0);
        let admin = config.admin.listen.filter(|address| address.port() != 0);
        let tried = |address: SocketAddr| (address, try_to_bind(address));
        let (ingest, admin) = (ingest.map(tried), admin.map(tried));
        let at_admin = match &admin {
            Some((address, PortState::Taken)) => match ask(&config.admin, of_this_host(*address)).await {
                Ok(answer) if answer.purpose == command_of(Purpose::Ingest) => Occupant::Door,
                Ok(_) => Occupant::Dispatcher,
                Err(AskError::NotReady) => Occupant::NotReady,
                Err(AskError::NoAnswer(why)) => Occupant::Other(why),
            },
            _ => Occupant::Unknown,
        };
        Self { ingest, admin, at_admin }
    }

    /// True if a door has both addresses: the one that the config is for.
    pub(super) fn is_of_a_door(&self) -> bool {
        let is_taken = |address: &Option<(SocketAddr, PortState)>| {
            address.as_ref().is_none_or(|(_, state)| *state == PortState::Taken)
        };
        self.at_admin == Occupant::Door && is_taken(&self.ingest)
    }
}

/// Takes the address for a moment. It never listens there, so that nobody is let in; who listens there keeps the address from us
/// all the same (Linux, socket(7), `SO_REUSEADDR`).
fn try_to_bind(address: SocketAddr) -> PortState {
    let bind = || -> io::Result<()> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    match bind() {
        Ok(()) => PortState::Free,
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse => PortState::Taken,
            io::ErrorKind::AddrNotAvailable => PortState::OfAnotherHost,
            io::ErrorKind::PermissionDenied => PortState::NotPermitted,
            _ => PortState::Refused(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_taken_only_while_somebody_listens_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(try_to_bind(address), PortState::Taken);
        assert_eq!(try_to_bind(SocketAddr::new([0, 0, 0, 0].into(), address.port())), PortState::Taken);
        drop(listener);
        assert_eq!(try_to_bind(address), PortState::Free);
        // TEST-NET-1 of RFC 5737.
        assert_eq!(try_to_bind("192.0.2.1:9480".parse().unwrap()), PortState::OfAnotherHost);
    }
}
