//! Who may read and who may change: tokens, sessions, and the count of wrong tokens. Begin with [`Access`].
//!
//! Tokens are never stored: their keyed hashes are, under a key that this process makes at its start.

mod sessions;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use self::sessions::Sessions;
use crate::config::AdminConfig;
use crate::wrong_tokens::WrongTokens;
use lanekeeper_core::secret::Secret;

/// What a client may do. Who may change may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To read everything, with record keys and bodies.
    Read,
    /// To change, too.
    Change,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    /// It is neither `admin.read_token` nor `admin.write_token`.
    Wrong,
    /// There were too many wrong ones; so long.
    TooMany(Duration),
}

/// The access to the admin port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access(Arc<AccessState>);

struct AccessState {
    key: hmac::Key,
    /// Random bytes come from the system.
    random: SystemRandom,
    /// `admin.listen` is on loopback.
    is_on_loopback: bool,
    port: u16,
    in_force: RwLock<InForce>,
    /// Counts changes of tokens.
    generation: AtomicU64,
    sessions: Mutex<Sessions>,
    wrong_tokens: Mutex<WrongTokens>,
}

impl fmt::Debug for AccessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessState")
    }
}

/// What the config says now.
struct InForce {
    read: Option<TokenHash>,
    write: Option<TokenHash>,
    tls: Option<TlsAcceptor>,
}

/// Equal for equal tokens in one process, and nothing can be computed from it.
type TokenHash = [u8; 32];

impl Access {
    /// As the config says.
    ///
    /// # Panics
    /// If the system has no random numbers.
    #[must_use]
    pub fn new(config: &AdminConfig) -> Self {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("the system has random numbers");
        let in_force = in_force(&key, config);
        Self(Arc::new(AccessState {
            key,
            random,
            is_on_loopback: config.is_on_loopback(),
            port: config.listen.map_or(0, |address| address.port()),
            in_force: RwLock::new(in_force),
            generation: AtomicU64::new(0),
            sessions: Mutex::default(),
            wrong_tokens: Mutex::default(),
        }))
    }

    /// Tokens and certificate are those of this config from now on. Who logged in with a token that is no longer one is
    /// logged out.
    pub fn change(&self, config: &AdminConfig) {
        let changed = in_force(&self.0.key, config);
        let mut in_force = self.0.in_force.write().unwrap_or_else(PoisonError::into_inner);
        if (in_force.read, in_force.write) != (changed.read, changed.write) {
            self.sessions().clear();
            self.0.generation.fetch_add(1, Ordering::Relaxed);
        }
        *in_force = changed;
    }

    /// Answers TLS handshakes; `None`: the port speaks plain HTTP.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.0.in_force.read().unwrap_or_else(PoisonError::into_inner).tls.clone()
    }

    fn hashes(&self) -> (Option<TokenHash>, Option<TokenHash>) {
        let in_force = self.0.in_force.read().unwrap_or_else(PoisonError::into_inner);
        (in_force.read, in_force.write)
    }

    /// Returns true if nothing but health and metrics is served: other hosts reach the port, and there is no read token.
    pub(super) fn is_closed(&self) -> bool {
        !self.0.is_on_loopback && self.hashes().0.is_none()
    }

    /// What a client may do that shows nothing; `None`: nothing.
    pub(super) fn without_token(&self) -> Option<Right> {
        (self.0.is_on_loopback && self.hashes().0.is_none()).then_some(Right::Read)
    }

    /// Returns true if there is a write token.
    pub(super) fn can_change(&self) -> bool {
        self.hashes().1.is_some()
    }

    /// What the token is good for. Each wrong one counts.
    pub(super) fn check_token(
        &self,
        client: IpAddr,
        token: &str,
        now: Instant,
    ) -> Result<Right, TokenRefused> {
        let mut wrong_tokens = self.0.wrong_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = wrong_tokens.wait(client, now) {
            return Err(TokenRefused::TooMany(wait));
        }
        let (read, write) = self.hashes();
        // Both are compared, each in constant time, whatever the other one says.
        let [may_read, may_change] =
            [read, write].map(|hash| hash.is_some_and(|hash| self.is_hash_of(&hash, "token", token)));
        if may_read || may_change {
            wrong_tokens.right(client, now);
            return Ok(if may_change { Right::Change } else { Right::Read });
        }
        wrong_tokens.wrong(client, now);
        Err(TokenRefused::Wrong)
    }

    /// Counts a wrong signature with the read token as a wrong token.
    pub(super) fn check_signature(
        &self,
        client: IpAddr,
        is_right: bool,
        now: Instant,
    ) -> Result<(), TokenRefused> {
        let mut wrong_tokens = self.0.wrong_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = wrong_tokens.wait(client, now) {
            return Err(TokenRefused::TooMany(wait));
        }
        if is_right {
            wrong_tokens.right(client, now);
            return Ok(());
        }
        wrong_tokens.wrong(client, now);
        Err(TokenRefused::Wrong)
    }

    /// Begins a session and returns its id, which only the client stores.
    pub(super) fn begin_session(&self, right: Right, now: Instant) -> Secret {
        let id = self.random();
        let hash = self.hash("session", id.reveal());
        self.sessions().begin(hash, right, now);
        id
    }

    /// What the client with this session may do; `None`: there is no such session, or it is over.
    pub(super) fn session(&self, id: &str, now: Instant) -> Option<Right> {
        let hash = self.hash("session", id);
        self.sessions().right(&hash, now)
    }

    /// Returns true if there is such a session, which does not count as using it.
    pub(super) fn is_session(&self, id: &str, now: Instant) -> bool {
        let hash = self.hash("session", id);
        self.sessions().has(&hash, now)
    }

    /// Another number after each change of tokens.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }

    /// Ends the session.
    pub(super) fn end_session(&self, id: &str) {
        let hash = self.hash("session", id);
        self.sessions().end(&hash);
    }

    /// 32 random bytes as text.
    ///
    /// # Panics
    /// If the system has no random numbers.
    pub(super) fn random(&self) -> Secret {
        let mut bytes = [0; 32];
        self.0.random.fill(&mut bytes).expect("the system has random numbers");
        Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The anti-forgery token of the forms of whoever has this cookie.
    pub(super) fn form_token(&self, cookie: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.hash("form", cookie))
    }

    /// Returns true if it is the anti-forgery token of whoever has this cookie.
    pub(super) fn is_form_token(&self, cookie: &str, form_token: &str) -> bool {
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(form_token);
        decoded.is_ok_and(|hash| self.is_hash_of(&hash, "form", cookie))
    }

    /// The name of the cookie for `what`. Browsers send cookies to every port of a host, so the port is in the name.
    pub(super) fn cookie_name(&self, what: &str) -> String {
        let prefix = if self.tls().is_some() { "__Host-" } else { "" };
        format!("{prefix}lanekeeper-{}-{what}", self.0.port)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, what: &str, text: &str) -> [u8; 32] {
        hash(&self.0.key, what, text)
    }

    fn is_hash_of(&self, expected: &[u8], what: &str, text: &str) -> bool {
        hmac::verify(&self.0.key, labelled(what, text).as_bytes(), expected).is_ok()
    }
}

