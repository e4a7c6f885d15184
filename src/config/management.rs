//! Checks `broker.management_url`, and derives the address of RabbitMQ's management API.
//!
//! No problem quotes the URL: it may hold a password.

use amq_protocol_uri::{AMQPScheme, AMQPUri};
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;
use url::Url;

use super::broker_url::masked;
use super::fault::Problem;
use super::model::BrokerConfig;
use super::parse::text;
use lanekeeper_core::secret::Secret;

const EXAMPLE: &str = "write http://HOST:15672 or https://HOST:15671, with USER:PASSWORD@ before HOST if they differ \
                       from those of broker.url; or \"\"";

/// The default ports of the management plugin, without and with TLS.
const PORT: u16 = 15_672;
const TLS_PORT: u16 = 15_671;

/// The address of a broker's management API. `Debug` does not print the password.
#[derive(Clone, Debug)]
pub struct ManagementAddress {
    /// Without user, password, `/api` and a `/` at its end.
    pub url: String,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// The virtual host of `broker.url`.
    pub vhost: String,
}

/// Checks the URL of a management API; `None`: it is empty.
///
/// # Errors
/// It cannot be the URL of a management API.
pub fn management_url(raw: &mut Json) -> Result<Option<Secret>, Problem> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), EXAMPLE))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Problem::new("begins with neither http:// nor https://", EXAMPLE));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::new("has a \"?\" or a \"#\"", EXAMPLE));
    }
    if url.path().trim_end_matches('/').ends_with("/api") {
        return Err(Problem::new("ends with /api, which is appended to it", "leave /api out"));
    }
    *raw = Json::from(masked(&url));
    Ok(Some(Secret::new(text)))
}

impl BrokerConfig {
    /// The users of `url`, each once, in order.
    ///
    /// # Panics
    /// If `url` is invalid: the config's check rules that out.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        let mut users: Vec<String> = Vec::new();
        for user in self.brokers().map(|broker| broker.authority.userinfo.username) {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        users
    }

    fn brokers(&self) -> impl Iterator<Item = AMQPUri> {
        self.connection.urls.iter().map(|url| url.reveal().parse().expect("the config's check parsed it"))
    }

    /// The management API, at least one address: `broker.management_url`, or the default port on each host of `broker.url`.
    /// If `management_url` has no user and password, those of the first `broker.url` are used.
    ///
    /// # Panics
    /// If a URL is invalid: the config's check rules that out.
    #[must_use]
    pub fn management(&self) -> Vec<ManagementAddress> {
        let Some(url) = &self.management_url else {
            return self.brokers().map(beside).collect();
        };
        let broker = self.brokers().next().expect("the config names a host");
        let (user, password) = (broker.authority.userinfo.username, broker.authority.userinfo.password);
        let mut url = Url::parse(url.reveal()).expect("the config's check parsed it");
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = match (url.username(), url.password()) {
            ("", _) => (user, password),
            (user, password) => (plain(user), plain(password.unwrap_or_default())),
        };
        // They fail only for URLs without a host, and http and https URLs have one.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let url = url.as_str().trim_end_matches('/').to_owned();
        vec![ManagementAddress { url, user, password: Secret::new(password), vhost: broker.vhost }]
    }
}

/// The default port on the host of a broker.
fn beside(broker: AMQPUri) -> ManagementAddress {
    let host = broker.authority.host;
    let url = match broker.scheme {
        AMQPScheme::AMQP => format!("http://{host}:{PORT}"),
        AMQPScheme::AMQPS => format!("https://{host}:{TLS_PORT}"),
    };
    let user = broker.authority.userinfo;
    let (user, password) = (user.username, Secret::new(user.password));
    ManagementAddress { url, user, password, vhost: broker.vhost }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lanekeeper_broker::ConnectionSettings;

    use super::*;

    #[test]
    fn the_management_api_is_where_the_url_says_or_else_beside_the_broker() {
        let check = |broker: &str, management: &str, expected: [&str; 4]| {
            let management_url = management_url(&mut Json::from(management)).unwrap();
            let broker = BrokerConfig {
                connection: ConnectionSettings {
                    urls: vec![Secret::new(broker), Secret::new("amqp://other:s3cret@mq2/orders")],
                    heartbeat: Duration::from_secs(10),
                },
                management_url,
            };
            let addresses = broker.management();
            let address = &addresses[0];
            if management.is_empty() {
                assert_eq!((&*addresses[1].url, &*addresses[1].user), ("http://mq2:15672", "other"));
            } else {
                assert_eq!(addresses.len(), 1);
            }
            let got = [&address.url, &address.user, address.password.reveal(), &address.vhost];
            assert_eq!(got, expected, "{management}");
            assert!(!format!("{address:?}").contains("s3cret"), "{address:?}");
        };
        let broker = "amqp://app:s3cret%2F@mq:5673/orders";
        check(broker, "", ["http://mq:15672", "app", "s3cret/", "orders"]);
        check("amqps://app:s3cret@mq", "", ["https://mq:15671", "app", "s3cret", "/"]);
        check(broker, "https://ui:443/mq/", ["https://ui/mq", "app", "s3cret/", "orders"]);
        check(broker, "http://a%40b:c%3A@ui:8080", ["http://ui:8080", "a@b", "c:", "orders"]);
    }

    #[test]
    fn a_url_that_no_management_api_is_behind_is_refused_without_being_quoted() {
        let check = |url: &str, part: &str| {
            let problem = format!("{}", management_url(&mut Json::from(url)).expect_err(url));
            assert!(problem.contains(part) && !problem.contains("s3cret"), "{url}: {problem}");
        };
        check("mq:15672", "neither http");
        check("u:s3cret@mq", "neither http");
        check("http://", "is not a URL");
        check("http://u:s3cret@mq/?a", "\"?\"");
        check("http://u:s3cret@mq/api/", "leave /api out");
        let mut raw = Json::from("http://u:s3cret@mq");
        management_url(&mut raw).unwrap();
        assert_eq!(raw, "http://u:***@mq/");
    }
}
