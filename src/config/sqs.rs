//! The keys of `[source]` and `[sqs]`.

use std::time::Duration;

use serde_json::Value as Json;
use url::{Host, Url};

use super::fault::Problem;
use super::model::{Config, Purpose};
use super::parse::{choice, format_duration, integer, text, whole_seconds};
use super::reader::{Reader, Section};
use lanekeeper_core::secret::{MASK, Secret};
use lanekeeper_ledger::LedgerPlace;

/// A request that leaves at the last moment, and the clocks of two hosts.
const AT_WORK_MARGIN: Duration = Duration::from_secs(2);
/// A receive may wait for this part of the visibility timeout, and what is held is asked for anew after it.
const PARTS: u32 = 3;
/// SQS keeps what it handed over for 12 hours at most, however often it is asked; what waits behind counts, too.
const HELD_MAX: Duration = Duration::from_secs(5 * 3600);

const KINDS: [(&str, Kind); 2] = [("rabbitmq", Kind::RabbitMq), ("sqs", Kind::Sqs)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RabbitMq,
    Sqs,
}

/// `[sqs]`, if `source.kind` is "sqs".
#[derive(Clone, Debug, PartialEq)]
pub struct SqsConfig {
    /// `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME.fifo`.
    pub queue_url: String,
    /// Also of a FIFO queue.
    pub dead_letter_queue_url: String,
    /// Where requests go instead of the host of `queue_url`.
    pub endpoint_url: Option<String>,
    /// `None`: as the environment or the URL says.
    pub region: Option<String>,
    /// Key id, secret key and perhaps session token; `None`: as AWS finds them.
    pub credentials: Option<(String, Secret, Option<Secret>)>,
    /// 10 seconds to 7 hours.
    pub visibility_timeout: Duration,
    /// 1 to 20 seconds.
    pub wait_time: Duration,
    /// Receives at once; 1 to 16.
    pub receivers: usize,
}

impl Config {
    /// How long a request can be at work at a target, with a margin: for so long before the end of a visibility timeout none
    /// leaves.
    #[must_use]
    pub fn at_work_max_of_sqs(&self) -> Duration {
        self.at_work_max() + AT_WORK_MARGIN
    }
}

/// Reads both sections. `Some(None)`: updates come from RabbitMQ; `None`: a fault was noted.
#[expect(clippy::option_option, reason = "sections without faults can say that SQS is not used")]
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Option<SqsConfig>> {
    let mut section = reader.section("source");
    let kind = section.read("kind", choice(&KINDS));
    if kind == Some(Kind::Sqs) && !cfg!(feature = "sqs") {
        let fix = "install the released program, or build with the feature \"sqs\"";
        section.fault("kind", Problem::new("is \"sqs\", and this program was built without it", fix));
    }
    section.finish();
    let is_used = kind == Some(Kind::Sqs);
    let mut section = reader.section("sqs");
    let queue_url = section.read("queue_url", fifo_url);
    let dead_letter_queue_url = section.read("dead_letter_queue_url", fifo_url);
    let endpoint_url = section.read("endpoint_url", endpoint);
    let region = section.read("region", text);
    let visibility_timeout = section.read("visibility_timeout", whole_seconds(10..=25_200));
    let wait_time = section.read("wait_time", whole_seconds(1..=20));
    let receivers = section.read("receivers", integer::<usize>(1..=16));
    let credentials = read_credentials(&mut section);
    if is_used {
        for (key, url) in [("queue_url", &queue_url), ("dead_letter_queue_url", &dead_letter_queue_url)] {
            if url.as_ref().is_some_and(String::is_empty) {
                let fix = "write the URL of a FIFO queue: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME.fifo";
                section.fault(key, Problem::new("is \"\", and source.kind is \"sqs\"", fix));
            }
        }
        if queue_url == dead_letter_queue_url && queue_url.as_ref().is_some_and(|url| !url.is_empty()) {
            let problem = Problem::new("is sqs.queue_url, too", "make another FIFO queue for dead letters");
            section.fault("dead_letter_queue_url", problem);
        }
    }
    if let (Some(visibility_timeout), Some(wait_time)) = (visibility_timeout, wait_time)
        && wait_time * PARTS > visibility_timeout
    {
        let (wait, most) = (format_duration(wait_time), format_duration(visibility_timeout / PARTS));
        let what = format!("{wait} is over a third of visibility_timeout, {most}");
        section.fault("wait_time", Problem::new(what, "lower it, or raise visibility_timeout"));
    }
    section.finish();
    let none_if_empty = |text: String| Some(text).filter(|text| !text.is_empty());
    let config = SqsConfig {
        queue_url: queue_url?,
        dead_letter_queue_url: dead_letter_queue_url?,
        endpoint_url: none_if_empty(endpoint_url?),
        region: none_if_empty(region?),
        credentials: credentials?,
        visibility_timeout: visibility_timeout?,
        wait_time: wait_time?,
        receivers: receivers?,
    };
    kind.map(|_| is_used.then_some(config))
}

