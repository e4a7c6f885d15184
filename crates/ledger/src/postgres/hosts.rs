//! The servers of a ledger, and the one of them that takes writes.
//!
//! A session counts as long as its server is the newest that this process knows. A standby is left at once; so is a server
//! that another one has replaced: after a promotion the timeline of the new primary is higher, and sessions on the old one,
//! which may go on answering reads, are closed before anything is written on the new one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use lanekeeper_core::error::error_chain;
use lanekeeper_core::secret::Secret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection, Row as _, query, raw_sql};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::relay::Relay;
use crate::config::{LedgerConfig, LedgerPlace};
use crate::error::LedgerError;

/// How long the TCP connection to one address may take, unless the URL has a `connect_timeout`: two lost packets are sent
/// again by then. An address that swallows packets costs so much.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the rest may take: TLS, the login, and the first questions.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// How long an address that did not work is tried after all others.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// Addresses that are remembered, the newest.
const AVOIDED_MAX: usize = 64;

/// The parameter of libpq, in seconds, which the client does not know.
const CONNECT_TIMEOUT: &str = "connect_timeout";

/// Settings of every session. They are set once it is there, since a pooler refuses or drops those of a login.
///
/// - Every query for an update uses an index. Without the first three settings, a plan that was made while the tables were
///   empty would read whole tables until the server updates its statistics.
/// - A wait for a row lock ends with an error, which is retried.
/// - The server notices within half a minute that a client's host is gone, and drops its locks (default: two hours).
/// - A commit is on disk when it returns, and on every synchronous standby. `remote_apply` waits for more, and stays.
const SESSION: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET lock_timeout = '5s'; SET statement_timeout = '9s';
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

/// Who answers. A standby, and a primary that is set to take no writes, have `read_only`.
const WHO: &str =
    "SELECT current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery() AS read_only,
        pg_backend_pid() AS backend,
        concat_ws(' ', inet_server_addr(), inet_server_port(), pg_postmaster_start_time()) AS server";

/// The number of the timeline; not every service that speaks PostgreSQL's protocol knows it. Fails on a standby.
const TIMELINE: &str =
    "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint";

/// The servers that `ledger.url` names. Clones know of each other which one is used.
#[derive(Clone, Debug)]
pub struct Hosts(Arc<HostsState>);

#[derive(Debug)]
struct HostsState {
    /// In the order of the config, at least one.
    servers: RwLock<Arc<[Server]>>,
    known: Mutex<Known>,
    /// Whether another session has answered than the one that was asked.
    session_changed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Server {
    /// Host and port, for people.
    name: String,
    options: PgConnectOptions,
    tcp_timeout: Duration,
}

#[derive(Debug, Default)]
struct Known {
    /// The index of the server that worked last.
    worked: Option<usize>,
    avoided: Vec<(SocketAddr, Instant)>,
    /// Which server the newest session is on, and since which of its starts.
    server: String,
    /// The highest that was seen.
    timeline: i64,
    /// Raised when a session is on another server than the one before it.
    generation: u64,
}

/// What a session must still be when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// `None`: a socket in the file system.
    address: Option<SocketAddr>,
    generation: u64,
    /// The process of the server that answers.
    backend: i32,
}

impl Hosts {
    /// From the URLs, at least one.
    pub fn new(urls: &[Secret]) -> Result<Self, LedgerError> {
        Ok(Self(Arc::new(HostsState {
            servers: RwLock::new(servers(urls)?),
            known: Mutex::default(),
            session_changed: watch::Sender::new(false),
        })))
    }

    /// From now on, sessions are opened with the users and the passwords of these URLs. Otherwise the URLs must say what those
    /// of before said.
    pub fn change_users(&self, config: &LedgerConfig) -> Result<(), LedgerError> {
        let LedgerPlace::Postgres(urls) = &config.place else {
            return Err(LedgerError::Damaged { what: "the URL" });
        };
        let servers = servers(urls)?;
        *self.0.servers.write().unwrap_or_else(PoisonError::into_inner) = servers;
        Ok(())
    }

