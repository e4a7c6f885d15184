//! The keys of all sections except `[[target]]`, and rules between them.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

use super::broker_url::broker_urls;
use super::fault::{Faults, Origin, Problem};
use super::layers::{self, Environment};
use super::management::management_url;
use super::model::{
    BrokerConfig, Config, DispatchConfig, LogConfig, LogFormat, Purpose, TakeoverWait, UpdatesConfig,
};
use super::parse::{
    choice, duration, exchange, flag, instance, integer, log_filter, number, takeover_wait, timeout,
    whole_seconds,
};
use super::reader::{Reader, Shown};
use super::schedule::waits;
use super::source::ConfigSource;
use super::target::Targets;
use super::{admin, breaker, failure, ingest, ledger, notify, sqs, target, telemetry};
use lanekeeper_broker::ConnectionSettings;
use lanekeeper_core::layout::PARTITIONS_MAX;
use lanekeeper_core::policy::Policy;
use lanekeeper_core::schedule::Schedule;

/// A config, and all its values with their origins.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Its values in the order of `config/default.toml`; secrets are masked.
    pub shown: Vec<Shown>,
    /// What it was read for; never [`Purpose::Check`] or [`Purpose::Examine`].
    pub purpose: Purpose,
    /// What it was read from.
    pub source: ConfigSource,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// 128 MiB: the default of RabbitMQ 3 (`max_message_size`; 4.0 and later: 16 MiB).
const BODY_BYTES_MAX: u64 = 134_217_728;

const LOG_FORMATS: [(&str, LogFormat); 2] = [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];

/// Reads the layers. `file` is its path and content.
///
/// # Errors
/// All faults.
pub fn read(
    file: Option<(&Path, &str)>,
    environment: &Environment,
    purpose: Purpose,
) -> Result<Loaded, Faults> {
    let figment = layers::merge(file, environment)?;
    let mut reader = Reader::new(&figment, environment);
    let purpose = match purpose {
        Purpose::Check | Purpose::Examine if reader.is_of_a_door_alone() => Purpose::Ingest,
        Purpose::Check => Purpose::Dispatch,
        Purpose::Examine => Purpose::Publish,
        known => known,
    };
    // All sections are read before the first `?`, so that all faults are reported at once.
    let instance = read_instance(&mut reader);
    let sqs = sqs::read(&mut reader);
    let broker = read_broker(&mut reader);
    let updates = read_updates(&mut reader);
    let (dispatch, takeover_wait) = read_dispatch(&mut reader);
    let policy = read_policy(&mut reader);
    let ledger = ledger::read(&mut reader);
    let failure = policy.as_ref().map(|policy| policy.failure);
    let can_park = !matches!((&ledger, purpose), (Some(None), Purpose::Dispatch));
    if let Some(failure) = failure.filter(|_| !can_park) {
        failure::parks_without_ledger(&mut reader, failure);
    }
    let breaker = breaker::read(&mut reader);
    let admin = admin::read(&mut reader);
    let log = read_log(&mut reader);
    let telemetry = telemetry::read(&mut reader);
    let body_bytes_max = updates.as_ref().map(|updates| updates.body_bytes_max);
    let ingest = ingest::read(&mut reader, purpose, body_bytes_max);
    let elsewhere = target::Elsewhere {
        heartbeat: broker.as_ref().map(|broker| broker.connection.heartbeat),
        held_max: dispatch.as_ref().map(|dispatch| dispatch.held_max),
        takeover_wait,
        failure,
        can_park,
    };
    let targets = target::read(&mut reader, file.map(|(path, _)| path), purpose, elsewhere);
    let notify = notify::read(&mut reader);
    for fault in layers::near_misses(environment) {
        reader.fault(fault);
    }
    let config = (|| {
        let Targets { targets, limits } = targets?;
        let failure_of_targets = targets.iter().map(|target| target.failure).collect();
        Some(Config {
            instance: instance?,
            sqs: sqs?,
            broker: broker?,
            updates: updates?,
            dispatch: dispatch?,
            policy: Policy { failure_of_targets, ..policy? },
            ledger: ledger?,
            breaker: breaker?,
            admin: admin?,
            log: log?,
            telemetry,
            ingest: ingest?,
            targets,
            limits,
            notify: notify?,
        })
    })();
    if let Some(config) = &config {
        sqs::check(&mut reader, config, purpose);
    }
    let (config, shown, referenced) = reader.finish(config)?;
    let file = file.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let source = ConfigSource { file, environment: environment.clone(), referenced };
    Ok(Loaded { config, shown, purpose, source })
}

