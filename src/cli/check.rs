//! `lanekeeper check`.

mod door;

use std::fmt::Write as _;
use std::time::Duration;

use lanekeeper_core::forecast::{End, Forecast, Planned};
use serde_json::{Value as Json, json};

use super::against_running;
use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::process::print;
use crate::config::{Config, Loaded, Origin, Purpose, Shown, format_duration, warnings};

/// A longer schedule is printed with a gap.
const ROWS_MAX: usize = 12;

/// Options of `lanekeeper check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Show instead which keys the config file of the running process would change, and when each takes effect: the process at
    /// admin.listen reads its own file, and changes nothing. Exit code 10: there are some.
    #[arg(long)]
    against_running: bool,
}

/// Prints the effective config, the retry schedule and warnings; or every fault of the config. A config for a door alone has no
/// schedule.
pub fn main(arguments: &Arguments) -> Exit {
    let loaded = match arguments.config.load(Purpose::Check) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if arguments.against_running {
        return against_running::main(loaded.purpose, &loaded.config.admin, arguments.json);
    }
    if loaded.purpose == Purpose::Ingest {
        return door::main(&loaded, arguments.json);
    }
    let text = if arguments.json { format!("{:#}\n", as_json(&loaded)) } else { as_text(&loaded) };
    print(&text, Exit::Done)
}

fn as_text(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = String::new();
    let is_shown = |values: &&[Shown]| {
        // Nobody with RabbitMQ needs to read what SQS would have.
        values[0].section != "sqs"
            || config.sqs.is_some()
            || values.iter().any(|shown| !matches!(shown.origin, Origin::BuiltIn))
    };
    for values in loaded.shown.chunk_by(|a, b| a.section == b.section).filter(is_shown) {
        text += &section(values);
    }
    text += &schedule(config);
    text += &bounds(config);
    if config.sqs.is_none() {
        text += &replicas(loaded);
    }
    text + &list(&warnings(config))
}

fn list(warnings: &[String]) -> String {
    let mut text = String::new();
    text += if warnings.is_empty() { "\nNo warnings.\n" } else { "\nWarnings\n" };
    for warning in warnings {
        let _ = writeln!(text, "- {warning}");
    }
    text
}

/// A section as TOML, each value with its origin.
fn section(values: &[Shown]) -> String {
    let key_width = values.iter().map(|shown| shown.key.len()).max().unwrap_or_default();
    let lines: Vec<(String, &Shown)> = values
        .iter()
        .map(|shown| (format!("{:key_width$} = {}", shown.key, toml(&shown.value)), shown))
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    let mut text = match values[0].section.split_once('[') {
        Some((list, rest)) => match rest.split_once("].") {
            Some((_, table)) => format!("[{list}.{table}]\n"),
            None => format!("[[{list}]]\n"),
        },
        None => format!("[{}]\n", values[0].section),
    };
    for (line, shown) in lines {
        let _ = writeln!(text, "{line:width$}   # {}", shown.origin);
    }
    text + "\n"
}

/// A value as TOML. Strings, numbers and flags are written as in JSON.
fn toml(value: &Json) -> String {
    let entries = match value {
        Json::Object(entries) => entries,
        Json::Array(values) => {
            let values: Vec<String> = values.iter().map(toml).collect();
            return format!("[{}]", values.join(", "));
        }
        scalar => return scalar.to_string(),
    };
    let bare = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, value)| {
            let key = if bare(key) { key.clone() } else { Json::from(key.as_str()).to_string() };
            format!("{key} = {}", toml(value))
        })
        .collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

fn schedule(config: &Config) -> String {
    let forecast = Forecast::new(&config.policy);
    let mut text = "Retry schedule (the time that attempts take is not included)\n".to_owned();
    let mut row = |attempt: &str, wait: &str, elapsed: &str| {
        let line = format!("{attempt:>9}  {wait:28}{elapsed}");
        text += line.trim_end();
        text += "\n";
    };
    row("attempt", "wait before it", "since the first");
    let hidden = match forecast.attempts.len() {
        rows if rows > ROWS_MAX => ROWS_MAX - 2..rows - 1,
        rows => rows..rows,
    };
    for (index, planned) in forecast.attempts.iter().enumerate() {
        if index == hidden.start {
            row("...", "", "");
        }
        if !hidden.contains(&index) {
            let wait = if planned.attempt == 1 { "none".to_owned() } else { wait(planned) };
            row(&planned.attempt.to_string(), &wait, &format_duration(planned.elapsed));
        }
    }
    if forecast.end.is_none_or(|end| end.attempts > forecast.attempts.len() as u64)
        && let Some(last) = forecast.attempts.last()
    {
        row("further", &wait(last), "");
    }
    text + &end(config, &forecast)
}

