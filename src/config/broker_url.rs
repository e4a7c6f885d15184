//! Checks `broker.url`, and masks its password.
//!
//! No problem quotes the URL: one that cannot be parsed cannot be masked either.

use amq_protocol_uri::AMQPUri;
use serde_json::Value as Json;
use url::{Host, Url};

use super::fault::Problem;
use super::parse::{one_or_several, text};
use lanekeeper_core::secret::{MASK, Secret};

const EXAMPLE: &str = "write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS; percent-encode what is not a \
                       letter or digit in USER, PASSWORD and VHOST";

/// Query parameters that the AMQP client uses. It ignores others silently, so they are refused here.
const PARAMETERS: [&str; 4] = ["frame_max", "channel_max", "connection_timeout", "auth_mechanism"];

/// `broker.url`: one URL, or several of hosts of one cluster, all with the same virtual host.
pub fn broker_urls(raw: &mut Json) -> Result<Vec<Secret>, Problem> {
    let urls = one_or_several(raw, &["amqp", "amqps"], broker_url)?;
    let vhost = |url: &Secret| url.reveal().parse::<AMQPUri>().ok().map(|uri| uri.vhost);
    if urls.iter().any(|url| vhost(url) != vhost(&urls[0])) {
        return Err(Problem::new(
            "names several virtual hosts, and each has queues of its own",
            "write the same virtual host in each URL",
        ));
    }
    Ok(urls)
}

/// A URL that the AMQP client accepts and reads as it is meant.
fn broker_url(raw: &mut Json) -> Result<Secret, Problem> {
    let text = text(raw)?;
    let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), EXAMPLE))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(Problem::new("begins with neither amqp:// nor amqps://", EXAMPLE));
    }
    match url.host() {
        None | Some(Host::Domain("")) => return Err(Problem::new("has no host", EXAMPLE)),
        // The client would silently connect to localhost instead.
        Some(Host::Ipv6(_)) => {
            return Err(Problem::new(
                "has an IPv6 address as host, which the AMQP client does not support",
                "write a host name, or an IPv4 address",
            ));
        }
        Some(_) => {}
    }
    if url.path() == "/" {
        return Err(Problem::new(
            "ends with \"/\", which means the virtual host with the empty name",
            "write /%2f for the default virtual host, or leave the \"/\" out",
        ));
    }
    if url.path().matches('/').count() > 1 {
        return Err(Problem::new("has a \"/\" in its virtual host", "write %2f for it"));
    }
    if url.fragment().is_some() {
        return Err(Problem::new("has a \"#\"", "write %23 for it"));
    }
    for (name, _) in url.query_pairs() {
        if name == "heartbeat" {
            return Err(Problem::new("sets a heartbeat", "set broker.heartbeat instead"));
        }
        if !PARAMETERS.contains(&&*name) {
            let known = PARAMETERS.join(", ");
            return Err(Problem::new("has an unknown query parameter", format!("known are {known}")));
        }
    }
    text.parse::<AMQPUri>().map_err(|_| Problem::new("has an invalid parameter or encoding", EXAMPLE))?;
    *raw = Json::from(masked(&url));
    Ok(Secret::new(text))
}

/// The URL without its password.
pub(super) fn masked(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<&str, &str>) {
        let mut raw = Json::from(url);
        let got = broker_urls(&mut raw).map(|_| raw.as_str().map_or_else(|| raw.to_string(), str::to_owned));
        match expected {
            Ok(shown) => assert_eq!(got.as_deref(), Ok(shown), "{url}"),
            Err(part) => {
                let problem = format!("{:?}", got.expect_err(url));
                assert!(problem.contains(part) && !problem.contains("s3cret"), "{url}: {problem}");
            }
        }
    }

    #[test]
    fn several_hosts_are_one_broker() {
        let check_list = |urls: &[&str], expected: Result<&str, &str>| {
            let mut raw = Json::from(urls);
            let got = broker_urls(&mut raw).map(|urls| (urls.len(), raw.to_string()));
            match expected {
                Ok(shown) => assert_eq!(got, Ok((urls.len(), shown.to_owned())), "{urls:?}"),
                Err(part) => {
                    let problem = format!("{:?}", got.expect_err(part));
                    assert!(problem.contains(part) && !problem.contains("s3cret"), "{problem}");
                }
            }
        };
        let (a, b) = ("amqp://u:s3cret@a/v", "amqps://w:s3cret@b:1/v");
        check_list(&[a, b], Ok(r#"["amqp://u:***@a/v","amqps://w:***@b:1/v"]"#));
        check_list(&[a], Ok(r#""amqp://u:***@a/v""#));
        check_list(&[], Err("has 0 URLs"));
        check_list(&[a, "amqp://u:s3cret@b"], Err("several virtual hosts"));
        check_list(&["amqp://a", "amqp://b/%2f"], Ok(r#"["amqp://a","amqp://b/%2f"]"#));
        check_list(&[a, "http://u:s3cret@b"], Err("URL 2 of the list begins with neither"));
        // As in an environment variable.
        let both = r#"["amqp://u:***@a/v","amqp://u:***@b/v"]"#;
        check("amqp://u:s3cret@a/v,amqp://u:s3cret@b/v", Ok(both));
        check("amqp://u:s3cret@a/v , amqp://u:s3cret@b/v", Ok(both));
        check("amqp://u:s3cret,x@a/v", Ok("amqp://u:***@a/v"));
        check("amqp://u:s3cret@a/v,", Ok("amqp://u:***@a/v,"));
    }

    #[test]
    fn a_url_is_checked_and_shown_without_its_password() {
        check("amqp://127.0.0.1", Ok("amqp://127.0.0.1"));
        check("amqp://guest:s3cret@127.0.0.1:5672/%2f", Ok("amqp://guest:***@127.0.0.1:5672/%2f"));
        check(
            "amqps://a%40b:s3cret%2F@mq.example:5671/orders",
            Ok("amqps://a%40b:***@mq.example:5671/orders"),
        );
        check("amqp://u:s3cret@h?channel_max=100", Ok("amqp://u:***@h?channel_max=100"));
        check("", Err("is not a URL"));
        check("127.0.0.1:5672", Err("is not a URL"));
        check("http://u:s3cret@h", Err("neither amqp"));
        check("amqp:s3cret", Err("has no host"));
        check("amqp://", Err("has no host"));
        check("amqp://u:s3cret@h:99999", Err("is not a URL"));
        check("amqp://u:s3cret@[::1]", Err("IPv6"));
        check("amqp://u:s3cret@h/", Err("the empty name"));
        check("amqp://u:s3cret@h//", Err("in its virtual host"));
        check("amqp://u:s3cret@h/a#b", Err("%23"));
        check("amqp://u:s3cret@h?heartbeat=10", Err("broker.heartbeat"));
        check("amqp://u:s3cret@h?verify=s3cret", Err("unknown"));
        check("amqp://u:s3cret@h?frame_max=much", Err("invalid"));
        check("amqp://u:s3cret@h/%ff", Err("invalid"));
    }
}
