//! Where the broker is, and as whom we come.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri, AMQPUserInfo};

use super::error::ConnectError;
use super::failures::Failures;
use super::screen::FRAME_MAX_DEFAULT;
use crate::settings::ConnectionSettings;

/// How long connecting to one address may take unless the URL says otherwise, from the TCP connection to the open virtual
/// host. RabbitMQ itself ends a handshake after 10 s (`handshake_timeout`), so waiting longer would be in vain.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the TCP connection to one address may take unless the URL says otherwise: two lost packets are sent again by
/// then. An address that swallows packets costs so much.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest body that is read unless somebody says otherwise: what dispatchers publish for each other is far shorter.
const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// The broker as an operator names it, and what is read from it. Does not print the password.
///
/// All clones try the hosts in the same order, and know of each other which address did not work: so the connections of a
/// process go to one node as long as that works, and an address that swallows packets costs its time once.
#[derive(Clone)]
pub struct Address {
    /// At least one, in the order in which they are tried.
    hosts: Arc<[Host]>,
    failures: Arc<Failures>,
    body_bytes_max: u64,
}

/// One of `broker.url`.
pub(super) struct Host {
    /// With the user and the password of the start.
    uri: AMQPUri,
    user: RwLock<AMQPUserInfo>,
    /// Host and port, for people.
    name: String,
    frame_max: u32,
}

impl Address {
    /// From `broker.url` and `broker.heartbeat`, which the broker may lower. The order of the hosts is drawn by lot, so that
    /// the processes are spread over the nodes.
    ///
    /// # Errors
    /// [`ConnectError::Url`]
    pub fn new(broker: &ConnectionSettings) -> Result<Self, ConnectError> {
        let mut hosts = Vec::with_capacity(broker.urls.len());
        for url in &broker.urls {
            hosts.push(Host::new(url.reveal(), broker.heartbeat)?);
        }
        let Some(first) = hosts.first() else {
            return Err(ConnectError::Url { fault: "it names no host".to_owned() });
        };
        if hosts.iter().any(|host| host.uri.vhost != first.uri.vhost) {
            return Err(ConnectError::Url { fault: "the virtual hosts differ".to_owned() });
        }
        let mut hosts: Vec<(u64, Host)> = {
            let lots = RandomState::new();
            hosts.into_iter().enumerate().map(|(index, host)| (lots.hash_one(index), host)).collect()
        };
        hosts.sort_by_key(|(lot, _)| *lot);
        let hosts = hosts.into_iter().map(|(_, host)| host).collect();
        Ok(Self { hosts, failures: Arc::default(), body_bytes_max: BODY_BYTES_MAX })
    }

    /// For a connection that reads bodies of up to so many bytes. A longer one never enters memory.
    #[must_use]
    pub fn reading_bodies(&self, bytes_max: u64) -> Self {
        Self { body_bytes_max: bytes_max, ..self.clone() }
    }

    /// From now on, connections are opened with the users and the passwords of these URLs, in all clones. Otherwise the URLs
    /// must say what those of before said.
    ///
    /// # Errors
    /// [`ConnectError::Url`]; nothing is changed then.
    pub fn change_users(&self, broker: &ConnectionSettings) -> Result<(), ConnectError> {
        let changed = Self::new(broker)?;
        for host in &*self.hosts {
            let same = changed.hosts.iter().find(|other| other.name == host.name);
            if let Some(user) = same.map(Host::user) {
                *host.user.write().unwrap_or_else(PoisonError::into_inner) = user;
            }
        }
        Ok(())
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.hosts[0].uri.vhost
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub(super) fn failures(&self) -> &Failures {
        &self.failures
    }

    pub(super) fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max
    }
}