/// The sentence below the schedule.
fn end(config: &Config, forecast: &Forecast) -> String {
    let Some(End { attempts, attempts_with_jitter, elapsed, limit }) = forecast.end else {
        return "No limit: attempts go on until one succeeds.\n".to_owned();
    };
    let jitter = match attempts_with_jitter {
        Some(most) if most == attempts => String::new(),
        Some(most) => format!(" (with jitter, up to number {most})"),
        None => " (with jitter, any number)".to_owned(),
    };
    let policy = &config.policy;
    let (elapsed, limit, exhausted) =
        (format_duration(elapsed), limit.key(), policy.failure.exhausted.name());
    let differ = config.targets.iter().filter(|target| target.failure.exhausted != policy.failure.exhausted);
    let differ: Vec<String> = differ
        .map(|target| format!("; for target {:?} it is {:?}", target.name, target.failure.exhausted.name()))
        .collect();
    let differ = differ.concat();
    format!(
        "The last attempt is number {attempts}, {elapsed} after the first{jitter}: {limit} is reached, and \
         failure.exhausted = \"{exhausted}\" applies{differ}.\n"
    )
}

fn wait(planned: &Planned) -> String {
    between(planned.wait_min, planned.wait)
}

fn between(least: Duration, most: Duration) -> String {
    if least == most {
        format_duration(most)
    } else {
        format!("{} to {}", format_duration(least), format_duration(most))
    }
}

/// What the settings multiply to, per process.
fn bounds(config: &Config) -> String {
    if let Some(sqs) = &config.sqs {
        let (held, at_once) = (config.dispatch.prefetch, config.dispatch.in_flight_max);
        let latest = sqs.visibility_timeout.saturating_sub(config.at_work_max_of_sqs());
        return format!(
            "\nUpdates come from SQS. A process makes at most {at_once} attempts at once and holds at most {held} updates. No request \
             leaves later than {} after SQS was heard from (sqs.visibility_timeout {}, minus the longest timeout of a target and \
             2 s).\nSeveral processes: SQS hands each record to one of them. Limits of a target count for each process.\n",
            format_duration(latest),
            format_duration(sqs.visibility_timeout)
        );
    }
    let partitions = usize::from(config.updates.partitions.get());
    let attempts = partitions.saturating_mul(config.dispatch.in_flight_max.get());
    let held = partitions.saturating_mul(config.dispatch.prefetch.get().into());
    let mebibytes = held.saturating_mul(config.updates.body_bytes_max).div_ceil(1 << 20);
    format!(
        "\nA process that owns all {partitions} partitions makes at most {attempts} attempts at once and holds at most \
         {held} updates, with {mebibytes} MiB of bodies.\n"
    )
}

/// How several processes share the work, which depends on the broker's version.
fn replicas(loaded: &Loaded) -> String {
    let is_instance = |shown: &&Shown| shown.section == "instance" && shown.key == "name";
    let instance = loaded.shown.iter().find(is_instance).map_or(&Json::Null, |shown| &shown.value);
    format!(
        "Several processes: with RabbitMQ 4.0 and later they share the partitions by instance.name (here {instance}), and hand \
         some over when another process joins. Before 4.0 there is failover only: the process that consumed a queue \
         first owns the partition, the others stand by.\n"
    )
}

