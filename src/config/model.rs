//! The config as the program uses it: every value is within its range, units are in the types.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use super::admin::AdminConfig;
use super::answers::AnswerRow;
use super::auth::AuthConfig;
use super::ingest::IngestConfig;
use super::notify::NotifyConfig;
use super::on::OnConfig;
use super::pattern::Pattern;
use super::proxy::ProxyConfig;
use super::signature::SignatureConfig;
use super::sqs::SqsConfig;
use super::telemetry::TelemetryConfig;
use super::templates::TemplatesConfig;
use super::tls::TlsConfig;
use lanekeeper_broker::ConnectionSettings;
use lanekeeper_core::breaker::BreakerLimits;
use lanekeeper_core::layout::Shape;
use lanekeeper_core::outcome::OutcomeKind;
use lanekeeper_core::pacing::PacerLimits;
use lanekeeper_core::policy::{FailurePolicies, Policy};
use lanekeeper_core::routes::{Routes, TargetId, TypePattern};
use lanekeeper_core::secret::Secret;
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_ledger::LedgerConfig;

/// Everything that operators decide.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this process in the RabbitMQ UI; by default the host name.
    pub instance: String,
    /// `[sqs]`; `None`: updates come from RabbitMQ.
    pub sqs: Option<SqsConfig>,
    /// `[broker]`.
    pub broker: BrokerConfig,
    /// `[updates]`.
    pub updates: UpdatesConfig,
    /// `[dispatch]`.
    pub dispatch: DispatchConfig,
    /// `[ledger]`; `None`: no ledger is used.
    pub ledger: Option<LedgerConfig>,
    /// `[retry]` and `[failure]`.
    pub policy: Policy,
    /// `[breaker]`.
    pub breaker: BreakerConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[telemetry]`; `None`: no traces are exported.
    pub telemetry: Option<TelemetryConfig>,
    /// `[ingest]`.
    pub ingest: IngestConfig,
    /// `[[target]]`, in order of precedence; at least one for [`Purpose::Dispatch`].
    pub targets: Vec<TargetConfig>,
    /// The groups of targets that share limits and breaker, in order of first appearance. Each target is in one.
    pub limits: Vec<LimitsConfig>,
    /// `[[notify]]`.
    pub notify: Vec<NotifyConfig>,
}

impl Config {
    /// Which target gets which types of updates.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let patterns = self.targets.iter().enumerate().flat_map(|(index, target)| {
            target.types.iter().map(move |pattern| (pattern.clone(), TargetId(index)))
        });
        Routes::new(patterns)
    }

    /// The place in `limits` of the group that a target belongs to.
    ///
    /// # Panics
    /// If the config has no such target.
    #[must_use]
    pub fn limits_of(&self, target: TargetId) -> usize {
        let group = self.limits.iter().position(|group| group.targets.contains(&target));
        group.expect("each target is in a group")
    }

    /// Each name that a target goes by: its own, and that of its limits, for which one of their targets stands.
    #[must_use]
    pub fn target_names(&self) -> BTreeMap<String, TargetId> {
        let own = self.targets.iter().enumerate().map(|(index, target)| (&target.name, TargetId(index)));
        let groups =
            self.limits.iter().filter_map(|group| Some((&group.name, group.targets.first().copied()?)));
        groups.chain(own).map(|(name, target)| (name.clone(), target)).collect()
    }

    /// How long a request can be at work at a target after its process died or lost the partition: the longest
    /// [`TargetConfig::at_work_max`]. The next owner waits for it, in addition to the lease; zero without targets.
    #[must_use]
    pub fn at_work_max(&self) -> Duration {
        let at_work_max = |target: &TargetConfig| match &self.sqs {
            None => target.at_work_max(),
            // Visibility timeouts take no notice of takeover_wait.
            Some(_) => target.at_work_max().max(target.timeout),
        };
        self.targets.iter().map(at_work_max).max().unwrap_or_default()
    }

    /// The layout that the config asks for: `updates.partitions` and `dispatch.prefetch`.
    #[must_use]
    pub fn layout_shape(&self) -> Shape {
        Shape { partitions: self.updates.partitions.get(), prefetch: self.dispatch.prefetch.get() }
    }
}

/// What a config is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To forward updates: a config without a target is a fault.
    Dispatch,
    /// To publish updates, or to administer the broker: targets are not needed.
    Publish,
    /// To show and change parked updates: targets are not needed.
    Operate,
    /// To take updates by HTTP: targets are not needed, and a config without a client is a fault.
    Ingest,
    /// To be checked. [`super::load`] decides by what is in it: with a client or hook of a door and without targets, it is read
    /// as for [`Purpose::Ingest`]; otherwise as for [`Purpose::Dispatch`].
    Check,
    /// To be examined together with its broker. As [`Purpose::Check`], but without a door's client or hook it is read as for
    /// [`Purpose::Publish`]: who administers the broker need not know the targets.
    Examine,
}

/// Says that a config was read as one for a door alone, and why.
pub const DOOR_ALONE: &str = "Judged as a config for a door alone (`lanekeeper ingest`): it has [[ingest.client]] or \
                              [[ingest.hook]], and no [[target]].";

/// `[broker]`.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `broker.url` and `broker.heartbeat`.
    pub connection: ConnectionSettings,
    /// `broker.management_url`; `None`: the default port on the host of `broker.url`.
    pub management_url: Option<Secret>,
}

/// `[updates]`.
#[derive(Clone, Debug)]
pub struct UpdatesConfig {
    /// The exchange that publishers use. All other objects of the topology are named after it.
    pub exchange: String,
    /// Partitions of the first layout, and of the one that `topology apply` makes; 1 to 1,024.
    pub partitions: NonZeroU16,
    /// Whether `run` changes the layout to what the config says.
    pub auto_apply: bool,
    /// Whether updates without an id are dead-lettered. Otherwise an id is made for the delivery.
    pub require_id: bool,
    /// Largest body in bytes; an update with a larger one is dead-lettered.
    pub body_bytes_max: usize,
}

/// `[dispatch]`.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// Attempts in flight per partition, each of another record.
    pub in_flight_max: NonZeroUsize,
    /// Unsettled deliveries per partition; at least `in_flight_max`.
    pub prefetch: NonZeroU16,
    /// How long to wait for attempts in flight after SIGTERM, or before a partition is handed over.
    pub drain_timeout: Duration,
    /// How long a delivery may be held before its partition is given back; 1 second to a day.
    pub held_max: Duration,
}

/// `[breaker]`.
#[derive(Clone, Debug, PartialEq)]
pub enum BreakerConfig {
    /// No target is ever shut.
    Off,
    /// A target is shut when it reaches these limits.
    On(BreakerLimits),
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The format of a line.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info` or `lanekeeper=debug,warn`.
    pub filter: String,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// `[[target]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetConfig {
    /// Name in logs and metrics; unique.
    pub name: String,
    /// What requests carry.
    pub content: Content,
    /// The types of updates that it gets.
    pub types: Vec<TypePattern>,
    /// HTTP method, upper case.
    pub method: String,
    /// URL of requests.
    pub url: UrlTemplate,
    /// `url` as it may be shown: what may be a secret is masked.
    pub url_shown: String,
    /// The record keys that it takes; the pattern matches whole keys. `None`: all that its URL can carry.
    pub record_keys: Option<Pattern>,
    /// How long an attempt may wait for open connections: looking up the name, connecting, TLS, and a free place on the
    /// connection. At most `held_max` of `[dispatch]`.
    pub connect_timeout: Duration,
    /// Time limit of the requests of an attempt, from the hand-over of the first to an open connection to the end of the
    /// last answer, without what is spent under `connect_timeout` in between. With a heartbeat at most `held_max`.
    pub timeout: Duration,
    /// How long the next owner waits for requests.
    pub takeover_wait: TakeoverWait,
    /// How the update id is sent.
    pub idempotency_key: IdempotencyKeyStyle,
    /// The header with the update id; a valid header name.
    pub idempotency_header: String,
    /// `[target.auth]`: how requests show who sends them.
    pub auth: AuthConfig,
    /// `[target.signature]`: how requests are signed.
    pub signature: SignatureConfig,
    /// `[target.tls]`: whom to trust, and what shows who we are.
    pub tls: TlsConfig,
    /// The versions of HTTP that are spoken.
    pub http_version: HttpVersion,
    /// What connections go through; `None`: nothing.
    pub proxy: Option<ProxyConfig>,
    /// Sent with every request; valid names and values.
    pub headers: Vec<(String, Secret)>,
    /// What is made of each update: headers, values of the query, and the body.
    pub templates: TemplatesConfig,
    /// `[[target.on]]`: what requests of some types have instead.
    pub on: Vec<OnConfig>,
    /// Statuses that mean something else for this target than in the table of docs/wire.md.
    pub outcomes: BTreeMap<u16, OutcomeKind>,
    /// `[[target.answers]]`: what answers mean whose status does not say it. They come before `outcomes`.
    pub answers: Vec<AnswerRow>,
    /// Which `If-Match` requests carry.
    pub if_match: IfMatch,
    /// With [`IfMatch::Auto`], what to do if no `ETag` of the record is known.
    pub first_contact: FirstContact,
    /// If the body of a 2xx must be complete.
    pub answer_body: AnswerBody,
    /// How long connections are used; a second to a day.
    pub connection_age_max: Duration,
    /// The name of the group that it shares limits and breaker with; by default its own name.
    pub limits: String,
    /// What happens to its updates that failed permanently.
    pub failure: FailurePolicies,
}

