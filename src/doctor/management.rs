//! Collects facts from RabbitMQ's management API. All answers and waits are bounded.

#![expect(clippy::disallowed_types, reason = "this is the HTTP client of the management API")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::Value as Json;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::{Host, Url};

use super::facts::{
    Binding, ExchangeManagement, Management, ManagementCause, ManagementFault, Node, PolicyKind, Queue,
};
use super::fix::segment;
use super::management_answers as answers;
use crate::config::ManagementAddress;
use lanekeeper_broker::{Inspection, Names, Role};

/// Bytes of one answer. The largest are lists of policies and of bindings.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// For one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// For all requests. A layout of 1,024 partitions takes about 2,000 of them.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// For what is looked at before the first layout is made: the lock is held by then.
const ROOM_TIMEOUT: Duration = Duration::from_secs(15);
const ROOM_POLL: Duration = Duration::from_secs(1);
/// Requests at once. Few: the API is made for people, and its answers cost the broker CPU time.
const REQUESTS_MAX: usize = 8;

/// Collects everything that AMQP does not show, from the first of these addresses that answers. There must be one.
pub async fn look<'a>(
    addresses: &'a [ManagementAddress],
    names: &'a Names,
    broker: &'a Inspection,
) -> Result<Management, ManagementFault> {
    let look = |address| async move { in_time(Api::open(address).await?.look(names, broker)).await }.boxed();
    first_that_answers(addresses, look).await
}

/// Collects what it shows of the exchange that publishers use, and the alarms. `cluster`: the name of the broker's.
pub async fn look_at_exchange<'a>(
    addresses: &'a [ManagementAddress],
    exchange: &'a str,
    cluster: Option<&'a str>,
) -> Result<ExchangeManagement, ManagementFault> {
    let look = |address| {
        async move { in_time(Api::open(address).await?.look_at_exchange(exchange, cluster)).await }.boxed()
    };
    first_that_answers(addresses, look).await
}

async fn first_that_answers<'a, T>(
    addresses: &'a [ManagementAddress],
    look: impl Fn(&'a ManagementAddress) -> BoxFuture<'a, Result<T, ManagementCause>>,
) -> Result<T, ManagementFault> {
    let mut first_fault = None;
    for address in addresses {
        let fault = |cause| ManagementFault { url: address.url.clone(), user: address.user.clone(), cause };
        match look(address).await {
            Err(cause @ ManagementCause::Unreachable(_)) if addresses.len() > 1 => {
                first_fault.get_or_insert(fault(cause));
            }
            looked => return looked.map_err(fault),
        }
    }
    Err(first_fault.expect("the config names a management API"))
}

/// What the first layout needs of the nodes.
pub struct Room {
    pub nodes: Vec<Node>,
    pub quorum_copies: BTreeMap<String, u64>,
}

/// Looks only at what the first layout needs, at the first address that answers; or says why it cannot be seen. `cluster`: the
/// name of the broker's.
pub async fn look_for_room(addresses: &[ManagementAddress], cluster: Option<&str>) -> Result<Room, String> {
    let mut first_fault = None;
    for address in addresses {
        match look_for_room_at(address, cluster).await {
            Ok(room) => return Ok(room),
            Err(fault) => first_fault.get_or_insert(fault),
        };
    }
    Err(first_fault.expect("the config names a management API"))
}

async fn look_for_room_at(address: &ManagementAddress, cluster: Option<&str>) -> Result<Room, String> {
    let looking = async {
        let pinned = reachable(&address.url).await.map_err(|cause| cause.to_string())?;
        let client = client(pinned).map_err(|error| error.to_string())?;
        Api { client, address }.room(cluster).await
    };
    match timeout(ROOM_TIMEOUT, looking).await {
        Ok(looked) => looked,
        Err(_) => Err(format!("it did not show the limit of open files within {} s", ROOM_TIMEOUT.as_secs())),
    }
}

async fn in_time<T>(looking: impl Future<Output = Result<T, ManagementCause>>) -> Result<T, ManagementCause> {
    if let Ok(looked) = timeout(LOOK_TIMEOUT, looking).await {
        return looked;
    }
    let text = format!("it did not answer all requests within {} s", LOOK_TIMEOUT.as_secs());
    Err(ManagementCause::Unreachable(text))
}

/// A name, and the address of it that is used.
type Pinned = (String, SocketAddr);

/// The first address of the URL's name that takes connections: each has a time of its own, and only this look at them costs
/// that time, not each request. `None`: the URL has an address instead of a name.
async fn reachable(url: &str) -> Result<Option<Pinned>, ManagementCause> {
    let url = Url::parse(url).map_err(|error| ManagementCause::Unreachable(error.to_string()))?;
    let (Some(Host::Domain(name)), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return Ok(None);
    };
    let text = |error: io::Error| ManagementCause::Unreachable(error.to_string());
    let late = |_| ManagementCause::Unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
    let looking_up = timeout(CONNECT_TIMEOUT, lookup_host((name, port)));
    let mut fault = ManagementCause::Unreachable("the name has no address".to_owned());
    for address in looking_up.await.map_err(late)?.map_err(text)?.take(ADDRESSES_MAX) {
        fault = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(Some((name.to_owned(), address))),
            Ok(Err(error)) => text(error),
            Err(elapsed) => late(elapsed),
        };
    }
    Err(fault)
}