fn as_json(loaded: &Loaded) -> Json {
    let forecast = Forecast::new(&loaded.config.policy);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let attempts: Vec<Json> = forecast
        .attempts
        .iter()
        .map(|planned| {
            json!({
                "attempt": planned.attempt,
                "wait_ms_min": millis(planned.wait_min),
                "wait_ms_max": millis(planned.wait),
                "elapsed_ms": millis(planned.elapsed),
            })
        })
        .collect();
    let end = forecast.end.map(|end| {
        json!({
            "attempts": end.attempts,
            "attempts_with_jitter": end.attempts_with_jitter,
            "elapsed_ms": millis(end.elapsed),
            "limit": end.limit.key(),
        })
    });
    json!({
        "for": "run",
        "values": loaded.shown,
        "schedule": { "attempts": attempts, "end": end },
        "warnings": warnings(&loaded.config),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, TARGET_EXAMPLE, load};

    fn loaded(text: &str) -> Loaded {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lk.toml");
        std::fs::write(&path, text).unwrap();
        let environment: Environment =
            [("LANEKEEPER_INSTANCE__NAME", "web-1"), ("TOKEN", "s3cret")].into_iter().collect();
        load(Some(&path), &environment, Purpose::Dispatch).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// Everything after the values.
    fn schedule_and_warnings(text: &str) -> String {
        let text = as_text(&loaded(&format!("{text}\n{TARGET_EXAMPLE}")));
        text[text.find("Retry schedule").unwrap()..].to_owned()
    }

    #[test]
    fn a_target_is_shown_as_toml_without_its_secrets() {
        let loaded = loaded(&format!(
            "{TARGET_EXAMPLE}\nheaders = {{ authorization = \"Bearer ${{TOKEN}}\", \"x.key\" = \"s3cret\" }}\n\
             outcomes = {{ 404 = \"applied\" }}\n[target.failure]\nexhausted = \"block\"\n[broker]\nurl = \"amqp://app:s3cret@mq\""
        ));
        let (text, json) = (as_text(&loaded), as_json(&loaded).to_string());
        assert!(!text.contains("s3cret") && !json.contains("s3cret"), "{text}{json}");
        assert!(text.contains("\"amqp://app:***@mq\""), "{text}");
        assert!(text.contains("{ authorization = \"***\", \"x.key\" = \"***\" }"), "{text}");
        let (values, _) = text.split_once("Retry schedule").unwrap();
        let environment = [("LANEKEEPER_INSTANCE__NAME", "web-1")].into_iter().collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("again.toml");
        std::fs::write(&path, values).unwrap();
        let again =
            load(Some(&path), &environment, Purpose::Dispatch).unwrap_or_else(|faults| panic!("{faults}"));
        let plain = |loaded: &Loaded| {
            loaded.shown.iter().map(|shown| (shown.key, shown.value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(plain(&again), plain(&loaded), "what is shown is a config");
    }

    #[test]
    fn what_came_from_a_variable_or_a_file_is_shown_nowhere() {
        const SECRET: &str = "hunter2-Xyz";
        let check = |text: &str, arguments: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("secret"), SECRET).unwrap();
            let path = directory.path().join("lk.toml");
            std::fs::write(&path, text).unwrap();
            let environment = [("SECRET", SECRET)].into_iter().collect();
            match load(Some(&path), &environment, Purpose::Dispatch) {
                Ok(loaded) => {
                    let (shown, json) = (as_text(&loaded), as_json(&loaded).to_string());
                    assert!(!shown.contains("hunter2") && !json.contains("hunter2"), "{text}: {shown}{json}");
                    for part in arguments {
                        assert!(shown.contains(part), "{part} in {shown}");
                    }
                }
                Err(faults) => {
                    assert!(!faults.to_string().contains("unter"), "{text}: {faults}");
                    assert!(arguments.is_empty() && faults.to_string().contains("not quoted"), "{faults}");
                }
            }
        };
        let with = |text: &str| format!("{text}\n{TARGET_EXAMPLE}");
        let to = |url: &str| format!("[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"{url}\"");
        check(&to("http://h/hooks/${SECRET}/{record_key}"), &["\"http://h/hooks/***/{record_key}\""]);
        check(&to("http://h/${SECRET}/{record_key}?a=${SECRET}"), &["\"http://h/***/{record_key}?a=***\""]);
        check(&to("http://h/{record_key}?key=hunter2"), &["\"http://h/{record_key}?key=***\""]);
        check(&with("[broker]\nurl = \"amqp://a:${SECRET}@h/${SECRET}\""), &["\"amqp://a:***@h/***\""]);
        check(&with("[broker]\nurl = \"amqp://${SECRET}@h\""), &["\"amqp://***@h\""]);
        check(&with("[broker]\nmanagement_url = \"http://h/${SECRET}\""), &["\"http://h/***\""]);
        check(
            &with("[ledger]\nurl = \"postgres://a:${SECRET}@h/d?options=${SECRET}\""),
            &["\"postgres://a:***@h/d?options=***\""],
        );
        check(&with("[ledger]\nurl = \"sqlite://${SECRET}.db\""), &["\"sqlite://***.db\""]);
        check(&with("[updates]\nexchange = \"file:secret\""), &["exchange       = \"***\""]);
        check(&with("[instance]\nname = \"a-${SECRET}\""), &["(here \"a-***\")"]);
        check(&format!("{TARGET_EXAMPLE}\nheaders = {{ a = \"file:secret\" }}"), &["{ a = \"***\" }"]);
        for fault in
            ["partitions = \"${SECRET}\"", "exchange = \"amq.${SECRET}\"", "auto_apply = \"file:secret\""]
        {
            check(&with(&format!("[updates]\n{fault}")), &[]);
        }
        check(&to("http://h/{${SECRET}}"), &[]);
        check(&format!("{TARGET_EXAMPLE}\nmethod = \"${{SECRET}}\""), &[]);
        check(&with("[log]\nfilter = \"a=${SECRET}\""), &[]);
    }

    #[test]
    fn the_schedule_is_shown_attempt_by_attempt() {
        insta::assert_snapshot!(schedule_and_warnings(""), @r#"
        Retry schedule (the time that attempts take is not included)
          attempt  wait before it              since the first
                1  none                        0s
                2  400ms to 500ms              500ms
                3  800ms to 1s                 1s 500ms
                4  1s 600ms to 2s              3s 500ms
                5  3s 200ms to 4s              7s 500ms
                6  6s 400ms to 8s              15s 500ms
                7  12s 800ms to 16s            31s 500ms
                8  24s to 30s                  1m 1s 500ms
          further  24s to 30s
        The last attempt is number 35, 14m 31s 500ms after the first (with jitter, up to number 43): retry.elapsed_max is reached, and failure.exhausted = "park" applies.

        A process that owns all 8 partitions makes at most 256 attempts at once and holds at most 8000 updates, with 8000 MiB of bodies.
        Several processes: with RabbitMQ 4.0 and later they share the partitions by instance.name (here "web-1"), and hand some over when another process joins. Before 4.0 there is failover only: the process that consumed a queue first owns the partition, the others stand by.

        No warnings.
        "#);
    }

    #[test]
    fn a_long_schedule_is_cut_short_and_what_is_likely_not_meant_is_warned_of() {
        let text = "[retry]\ndelay_multiplier = 1.1\njitter = 0\nelapsed_max = \"0s\"\n\
                    [dispatch]\nprefetch = 100\ndrain_timeout = \"5s\"\nheld_max = \"29m\"\n[broker]\nheartbeat = \"4s\"\n\
                    [[target]]\nname = \"all\"\ntypes = [\"*\"]\nurl = \"http://h/{record_key}\"\ntimeout = \"1s\"";
        insta::assert_snapshot!(schedule_and_warnings(text), @r#"
        Retry schedule (the time that attempts take is not included)
          attempt  wait before it              since the first
                1  none                        0s
                2  500ms                       500ms
                3  550ms                       1s 50ms
                4  605ms                       1s 655ms
                5  665ms 500us                 2s 320ms
                6  732ms 50us                  3s 52ms
                7  805ms 255us                 3s 857ms
                8  885ms 780us                 4s 743ms
                9  974ms 358us                 5s 717ms
               10  1s 71ms                     6s 789ms
              ...
               45  30s                         5m 26s 200ms
          further  30s
        No limit: attempts go on until one succeeds.

        A process that owns all 8 partitions makes at most 256 attempts at once and holds at most 800 updates, with 800 MiB of bodies.
        Several processes: with RabbitMQ 4.0 and later they share the partitions by instance.name (here "web-1"), and hand some over when another process joins. Before 4.0 there is failover only: the process that consumed a queue first owns the partition, the others stand by.

        Warnings
        - target "crm": timeout 10s is longer than dispatch.drain_timeout (5s): a stop can abort a request, which is then sent again. Raise drain_timeout.
        - target "crm" gets no update: target "all" comes first and takes its types. Put "crm" first.
        - dispatch.prefetch = 100 is below 4 x in_flight_max (128): a few waiting records are enough to delay all others of their partition. Raise it.
        - dispatch.held_max = 29m and drain_timeout = 5s are too near to RabbitMQ's acknowledgement timeout (30 minutes by default), after which the broker closes the channel while attempts are in flight. Lower held_max, or raise the broker's consumer_timeout.
        "#);
    }
}