impl TargetConfig {
    /// All URLs that requests go to: its own, and those of `on`.
    pub fn urls(&self) -> impl Iterator<Item = &UrlTemplate> {
        std::iter::once(&self.url).chain(self.on.iter().filter_map(|row| row.url.as_ref()))
    }

    /// Returns true if connections that were opened for the one can be used for the other.
    #[must_use]
    pub fn connects_like(&self, other: &Self) -> bool {
        let times = |config: &Self| (config.connect_timeout, config.timeout, config.connection_age_max);
        times(self) == times(other)
            && (&self.tls, self.http_version, &self.proxy) == (&other.tls, other.http_version, &other.proxy)
    }

    /// How long a request of an attempt can be at work at the target after its process died or lost the partition. Such
    /// an attempt makes no further request, so this is the time that all its requests have together: `timeout`, unless
    /// `takeover_wait` replaces it.
    #[must_use]
    pub fn at_work_max(&self) -> Duration {
        match self.takeover_wait {
            TakeoverWait::Auto => self.timeout,
            TakeoverWait::Fixed(wait) => wait,
        }
    }
}

/// Targets that share limits and breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `limits` of these targets. If one target has this name, it is one of them.
    pub name: String,
    /// In the order of the config; at least one.
    pub targets: Vec<TargetId>,
    /// `rate_max` and `in_flight_max`, each from the targets that set it.
    pub limits: PacerLimits,
}