fn client(pinned: Option<Pinned>) -> reqwest::Result<Client> {
    let builder = match pinned {
        Some((name, address)) => Client::builder().resolve(&name, address),
        None => Client::builder(),
    };
    builder
        .user_agent(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))
        // The password is sent only to where the config says.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .build()
}

struct Api<'a> {
    client: Client,
    address: &'a ManagementAddress,
}

/// An answer of the API.
enum ApiAnswer {
    /// 200, or 503 of a health check that failed.
    Given(Json),
    /// 404.
    NotFound,
    /// 401 or 403, with the API's words.
    Refused(String),
}

impl<'a> Api<'a> {
    async fn open(address: &'a ManagementAddress) -> Result<Self, ManagementCause> {
        let client = client(reachable(&address.url).await?);
        let client = client.map_err(|error| ManagementCause::Unreachable(error.to_string()))?;
        Ok(Self { client, address })
    }

    /// A host can run several brokers, and a port can be forwarded to another host.
    async fn is_of(&self, cluster: Option<&str>) -> Result<(), ManagementCause> {
        if let ApiAnswer::Refused(words) = self.ask("whoami").await? {
            return Err(ManagementCause::Refused(words));
        }
        let overview = self.given("overview").await?;
        match (cluster, overview["cluster_name"].as_str()) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                Err(ManagementCause::OtherCluster(theirs.to_owned()))
            }
            _ => Ok(()),
        }
    }

    async fn room(&self, cluster: Option<&str>) -> Result<Room, String> {
        let words = |cause: ManagementCause| cause.to_string();
        self.is_of(cluster).await.map_err(words)?;
        let mut nodes = self.unless_refused("nodes", answers::nodes).await.map_err(words)??;
        // In the first seconds of a node the API does not show its limit (3.10.8).
        while nodes.iter().any(|node| node.running && node.files_max.is_none()) {
            tokio::time::sleep(ROOM_POLL).await;
            nodes = self.unless_refused("nodes", answers::nodes).await.map_err(words)??;
        }
        Ok(Room { nodes, quorum_copies: self.quorum_copies().await? })
    }

    /// The list of all queues can be longer than what is read.
    async fn quorum_copies(&self) -> Result<BTreeMap<String, u64>, String> {
        let path = "queues?columns=type,members&disable_stats=true";
        let copies = self.unless_refused(path, answers::quorum_copies).await;
        copies.unwrap_or_else(|cause| Err(cause.to_string()))
    }

    async fn look(&self, names: &Names, broker: &Inspection) -> Result<Management, ManagementCause> {
        self.is_of(broker.cluster.as_deref()).await?;
        let vhost = segment(&self.address.vhost);
        let mut policies =
            answers::policies(&self.given(&format!("policies/{vhost}")).await?, PolicyKind::Policy);
        let of_operators = |answer: &Json| answers::policies(answer, PolicyKind::OperatorPolicy);
        let of_operators = self.unless_refused(&format!("operator-policies/{vhost}"), of_operators).await?;
        policies.extend(of_operators.unwrap_or_default()); // if they are refused, each queue still shows the merged policy
        Ok(Management {
            url: self.address.url.clone(),
            user: self.address.user.clone(),
            queues: self.queues(&vhost, names, broker).await?,
            bindings: self.bindings(&vhost, names, broker).await?,
            policies,
            alarms: self.unless_refused("health/checks/alarms", answers::alarms).await?,
            nodes: self.unless_refused("nodes", answers::nodes).await?,
            quorum_copies: self.quorum_copies().await,
            khepri: self.unless_refused("feature-flags", answers::khepri).await?,
        })
    }

    async fn look_at_exchange(
        &self,
        exchange: &str,
        cluster: Option<&str>,
    ) -> Result<ExchangeManagement, ManagementCause> {
        self.is_of(cluster).await?;
        let path = format!("exchanges/{}/{}", segment(&self.address.vhost), segment(exchange));
        let seen = self.unless_refused(&path, answers::exchange).await?;
        let bindings = self.unless_refused(&format!("{path}/bindings/source"), answers::bindings).await?;
        Ok(ExchangeManagement {
            url: self.address.url.clone(),
            user: self.address.user.clone(),
            exchange: seen,
            bindings,
            alarms: self.unless_refused("health/checks/alarms", answers::alarms).await?,
        })
    }

    async fn queues(
        &self,
        vhost: &str,
        names: &Names,
        broker: &Inspection,
    ) -> Result<BTreeMap<String, Queue>, ManagementCause> {
        // Owned, so that the future is Send.
        let mut queues: Vec<String> = names_of_queues(broker);
        queues.push(names.members());
        let questions = queues.into_iter().map(|name| self.queue(vhost, name));
        let mut queues = BTreeMap::new();
        let mut answers = futures_util::stream::iter(questions).buffered(REQUESTS_MAX);
        while let Some(queue) = answers.try_next().await? {
            queues.extend(queue);
        }
        Ok(queues)
    }

    async fn queue(&self, vhost: &str, name: String) -> Result<Option<(String, Queue)>, ManagementCause> {
        Ok(match self.ask(&format!("queues/{vhost}/{}", segment(&name))).await? {
            ApiAnswer::Given(json) => Some((name, answers::queue(&json))),
            ApiAnswer::NotFound | ApiAnswer::Refused(_) => None,
        })
    }

    async fn bindings(
        &self,
        vhost: &str,
        names: &Names,
        broker: &Inspection,
    ) -> Result<Vec<Binding>, ManagementCause> {
        let mut paths = Vec::new();
        for object in &broker.objects {
            let name = segment(&object.name);
            match object.role {
                Role::Partition(_) => paths.push(format!("queues/{vhost}/{name}/bindings")),
                Role::Public | Role::DeadExchange => {
                    paths.push(format!("exchanges/{vhost}/{name}/bindings/source"));
                }
                Role::Ingress | Role::Handoff | Role::Layout => {
                    paths.push(format!("exchanges/{vhost}/{name}/bindings/source"));
                    paths.push(format!("exchanges/{vhost}/{name}/bindings/destination"));
                }
                Role::DeadQueue | Role::Document => {}
            }
        }
        let questions = paths.into_iter().map(async |path| match self.ask(&path).await? {
            ApiAnswer::Given(json) => Ok(answers::bindings(&json)),
            ApiAnswer::NotFound | ApiAnswer::Refused(_) => Ok(Vec::new()),
        });
        let lists: Vec<Vec<Binding>> =
            futures_util::stream::iter(questions).buffered(REQUESTS_MAX).try_collect().await?;
        let mut bindings: Vec<Binding> = lists.into_iter().flatten().collect();
        bindings.sort();
        bindings.dedup();
        // What else is bound to the public exchange is the publishers' business, unless it is an object of ours.
        let ours = |binding: &Binding| {
            binding.source != names.public()
                || broker.objects.iter().any(|object| object.name == binding.destination)
        };
        bindings.retain(ours);
        Ok(bindings)
    }

    /// What `read` makes of the answer; or the API's words if this user may not see it.
    async fn unless_refused<T>(
        &self,
        path: &str,
        read: impl Fn(&Json) -> T,
    ) -> Result<Result<T, String>, ManagementCause> {
        Ok(match self.ask(path).await? {
            ApiAnswer::Given(json) => Ok(read(&json)),
            ApiAnswer::NotFound => Err("the broker does not have this API".to_owned()),
            ApiAnswer::Refused(words) => Err(words),
        })
    }

    async fn given(&self, path: &str) -> Result<Json, ManagementCause> {
        match self.ask(path).await? {
            ApiAnswer::Given(json) => Ok(json),
            ApiAnswer::NotFound => Err(ManagementCause::NotUnderstood(format!("/api/{path} does not exist"))),
            ApiAnswer::Refused(words) => Err(ManagementCause::Refused(format!("/api/{path}: {words}"))),
        }
    }

    async fn ask(&self, path: &str) -> Result<ApiAnswer, ManagementCause> {
        let url = format!("{}/api/{path}", self.address.url);
        let asking =
            self.client.get(url).basic_auth(&self.address.user, Some(self.address.password.reveal())).send();
        let response = asking.await.map_err(unreachable)?;
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {}
            StatusCode::NOT_FOUND => return Ok(ApiAnswer::NotFound),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let words = body(response, path).await.map(|json| answers::reason(&json));
                return Ok(ApiAnswer::Refused(words.unwrap_or_else(|_| status.to_string())));
            }
            other => return Err(ManagementCause::NotUnderstood(format!("/api/{path} answers {other}"))),
        }
        body(response, path).await.map(ApiAnswer::Given)
    }
}

fn names_of_queues(broker: &Inspection) -> Vec<String> {
    let queues = broker.objects.iter().filter(|object| object.role.is_queue());
    queues.map(|object| object.name.clone()).collect()
}

/// Without the URL, which the finding names.
fn unreachable(error: reqwest::Error) -> ManagementCause {
    ManagementCause::Unreachable(lanekeeper_core::error::error_chain(&error.without_url()))
}

async fn body(mut response: Response, path: &str) -> Result<Json, ManagementCause> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let text = format!("the answer to /api/{path} is longer than {ANSWER_BYTES_MAX} bytes");
            return Err(ManagementCause::NotUnderstood(text));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| {
        ManagementCause::NotUnderstood(format!("the answer to /api/{path} is not JSON: {error}"))
    })
}