/// Rules between the sections.
pub(super) fn check(reader: &mut Reader<'_>, config: &Config, purpose: Purpose) {
    let Some(sqs) = config.sqs.as_ref().filter(|_| purpose == Purpose::Dispatch) else { return };
    let at_least = config.at_work_max_of_sqs() * PARTS;
    if sqs.visibility_timeout < at_least {
        let what = format!(
            "{} is below three times the longest timeout of a target and 2 s, {}",
            format_duration(sqs.visibility_timeout),
            format_duration(at_least)
        );
        let fix = format!("raise it to {} or more, or lower the timeout", format_duration(at_least));
        reader.section("sqs").fault("visibility_timeout", Problem::new(what, fix));
    }
    if let Some(ledger) = &config.ledger
        && matches!(ledger.place, LedgerPlace::Postgres(_))
        && !ledger.row_lock
    {
        let what = "is false, and SQS does not say which process has a record: two processes could release and send parked \
                    updates of one at the same time";
        reader.section("ledger").fault("row_lock", Problem::new(what, "set row_lock = true"));
    }
    if config.dispatch.held_max > HELD_MAX {
        let what = "is over 5h, and SQS keeps an update for 12 hours at most, what waits behind it included";
        reader.section("dispatch").fault("held_max", Problem::new(what, "lower it to 5h or less"));
    }
    if !config.notify.is_empty() {
        let what = "does not work with source.kind = \"sqs\" yet";
        reader
            .element("notify", 0)
            .fault("name", Problem::new(what, "leave [[notify]] out, and alert on metrics"));
    }
}

#[expect(clippy::option_option, reason = "as in `read`")]
fn read_credentials(section: &mut Section<'_, '_>) -> Option<Option<(String, Secret, Option<Secret>)>> {
    let id = section.read("access_key_id", text);
    let [key, token] = ["secret_access_key", "session_token"].map(|name| section.read(name, secret));
    let (id, key, token) = (id?, key?, token?);
    let set = |secret: &Secret| !secret.reveal().is_empty();
    match (id.is_empty(), set(&key)) {
        (true, false) if set(&token) => {
            let fix = "set access_key_id and secret_access_key, too";
            section.fault("session_token", Problem::constant("is set without them", fix));
            None
        }
        (true, false) => Some(None),
        (false, true) => Some(Some((id, key, Some(token).filter(set)))),
        (true, true) => {
            section.fault(
                "secret_access_key",
                Problem::constant("is set, and access_key_id is not", "set both or none"),
            );
            None
        }
        (false, false) => {
            section.fault(
                "access_key_id",
                Problem::constant("is set, and secret_access_key is not", "set both or none"),
            );
            None
        }
    }
}

fn secret(raw: &mut Json) -> Result<Secret, Problem> {
    let secret = text(raw)?;
    if !secret.is_empty() {
        *raw = Json::from(MASK);
    }
    Ok(Secret::new(secret))
}

