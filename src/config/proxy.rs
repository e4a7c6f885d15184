//! The key `proxy` of `[[target]]`.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;
use url::Url;

use super::fault::Problem;
use super::mask;
use super::parse::text;
use lanekeeper_core::secret::Secret;

/// An HTTP proxy that connects us to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Its host name or IP address; an IPv6 address is in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of the header `proxy-authorization`, if it wants one.
    pub authorization: Option<Secret>,
}

impl fmt::Display for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Parses the key; "" means none. Problems do not quote the URL: it may contain a password.
pub fn parse(raw: &mut Json) -> Result<Option<ProxyConfig>, Problem> {
    const FIX: &str = "write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with both percent-encoded";
    let text = text(raw)?;
    *raw = Json::from(mask::url(&text));
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(&text).map_err(|_| Problem::constant("is not a URL", FIX))?;
    if url.scheme() != "http" {
        let what = "does not begin with http://, and no other way to a proxy is known here";
        return Err(Problem::constant(what, FIX));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::constant("has more than a host and a port", FIX));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| Problem::constant("has no host", FIX))?.to_owned();
    let port = url.port_or_known_default().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Problem::constant("has port 0", FIX))?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned);
    let authorization = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            let user = decoded(user).filter(|user| !user.contains(':'));
            let (Some(user), Some(password)) = (user, decoded(password.unwrap_or(""))) else {
                let what = "has a user or a password that cannot be sent (RFC 7617: UTF-8, and no \":\" in the user)";
                return Err(Problem::constant(what, FIX));
            };
            let credentials = BASE64.encode(format!("{user}:{password}"));
            Some(Secret::new(format!("Basic {credentials}")))
        }
    };
    Ok(Some(ProxyConfig { host, port, authorization }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        match (parse(&mut Json::from(text)), expected) {
            (Ok(Some(proxy)), Ok(expected)) => {
                let authorization = proxy.authorization.as_ref().map_or("none", Secret::reveal);
                assert_eq!(format!("{proxy} {authorization}"), expected, "{text}");
                assert!(!format!("{proxy:?}").contains("Basic"), "{proxy:?}");
            }
            (Err(problem), Err(part)) => {
                assert!(problem.to_string().contains(part), "{text}: {problem}");
                assert!(!problem.to_string().contains("s3cret"), "{problem}");
            }
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn a_proxy_is_a_host_a_port_and_perhaps_a_password() {
        check("http://proxy:3128", Ok("proxy:3128 none"));
        check("http://proxy", Ok("proxy:80 none"));
        check("http://[::1]:3128/", Ok("[::1]:3128 none"));
        check("http://app:s3cret@10.0.0.1:3128", Ok("10.0.0.1:3128 Basic YXBwOnMzY3JldA=="));
        check("http://a%40b:p%3Aw%2F@proxy:1", Ok("proxy:1 Basic YUBiOnA6dy8="));
        check("http://app@proxy:1", Ok("proxy:1 Basic YXBwOg=="));
        check("https://app:s3cret@proxy:3128", Err("does not begin with http://"));
        check("socks5://proxy:1080", Err("does not begin with http://"));
        check("proxy:3128", Err("does not begin with http://"));
        check("proxy", Err("is not a URL"));
        check("http://app:s3cret@", Err("is not a URL"));
        check("http://proxy:3128/s3cret", Err("more than a host"));
        check("http://proxy:3128?s3cret", Err("more than a host"));
        check("http://proxy:0", Err("port 0"));
        check("http://a%3Ab:s3cret@proxy:1", Err("cannot be sent"));
        check("http://app:%ffs3cret@proxy:1", Err("cannot be sent"));
        assert_eq!(parse(&mut Json::from("")).unwrap(), None);
        let mut shown = Json::from("http://app:s3cret@proxy:3128");
        parse(&mut shown).unwrap();
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
    }
}