fn read_instance(reader: &mut Reader<'_>) -> Option<String> {
    let mut section = reader.section("instance");
    let name = section.read("name", instance).map(|name| {
        if !name.is_empty() {
            return name;
        }
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        section.show_instead("name", &host, Origin::HostName);
        host
    });
    section.finish();
    name
}

fn read_broker(reader: &mut Reader<'_>) -> Option<BrokerConfig> {
    let mut section = reader.section("broker");
    let urls = section.read("url", broker_urls);
    // AMQP 0-9-1 has 16 bits for the seconds. 0 would turn heartbeats off, and a dead connection could look alive for hours.
    let heartbeat = section.read("heartbeat", whole_seconds(1..=65_535));
    let management_url = section.read("management_url", management_url);
    section.finish();
    Some(BrokerConfig {
        connection: ConnectionSettings { urls: urls?, heartbeat: heartbeat? },
        management_url: management_url?,
    })
}

fn read_updates(reader: &mut Reader<'_>) -> Option<UpdatesConfig> {
    let mut section = reader.section("updates");
    let exchange = section.read("exchange", exchange);
    let partitions = section.read("partitions", integer::<u16>(1..=PARTITIONS_MAX.into()));
    let auto_apply = section.read("auto_apply", flag);
    let require_id = section.read("require_id", flag);
    let body_bytes_max = section.read("body_bytes_max", integer(1..=BODY_BYTES_MAX));
    section.finish();
    Some(UpdatesConfig {
        exchange: exchange?,
        partitions: NonZeroU16::new(partitions?)?,
        auto_apply: auto_apply?,
        require_id: require_id?,
        body_bytes_max: body_bytes_max?,
    })
}

/// The section, and `takeover_wait`, which is the default of the targets' key of that name.
fn read_dispatch(reader: &mut Reader<'_>) -> (Option<DispatchConfig>, Option<TakeoverWait>) {
    let mut section = reader.section("dispatch");
    let in_flight_max = section.read("in_flight_max", integer::<u16>(1..=65_535));
    let prefetch = section.read("prefetch", integer::<u16>(1..=65_535));
    let drain_timeout = section.read("drain_timeout", timeout);
    let held_max = section.read("held_max", duration(SECOND..=DAY));
    let takeover_wait = section.read("takeover_wait", takeover_wait);
    if let (Some(in_flight_max), Some(prefetch)) = (in_flight_max, prefetch)
        && prefetch < in_flight_max
    {
        section.fault(
            "prefetch",
            Problem::new(
                format!("{prefetch} is below in_flight_max = {in_flight_max}"),
                format!(
                    "raise it to {in_flight_max} or more (better {}), or lower in_flight_max",
                    4 * u32::from(in_flight_max)
                ),
            ),
        );
    }
    section.finish();
    let dispatch = (|| {
        Some(DispatchConfig {
            in_flight_max: NonZeroUsize::new(in_flight_max?.into())?,
            prefetch: NonZeroU16::new(prefetch?)?,
            drain_timeout: drain_timeout?,
            held_max: held_max?,
        })
    })();
    (dispatch, takeover_wait)
}

/// `[retry]` and `[failure]`, still without what targets have of their own.
fn read_policy(reader: &mut Reader<'_>) -> Option<Policy> {
    let mut section = reader.section("retry");
    let delay_initial = section.read("delay_initial", duration(MILLISECOND..=HOUR));
    let delay_multiplier = section.read("delay_multiplier", number(1.0..=100.0));
    let delay_max = section.read("delay_max", duration(MILLISECOND..=HOUR));
    let jitter = section.read("jitter", number(0.0..=1.0));
    let attempts_max = section.read("attempts_max", integer::<u32>(0..=u32::MAX.into()));
    let elapsed_max = section.read("elapsed_max", duration(Duration::ZERO..=YEAR));
    let retry_after_max = section.read("retry_after_max", duration(Duration::ZERO..=HOUR));
    section.at_most("delay_initial", delay_initial, "delay_max", delay_max);
    section.finish();

    let failure = failure::read(reader);
    Some(Policy {
        schedule: Schedule::new(waits(delay_initial?, delay_multiplier?, delay_max?), jitter?),
        attempts_max: NonZeroU32::new(attempts_max?),
        elapsed_max: elapsed_max.map(|elapsed_max| Some(elapsed_max).filter(|max| !max.is_zero()))?,
        retry_after_max: retry_after_max?,
        failure: failure?,
        failure_of_targets: Vec::new(),
    })
}

fn read_log(reader: &mut Reader<'_>) -> Option<LogConfig> {
    let mut section = reader.section("log");
    let format = section.read("format", choice(&LOG_FORMATS));
    let filter = section.read("filter", log_filter);
    section.finish();
    Some(LogConfig { format: format?, filter: filter? })
}