fn in_force(key: &hmac::Key, config: &AdminConfig) -> InForce {
    let of = |token: &Option<Secret>| token.as_ref().map(|token| hash(key, "token", token.reveal()));
    let tls = config.tls.as_ref().map(|own| {
        let mut tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(own.chain.clone(), own.key.clone_key())
            .expect("the config's check has put both together");
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(tls))
    });
    InForce { read: of(&config.read_token), write: of(&config.write_token), tls }
}

/// Texts for different purposes never have one hash.
fn labelled(what: &str, text: &str) -> String {
    format!("{what}\0{text}")
}

fn hash(key: &hmac::Key, what: &str, text: &str) -> [u8; 32] {
    let tag = hmac::sign(key, labelled(what, text).as_bytes());
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn config(listen: &str, read: Option<&str>, write: Option<&str>) -> AdminConfig {
        AdminConfig {
            listen: Some(listen.parse().unwrap()),
            advertise: None,
            read_token: read.map(Secret::new),
            write_token: write.map(Secret::new),
            tls: None,
        }
    }

    #[test]
    fn what_is_served_depends_on_where_the_port_is_and_on_the_tokens() {
        let check = |listen, read, write, expected| {
            let access = Access::new(&config(listen, read, write));
            let found = (access.is_closed(), access.without_token(), access.can_change());
            assert_eq!(found, expected, "{listen} {read:?} {write:?}");
        };
        let (home, off) = ("127.0.0.1:1", "0.0.0.0:1");
        check(home, None, None, (false, Some(Right::Read), false));
        check(home, None, Some("w"), (false, Some(Right::Read), true));
        check(home, Some("r"), None, (false, None, false));
        check(off, None, None, (true, None, false));
        check(off, None, Some("w"), (true, None, true));
        check(off, Some("r"), Some("w"), (false, None, true));
    }

    #[test]
    fn each_token_gives_its_right_and_a_wrong_one_none() {
        let access = Access::new(&config("127.0.0.1:1", Some("read"), Some("write")));
        let now = Instant::now();
        let check = |token, expected| assert_eq!(access.check_token(CLIENT, token, now), expected, "{token}");
        check("read", Ok(Right::Read));
        check("write", Ok(Right::Change));
        check("rea", Err(TokenRefused::Wrong));
        check("", Err(TokenRefused::Wrong));
        assert!(!format!("{access:?}").contains("read"));
        let without = Access::new(&config("127.0.0.1:1", None, None));
        assert_eq!(
            without.check_token(CLIENT, "", now),
            Err(TokenRefused::Wrong),
            "none is not the empty one"
        );
    }

    #[test]
    fn a_session_ends_when_a_token_changes() {
        let access = Access::new(&config("127.0.0.1:1", Some("read"), Some("write")));
        let now = Instant::now();
        let id = access.begin_session(Right::Change, now);
        assert_eq!(access.session(id.reveal(), now), Some(Right::Change));
        assert_eq!(access.session("another", now), None);
        access.change(&config("127.0.0.1:1", Some("read"), Some("write")));
        assert_eq!(access.session(id.reveal(), now), Some(Right::Change), "nothing has changed");
        access.change(&config("127.0.0.1:1", Some("read"), Some("other")));
        assert_eq!(access.session(id.reveal(), now), None);
        assert_eq!(access.check_token(CLIENT, "other", now), Ok(Right::Change));
        let id = access.begin_session(Right::Read, now);
        access.end_session(id.reveal());
        assert_eq!(access.session(id.reveal(), now), None);
    }

    #[test]
    fn a_form_token_belongs_to_one_cookie() {
        let access = Access::new(&config("127.0.0.1:1", None, Some("write")));
        let token = access.form_token("a");
        assert!(access.is_form_token("a", &token));
        for (cookie, token) in
            [("b", token.as_str()), ("a", ""), ("a", "AAAA"), ("a", "no base64!"), ("", &token)]
        {
            assert!(!access.is_form_token(cookie, token), "{cookie} {token}");
        }
        let other = Access::new(&config("127.0.0.1:1", None, Some("write")));
        assert!(!other.is_form_token("a", &token), "another process has another key");
    }
}
