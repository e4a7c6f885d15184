//! A port with tokens, and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::{Access, AnswererSlot, FoundRelease, LedgerSlot, Live, Parts, serve};
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::{AdminConfig, Config, Environment, Purpose, Secret, TARGET_EXAMPLE, load};
use crate::config_requests::ConfigRequests;

pub(super) const READ: &str = "read-token-0123456789";
pub(super) const WRITE: &str = "write-token-0123456789";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where `admin.listen` says that the port is. (In the tests it is on loopback all the same.)
#[derive(Clone, Copy)]
pub(super) enum Listen {
    OnLoopback,
    Elsewhere,
}

pub(super) fn config(listen: Listen, read: Option<&str>, write: Option<&str>) -> AdminConfig {
    let listen = match listen {
        Listen::OnLoopback => "127.0.0.1:9419",
        Listen::Elsewhere => "0.0.0.0:9419",
    };
    AdminConfig {
        listen: Some(listen.parse().unwrap()),
        advertise: None,
        read_token: read.map(Secret::new),
        write_token: write.map(Secret::new),
        tls: None,
    }
}

/// A config with the target `crm` for every type.
pub(super) fn dispatching() -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lk.toml");
    std::fs::write(&path, TARGET_EXAMPLE).unwrap();
    // Nobody is there: these tests ask no broker.
    let environment: Environment = [("LANEKEEPER_BROKER__URL", "amqp://127.0.0.1:1")].into_iter().collect();
    load(Some(&path), &environment, Purpose::Dispatch).unwrap().config
}

/// The port.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) access: Access,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Port {
    pub(super) async fn open(config: &AdminConfig) -> Self {
        Self::open_with(config, |_| {}).await
    }

    /// `set` adds what the supervisor would.
    pub(super) async fn open_with(admin: &AdminConfig, set: impl FnOnce(&mut Parts)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let access = Access::new(admin);
        let requests = ConfigRequests::new().sender;
        let config = watch::channel(Config { admin: admin.clone(), ..dispatching() }).1;
        let mut parts = Parts {
            access: access.clone(),
            metrics: Metrics::new(),
            health: Health::default(),
            requests,
            live: Live::new(&config),
            config,
            ledger: LedgerSlot::default(),
            answerer: AnswererSlot::default(),
            found_release: FoundRelease::default(),
        };
        set(&mut parts);
        tokio::spawn(serve(listener, parts));
        Self { address, access }
    }

    /// `GET PATH` with these header lines.
    pub(super) async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    /// A form, as a browser sends it.
    pub(super) async fn post_form(&self, path: &str, headers: &[&str], form: &str) -> Answer {
        let mut all = vec!["content-type: application/x-www-form-urlencoded"];
        all.extend(headers);
        self.send("POST", path, &all, form).await
    }

    /// A request whose `Host` is that of the port, unless the headers have one.
    pub(super) async fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let host = format!("host: {}", self.address);
        let host = if headers.iter().any(|header| header.starts_with("host:")) { None } else { Some(host) };
        let length = format!("content-length: {}", body.len());
        let headers: Vec<&str> = host
            .as_deref()
            .into_iter()
            .chain(["connection: close", &length])
            .chain(headers.iter().copied())
            .collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        ask(stream, &format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n{body}", headers.join("\r\n"))).await
    }

    /// The cookies, as a header, of a browser that has logged in with this token.
    pub(super) async fn log_in(&self, token: &str) -> String {
        let page = self.get("/login", &[]).await;
        let cookie = page.cookies();
        let form = format!("form_token={}&token={token}", page.form_token());
        let answer = self.post_form("/login", &[&cookie], &form).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
        answer.cookies()
    }
}

/// Sends a request and reads the answer to its end.
pub(super) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    // The port may answer, and close, before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(ANSWER_TIMEOUT, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

/// Over TLS, to a server of this name.
pub(super) async fn over_tls(
    address: SocketAddr,
    config: rustls::ClientConfig,
    name: &str,
    request: &str,
) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await?;
    Ok(ask(stream, request).await)
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What a browser would send from then on.
    pub(super) fn cookies(&self) -> String {
        let set = self.headers.iter().filter(|(name, _)| name == "set-cookie");
        let pairs = set.filter(|(_, value)| !value.contains("Max-Age=0"));
        let pairs: Vec<&str> = pairs.filter_map(|(_, value)| value.split(';').next()).collect();
        format!("cookie: {}", pairs.join("; "))
    }

    /// The anti-forgery token of the first form.
    pub(super) fn form_token(&self) -> String {
        let rest = self.body.split("name=\"form_token\" value=\"").nth(1).expect("a form with a token");
        rest.split('"').next().unwrap().to_owned()
    }
}