/// How long the next owner of a partition waits for the requests of one that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeoverWait {
    /// For the target's `timeout`.
    Auto,
    /// For this time; zero: only until the lease is over.
    Fixed(Duration),
}

/// Which `If-Match` requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IfMatch {
    /// The publisher's header `if-match`, if there is one.
    Header,
    /// As `Header`; without it, the last `ETag` that the target gave for the record, from the ledger.
    Auto,
}

/// The versions of HTTP that a target is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// Over https, HTTP/2 if the server offers it; otherwise HTTP/1.1.
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone; without TLS, the server is known to speak it (RFC 9113, section 3.3).
    Http2,
}

/// What to do if no `ETag` of a record is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstContact {
    /// Fetch it with GET; if the target has no such record, as `Create`.
    Get,
    /// Send `If-None-Match: *`: the record must not exist.
    Create,
}

/// What the body of a 2xx is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerBody {
    /// It must be complete: otherwise the answer counts as a failure of the connection.
    Complete,
    /// Nothing: the status alone counts.
    Ignore,
}

/// What requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Updates of records.
    Updates,
    /// Events that people are told of: they are of no record.
    Events,
}

/// How the update id is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdempotencyKeyStyle {
    /// As a Structured Field string, quoted (draft-ietf-httpapi-idempotency-key-header).
    Quoted,
    /// As it is.
    Bare,
    /// It is not sent.
    Off,
}
