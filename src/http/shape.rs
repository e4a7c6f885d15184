//! What traces tell of a request: nothing that one record or one update makes different.

use http::Method;

use lanekeeper_core::secret::MASK;
use lanekeeper_core::template::UrlTemplate;

/// A request with what an update makes of it left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestShape {
    /// Its method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host of the URL.
    pub host: String,
    /// Port of the URL.
    pub port: u16,
    /// The path as the config writes it, with `{record_key}` and expressions. What may be a secret in it is masked.
    pub url_template: String,
}

impl RequestShape {
    /// `shown`: the URL as it may be shown.
    pub(super) fn new(method: &Method, url: &UrlTemplate, shown: &str) -> Self {
        let is_https = url.sample().is_some_and(|url| url.scheme() == "https");
        let (scheme, default_port) = if is_https { ("https", 443) } else { ("http", 80) };
        let (host, port) = url.host_and_port().unwrap_or_else(|| (String::new(), default_port));
        let path = match shown.split_once("://") {
            Some((_, location)) => {
                let location = location.split('?').next().unwrap_or_default();
                location.find('/').map_or("/", |at| &location[at..])
            }
            None => MASK, // all of it
        };
        Self { method: method.to_string(), scheme, host, port, url_template: path.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Purpose, load};

    /// Of a target with this URL.
    fn shape(url: &str) -> RequestShape {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lk.toml");
        let text = format!("[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"{url}\"\n");
        std::fs::write(&file, text).unwrap();
        let environment: Environment =
            [("PATH_TOKEN", "s3cret"), ("URL", "https://h/x")].into_iter().collect();
        let file: &Path = &file;
        let config = load(Some(file), &environment, Purpose::Dispatch)
            .unwrap_or_else(|faults| panic!("{faults}"))
            .config;
        let target = &config.targets[0];
        RequestShape::new(&Method::PUT, &target.url, &target.url_shown)
    }

    #[test]
    fn a_url_is_told_without_keys_queries_and_secrets() {
        let check = |url: &str, scheme, host: &str, port, url_template: &str| {
            let (host, url_template) = (host.to_owned(), url_template.to_owned());
            assert_eq!(shape(url), RequestShape { method: "PUT".into(), scheme, host, port, url_template });
        };
        check(
            "https://api.example/customers/{record_key}",
            "https",
            "api.example",
            443,
            "/customers/{record_key}",
        );
        check("HTTP://api.example:8080/a?key=s3cret", "http", "api.example", 8080, "/a");
        check("http://[::1]", "http", "::1", 80, "/");
        check("http://h/{{ body.name }}/x", "http", "h", 80, "/{{ body.name }}/x");
        check("https://h/hooks/${PATH_TOKEN}/{record_key}", "https", "h", 443, "/hooks/***/{record_key}");
        check("${URL}", "https", "h", 443, "***");
        check("https://h/T0/q7Rw4kZPabLmndYV9hjkTU0s", "https", "h", 443, "/T0/***");
    }
}
