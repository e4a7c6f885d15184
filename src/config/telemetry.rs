//! The keys of `[telemetry]`.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderValue;
use serde_json::Value as Json;
use url::Url;

use super::fault::Problem;
use super::mask;
use super::parse::{number, text, timeout};
use super::reader::{Reader, Shape};
use super::target::header_name;
use super::tls::{TlsConfig, authorities};
use lanekeeper_core::secret::{MASK, Secret};

const EXAMPLE: &str =
    "write http://HOST:PORT or https://HOST:PORT, such as \"http://127.0.0.1:4318\", or \"\" for no traces";

/// What OTLP appends to the address of a collector.
const PATH: &str = "/v1/traces";

/// Headers that the exporter sets.
const RESERVED: [&str; 3] = ["content-type", "content-encoding", "user-agent"];

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Where the collector is.
    pub endpoint: Url,
    /// The name of this service in traces.
    pub service_name: String,
    /// The share of traces that begin here and are sampled: 0 to 1.
    pub sample_ratio: f64,
    /// For one request to the collector.
    pub timeout: Duration,
    /// Sent to the collector; valid names and values.
    pub headers: Vec<(String, Secret)>,
    /// Whom to trust.
    pub tls: TlsConfig,
}

impl TelemetryConfig {
    /// Where spans are posted to.
    #[must_use]
    pub fn traces_url(&self) -> String {
        self.endpoint.as_str().trim_end_matches('/').to_owned() + PATH
    }
}

/// Reads the section; `None`: traces are off, or a fault was noted.
pub fn read(reader: &mut Reader<'_>) -> Option<TelemetryConfig> {
    let mut section = reader.section("telemetry");
    let endpoint = section.read("endpoint", endpoint);
    let service_name = section.read("service_name", service_name);
    let sample_ratio = section.read("sample_ratio", number(0.0..=1.0));
    let timeout = section.read("timeout", timeout);
    let mut taken = BTreeSet::new();
    let headers = section.each("headers", Shape::Table, |name, raw| header(name, raw, &mut taken));
    let has_ca = section.has("ca");
    let ca = section.read_if_set("ca", authorities);
    let is_sound = has_ca == ca.is_some();
    section.finish();
    let (service_name, sample_ratio, timeout, headers) = (service_name?, sample_ratio?, timeout?, headers?);
    let tls = TlsConfig { authorities: ca.unwrap_or_default(), ..TlsConfig::default() };
    let endpoint = endpoint?.filter(|_| is_sound)?;
    Some(TelemetryConfig { endpoint, service_name, sample_ratio, timeout, headers, tls })
}

fn endpoint(raw: &mut Json) -> Result<Option<Url>, Problem> {
    let text = text(raw)?;
    *raw = Json::from(mask::url(&text));
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), EXAMPLE))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Problem::new("begins with neither http:// nor https://", EXAMPLE));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::new(
            "has a user name or password",
            "send them in telemetry.headers (authorization) instead",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::new("has a \"?\" or a \"#\"", EXAMPLE));
    }
    if url.path().trim_end_matches('/').ends_with(PATH) {
        return Err(Problem::new("ends with /v1/traces, which is appended to it", "leave /v1/traces out"));
    }
    Ok(Some(url))
}

fn service_name(raw: &mut Json) -> Result<String, Problem> {
    let name = text(raw)?;
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        let what = format!("{name:?} is empty, has more than 100 bytes, or control characters");
        return Err(Problem::new(what, "write a name of 1 to 100 bytes, such as \"lanekeeper\""));
    }
    Ok(name)
}

fn header(name: &str, raw: &mut Json, taken: &mut BTreeSet<String>) -> Result<(String, Secret), Problem> {
    // First of all the value is masked, so that nothing can show it.
    let written = std::mem::replace(raw, Json::from(MASK));
    let name = header_name(name)?;
    if RESERVED.contains(&name.as_str()) {
        return Err(Problem::new(format!("the header {name:?} is set by Lanekeeper"), "leave it out"));
    }
    if !taken.insert(name.clone()) {
        return Err(Problem::new(
            "is set twice (case does not matter in a header's name)",
            "leave one of them out",
        ));
    }
    let Json::String(value) = written else {
        return Err(Problem::new("the value is not a string", "put it in quotes: \"…\""));
    };
    if HeaderValue::from_str(&value).is_err() || value.trim() != value {
        return Err(Problem::new(
            "the value has a line end, another control character, or spaces at an end",
            "remove them",
        ));
    }
    Ok((name, Secret::new(value)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Environment, Loaded, Purpose, TARGET_EXAMPLE, warnings};

    fn read(lines: &str) -> Result<Loaded, String> {
        let text = format!("[telemetry]\n{lines}\n{TARGET_EXAMPLE}");
        let environment: Environment = [("KEY", "s3cret-key")].into_iter().collect();
        super::super::read(Some((Path::new("lk.toml"), &text)), &environment, Purpose::Dispatch)
            .map_err(|faults| faults.to_string())
    }

    #[test]
    fn spans_go_to_the_path_of_otlp_behind_the_address() {
        assert_eq!(read("").unwrap().config.telemetry, None, "off by default");
        let check = |endpoint: &str, expected: &str| {
            let telemetry = read(&format!("endpoint = {endpoint:?}")).unwrap().config.telemetry;
            assert_eq!(telemetry.expect("it is on").traces_url(), expected);
        };
        check("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces");
        check("https://otlp.example/otlp/", "https://otlp.example/otlp/v1/traces");
    }

    #[test]
    fn headers_are_sent_and_never_shown() {
        let lines = "endpoint = \"http://collector.example:4318\"\nheaders = { X-Key = \"a s3cret\", b = \"${KEY}\" }";
        let loaded = read(lines).unwrap();
        let telemetry = loaded.config.telemetry.as_ref().expect("it is on");
        let headers: Vec<_> =
            telemetry.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        assert_eq!(headers, [("x-key", "a s3cret"), ("b", "s3cret-key")]);
        assert!(!format!("{loaded:?}").contains("s3cret"), "{loaded:?}");
        let warned = warnings(&loaded.config);
        assert!(
            warned.iter().any(|warning| warning.contains("collector.example as plain text")),
            "{warned:?}"
        );
        for (lines, part) in [
            ("headers = { Content-Type = \"a\" }", "set by Lanekeeper"),
            ("headers = { a = \"s3cret\\n\" }", "line end"),
            ("headers = { a = \"1\", A = \"2\" }", "set twice"),
        ] {
            let faults = read(lines).expect_err(lines);
            assert!(faults.contains(part) && !faults.contains("s3cret"), "{lines}: {faults}");
        }
    }
}