/// "", or the URL of a FIFO queue.
fn fifo_url(raw: &mut Json) -> Result<String, Problem> {
    const FIX: &str = "write https://sqs.REGION.amazonaws.com/ACCOUNT/NAME.fifo";
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(text);
    }
    let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), FIX))?;
    let path = url.path().trim_matches('/');
    if path.strip_suffix(".fifo").is_none() || path.split('/').count() != 2 {
        return Err(Problem::new("is not the URL of a FIFO queue, whose name ends with .fifo", FIX));
    }
    is_safe(&url)?;
    Ok(text)
}

/// "", or the URL of a host.
fn endpoint(raw: &mut Json) -> Result<String, Problem> {
    const FIX: &str = "write https://HOST, or http://127.0.0.1:PORT for tests";
    let text = text(raw)?;
    if !text.is_empty() {
        let url = Url::parse(&text).map_err(|error| Problem::new(format!("is not a URL: {error}"), FIX))?;
        is_safe(&url)?;
    }
    Ok(text)
}

/// Plain HTTP stays on this host.
fn is_safe(url: &Url) -> Result<(), Problem> {
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_local => Ok(()),
        "http" => Err(Problem::new("would send updates and signatures as plain text", "write https://")),
        _ => Err(Problem::new("is neither https:// nor http://", "write https://")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Environment, TARGET_EXAMPLE, read};
    use super::*;

    const SQS: &str = "source.kind = \"sqs\"\n[sqs]\nqueue_url = \"https://sqs.eu-central-1.amazonaws.com/1/a.fifo\"\n\
                       dead_letter_queue_url = \"https://sqs.eu-central-1.amazonaws.com/1/dead.fifo\"\n";

    fn load(text: &str) -> Result<Config, String> {
        let environment: Environment = [("KEY", "s3cret-key")].into_iter().collect();
        let text = format!("{text}\n{TARGET_EXAMPLE}");
        let loaded = read(Some((Path::new("lk.toml"), &text)), &environment, Purpose::Dispatch);
        loaded.map(|loaded| loaded.config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_queue_is_read_or_each_fault_says_what_to_do() {
        assert_eq!(load("").unwrap().sqs, None);
        let sqs = load(SQS).unwrap().sqs.unwrap();
        assert_eq!((sqs.visibility_timeout, sqs.region), (Duration::from_secs(60), None));
        let keys = format!("{SQS}access_key_id = \"AKIA\"\nsecret_access_key = \"${{KEY}}\"\n");
        let (id, key, token) = load(&keys).unwrap().sqs.unwrap().credentials.unwrap();
        assert_eq!((id.as_str(), key.reveal(), token), ("AKIA", "s3cret-key", None));
        let check = |text: &str, part: &str| {
            let report = load(text).expect_err(text);
            assert!(
                report.starts_with("the config has 1 fault\n") && report.contains(part),
                "{text}: {report}"
            );
            assert!(!report.contains("s3cret"), "{report}");
        };
        check("source.kind = \"kafka\"", "choose \"rabbitmq\" or \"sqs\"");
        check(&SQS.replace("a.fifo", "a"), "whose name ends with .fifo");
        check(&SQS.replace("dead.fifo", "a.fifo"), "another FIFO queue");
        check(
            &SQS.replace("https://sqs.eu-central-1.amazonaws.com/1/a", "http://sqs.example/1/a"),
            "plain text",
        );
        check(&format!("{SQS}visibility_timeout = \"20s\""), "raise it to 36s or more");
        check(&format!("{SQS}wait_time = \"20s\"\nvisibility_timeout = \"45s\""), "over a third");
        check(&format!("{SQS}secret_access_key = \"${{KEY}}\""), "set both or none");
        check(&format!("{SQS}session_token = \"${{KEY}}\""), "access_key_id and secret_access_key, too");
        check(&format!("{SQS}[ledger]\nurl = \"postgres://u@h/d\""), "set row_lock = true");
        check(&format!("{SQS}[dispatch]\nheld_max = \"6h\""), "lower it to 5h");
        check(&format!("{SQS}[[notify]]\nname = \"n\"\nurl = \"http://h\"\n"), "alert on metrics");
        check(SQS.split_once("dead_letter").unwrap().0, "is \"\", and source.kind");
    }
}