impl Host {
    fn new(url: &str, heartbeat: Duration) -> Result<Self, ConnectError> {
        let mut uri: AMQPUri = url.parse().map_err(|fault| ConnectError::Url { fault })?;
        // 0 would turn heartbeats off unless the broker wants them.
        let heartbeat = u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX);
        uri.query.heartbeat = Some(heartbeat.max(1));
        let frame_max = uri.query.frame_max.filter(|frame_max| *frame_max > 0).unwrap_or(FRAME_MAX_DEFAULT);
        uri.query.frame_max = Some(frame_max);
        let name = format!("{}:{}", uri.authority.host, uri.authority.port);
        let user = RwLock::new(uri.authority.userinfo.clone());
        Ok(Self { uri, user, name, frame_max })
    }

    /// Host and port, for people.
    pub(super) fn host_port(&self) -> &str {
        &self.name
    }

    /// What to look up, and the port.
    pub(super) fn name_and_port(&self) -> (&str, u16) {
        (&self.uri.authority.host, self.uri.authority.port)
    }

    /// The user and the password.
    pub(super) fn user(&self) -> AMQPUserInfo {
        self.user.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn frame_max(&self) -> u32 {
        self.frame_max
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// The URL to connect to, with the user and the password of now.
    pub(super) fn uri(&self) -> AMQPUri {
        let mut uri = self.uri.clone();
        uri.authority.userinfo = self.user();
        uri
    }

    /// How long connecting to one address of the host may take: the `connection_timeout` of the URL, in milliseconds, else
    /// ten seconds.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis)
    }

    /// How much of it the TCP connection may take.
    pub(super) fn tcp_timeout(&self) -> Duration {
        self.uri.query.connection_timeout.map_or(TCP_TIMEOUT, Duration::from_millis)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&str> = self.hosts.iter().map(Host::host_port).collect();
        f.debug_tuple("Address").field(&hosts).field(&self.vhost()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lanekeeper_core::secret::Secret;

    use super::*;

    fn settings(urls: &[&str]) -> ConnectionSettings {
        let urls = urls.iter().copied().map(Secret::new).collect();
        ConnectionSettings { urls, heartbeat: Duration::from_secs(10) }
    }

    #[test]
    fn every_host_comes_first_in_some_process_and_no_password_is_printed() {
        let settings = settings(&["amqp://u:s3cret@a/v", "amqp://u:s3cret@b:1/v", "amqp://u:s3cret@c/v"]);
        let mut first = BTreeSet::new();
        for _ in 0..1000 {
            let address = Address::new(&settings).unwrap();
            let mut hosts: Vec<_> = address.hosts().iter().map(Host::host_port).collect();
            first.insert(hosts[0].to_owned());
            hosts.sort_unstable();
            assert_eq!(hosts, ["a:5672", "b:1", "c:5672"], "each is tried");
            assert!(!format!("{address:?}").contains("s3cret"));
        }
        assert_eq!(first.len(), 3, "{first:?}");
    }

    #[test]
    fn a_changed_password_is_used_by_all_clones() {
        let address = Address::new(&settings(&["amqp://u:old@a/v", "amqp://u:old@b/v"])).unwrap();
        let clone = address.reading_bodies(1);
        let passwords = |address: &Address| {
            let password = |host: &Host| (host.name.clone(), host.uri().authority.userinfo.password);
            address.hosts().iter().map(password).collect::<BTreeSet<_>>()
        };
        clone.change_users(&settings(&["amqp://u:new-a@a/v", "amqp://u:new-b@b/v"])).unwrap();
        let expected = [("a:5672", "new-a"), ("b:5672", "new-b")];
        let expected: BTreeSet<_> =
            expected.iter().map(|(host, password)| ((*host).to_owned(), (*password).to_owned())).collect();
        assert_eq!(passwords(&address), expected);
        assert!(address.change_users(&settings(&["amqp://u:x@a/v", "amqp://u:x@b/w"])).is_err());
        assert_eq!(passwords(&clone), expected);
    }

    #[test]
    fn hosts_of_different_virtual_hosts_are_refused() {
        assert!(Address::new(&settings(&["amqp://a/v", "amqp://b/w"])).is_err());
        assert!(Address::new(&settings(&[])).is_err());
    }
}