    fn servers(&self) -> Arc<[Server]> {
        Arc::clone(&self.0.servers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens a session on the server that takes writes. Each address has a time of its own.
    pub async fn open(&self) -> Result<(PgConnection, Mark), LedgerError> {
        let servers = self.servers();
        let worked = self.lock().worked;
        let order = worked.into_iter().chain((0..servers.len()).filter(|index| Some(*index) != worked));
        let (mut faults, mut avoided) = (Vec::new(), Vec::new());
        for index in order {
            let addresses = match servers[index].addresses().await {
                Ok(addresses) => addresses,
                Err(fault) => {
                    faults.push((index, fault));
                    continue;
                }
            };
            let alone = addresses.len() == 1;
            for address in addresses {
                if address.is_some_and(|address| self.avoids(address)) {
                    avoided.push((index, address, alone));
                    continue;
                }
                match self.open_at(&servers, index, address, alone).await {
                    Ok(opened) => return Ok(opened),
                    Err(fault) => faults.push((index, fault)),
                }
            }
        }
        for (index, address, alone) in avoided {
            match self.open_at(&servers, index, address, alone).await {
                Ok(opened) => return Ok(opened),
                Err(fault) => faults.push((index, fault)),
            }
        }
        Err(self.fault_of(faults))
    }

    /// `alone`: the name has no other address.
    async fn open_at(
        &self,
        servers: &[Server],
        index: usize,
        address: Option<SocketAddr>,
        alone: bool,
    ) -> Result<(PgConnection, Mark), LedgerError> {
        let server = &servers[index];
        let opened = async {
            let mut connection = server.connect(address, alone).await?;
            let login = timeout(LOGIN_TIMEOUT, self.introduce(server, address, &mut connection)).await;
            let mark = login.map_err(|_| late(LOGIN_TIMEOUT))??;
            Ok((connection, mark))
        }
        .await;
        let mut known = self.lock();
        match &opened {
            Ok(_) => {
                known.worked = Some(index);
                known.avoided.retain(|(avoided, _)| Some(*avoided) != address);
            }
            // A standby answers at once, and may be the primary a moment later.
            Err(LedgerError::ReadOnly) => {}
            Err(_) => {
                if let Some(address) = address {
                    known.avoid(address);
                }
            }
        }
        opened
    }

    /// Sets up the session, and finds out who answers.
    async fn introduce(
        &self,
        server: &Server,
        address: Option<SocketAddr>,
        connection: &mut PgConnection,
    ) -> Result<Mark, LedgerError> {
        let who = query(WHO).persistent(false).fetch_one(&mut *connection).await?;
        if who.try_get("read_only")? {
            return Err(LedgerError::ReadOnly);
        }
        raw_sql(SESSION).execute(&mut *connection).await?;
        let timeline = query(TIMELINE).persistent(false).fetch_one(&mut *connection).await;
        let timeline: i64 = match timeline {
            Ok(row) => row.try_get(0)?,
            Err(sqlx::Error::Database(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        let answers: String = who.try_get("server")?;
        let mut known = self.lock();
        if timeline < known.timeline {
            warn!(
                server = server.name,
                timeline,
                newest = known.timeline,
                "a server of the ledger was replaced by another one, but still takes writes: it is not used"
            );
            return Err(LedgerError::ReadOnly);
        }
        if (&answers, timeline) != (&known.server, known.timeline) {
            if known.generation > 0 {
                info!(server = server.name, "the ledger is on another server now, or was started again");
            }
            known.generation += 1;
            (known.server, known.timeline) = (answers, timeline);
        }
        Ok(Mark { address, generation: known.generation, backend: who.try_get("backend")? })
    }

    /// Whether the session is on the newest server that is known.
    pub fn is_current(&self, mark: Mark) -> bool {
        self.lock().generation == mark.generation
    }

    /// Something failed in this session: the next one is opened elsewhere, if another server takes writes. This one may have
    /// been replaced without knowing it; then its commits wait for a standby that does not follow it any more.
    pub fn suspect(&self, mark: Mark, error: &LedgerError) {
        if let Some(address) = mark.address {
            self.lock().avoid(address);
        }
        if matches!(error, LedgerError::SessionChanged) {
            self.0.session_changed.send_replace(true);
        }
    }

    /// Waits until no session can be relied on.
    pub async fn unusable(&self) -> LedgerError {
        // The sender is ours, so there is an answer or none is needed.
        drop(self.0.session_changed.subscribe().wait_for(|changed| *changed).await);
        LedgerError::SessionChanged
    }

    fn avoids(&self, address: SocketAddr) -> bool {
        let known = self.lock();
        known.avoided.iter().any(|(avoided, since)| *avoided == address && since.elapsed() < AVOIDED_FOR)
    }

    /// One fault, if there is only one server; else all of them.
    fn fault_of(&self, mut faults: Vec<(usize, LedgerError)>) -> LedgerError {
        // Of several addresses of a server, the last one counts.
        faults.reverse();
        faults.sort_by_key(|(index, _)| *index);
        faults.dedup_by_key(|(index, _)| *index);
        if faults.len() == 1 {
            return faults.remove(0).1;
        }
        let can_heal = faults.iter().any(|(_, fault)| fault.can_heal());
        let servers = self.servers();
        let name = |index: usize| &servers[index].name;
        let faults: Vec<_> =
            faults.iter().map(|(index, fault)| format!("{}: {}", name(*index), error_chain(fault))).collect();
        LedgerError::NoServer { faults: faults.join("; ").into(), can_heal }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn avoid(&mut self, address: SocketAddr) {
        self.avoided.retain(|(avoided, _)| *avoided != address);
        if self.avoided.len() == AVOIDED_MAX {
            self.avoided.remove(0);
        }
        self.avoided.push((address, Instant::now()));
    }
}

fn servers(urls: &[Secret]) -> Result<Arc<[Server]>, LedgerError> {
    urls.iter().map(Server::new).collect()
}

impl Server {
    fn new(url: &Secret) -> Result<Self, LedgerError> {
        // The client would log the value of a parameter that it does not know.
        let (url, tcp_timeout) = match url.reveal().split_once('?') {
            None => (url.reveal().to_owned(), None),
            Some((before, parameters)) => {
                let is_timeout = |parameter: &&str| parameter.split('=').next() == Some(CONNECT_TIMEOUT);
                let parameters = parameters.split('&');
                let seconds = parameters.clone().find(is_timeout).and_then(|found| found.split('=').nth(1));
                let others: Vec<_> = parameters.filter(|parameter| !is_timeout(parameter)).collect();
                let seconds = seconds.and_then(|seconds| seconds.parse().ok());
                (format!("{before}?{}", others.join("&")), seconds.map(Duration::from_secs))
            }
        };
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("lanekeeper");
        let name = format!("{}:{}", options.get_host(), options.get_port());
        Ok(Self { name, options, tcp_timeout: tcp_timeout.unwrap_or(TCP_TIMEOUT) })
    }

    /// The addresses to try; `None`: a socket in the file system.
    async fn addresses(&self) -> Result<Vec<Option<SocketAddr>>, LedgerError> {
        if self.options.get_socket().is_some() || self.options.get_host().starts_with('/') {
            return Ok(vec![None]);
        }
        let host = self.options.get_host().trim_matches(['[', ']']);
        let looking_up = timeout(self.tcp_timeout, lookup_host((host, self.options.get_port())));
        let found = looking_up.await.map_err(|_| late(self.tcp_timeout))?.map_err(sqlx::Error::Io)?;
        let found: Vec<_> = found.take(ADDRESSES_MAX).map(Some).collect();
        if found.is_empty() {
            let error = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
            return Err(sqlx::Error::Io(error).into());
        }
        Ok(found)
    }

    async fn connect(&self, address: Option<SocketAddr>, alone: bool) -> Result<PgConnection, LedgerError> {
        let Some(address) = address else {
            let connecting = timeout(LOGIN_TIMEOUT, self.options.connect()).await;
            return Ok(connecting.map_err(|_| late(LOGIN_TIMEOUT))??);
        };
        // The client has no time limit for an address, so this is found out before.
        let reached = timeout(self.tcp_timeout, TcpStream::connect(address)).await;
        let tcp = reached.map_err(|_| late(self.tcp_timeout))?.map_err(sqlx::Error::Io)?;
        if self.checks_name() && !alone {
            let relay = Relay::start(tcp, self.options.get_port()).map_err(sqlx::Error::Io)?;
            let options = self.options.clone().socket(relay.directory());
            let connecting = timeout(LOGIN_TIMEOUT, options.connect()).await;
            return Ok(connecting.map_err(|_| late(LOGIN_TIMEOUT))??);
        }
        drop(tcp);
        let mut pinned = self.options.clone();
        if !self.checks_name() {
            pinned = pinned.host(&address.ip().to_string());
        }
        let connecting = timeout(LOGIN_TIMEOUT, pinned.connect()).await;
        Ok(connecting.map_err(|_| late(LOGIN_TIMEOUT))??)
    }

    /// Whether the server's certificate must have the name that the URL has.
    fn checks_name(&self) -> bool {
        matches!(self.options.get_ssl_mode(), PgSslMode::VerifyFull)
            && self.options.get_host().parse::<IpAddr>().is_err()
    }
}

/// Whether the session still is what it was: on a server that takes writes, and the same session.
pub async fn check(connection: &mut PgConnection, mark: Mark) -> Result<(), LedgerError> {
    let who = query(WHO).fetch_one(connection).await?;
    if who.try_get("read_only")? {
        return Err(LedgerError::ReadOnly);
    }
    if who.try_get::<i32, _>("backend")? != mark.backend {
        return Err(LedgerError::SessionChanged);
    }
    Ok(())
}

fn late(limit: Duration) -> LedgerError {
    LedgerError::TimedOut { seconds: limit.as_secs() }
}
