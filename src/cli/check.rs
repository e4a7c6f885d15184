//! `lanekeeper check`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{ConfigArguments, Exit};
use crate::config::forecast::{Forecast, Planned};
use crate::config::{Config, Loaded, Purpose, Shown, told, warnings};

/// Rows of the schedule that are printed before it is cut short.
const ROWS_MAX: usize = 12;

/// Options of `lanekeeper check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Prints the config in force, the retry schedule and warnings; or every fault.
pub fn main(arguments: &Arguments) -> Exit {
    let loaded = match arguments.config.load_for(Purpose::Dispatch) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let report = if arguments.json { format!("{:#}\n", as_json(&loaded)) } else { as_text(&loaded) };
    match std::io::stdout().write_all(report.as_bytes()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Other,
    }
}

fn as_text(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = String::new();
    for values in loaded.shown.chunk_by(|a, b| a.section == b.section) {
        text += &section(values);
    }
    text += &schedule(config);
    text += &bounds(config);
    let warnings = warnings(config);
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
        Some((list, _)) => format!("[[{list}]]\n"),
        None => format!("[{}]\n", values[0].section),
    };
    for (line, shown) in lines {
        let _ = writeln!(text, "{line:width$}   # {}", shown.origin);
    }
    text + "\n"
}

/// A value as TOML. Strings, numbers, flags and lists are written as in JSON.
fn toml(value: &Json) -> String {
    let Json::Object(entries) = value else { return value.to_string() };
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
    let (shown, last) = match forecast.attempts.as_slice() {
        [shown @ .., last] if shown.len() >= ROWS_MAX => (&shown[..ROWS_MAX - 2], Some(last)),
        all => (all, None),
    };
    let mut text = "Retry schedule (attempts themselves take their time on top)\n".to_owned();
    let _ = writeln!(text, "{:>9}  {:28}since the first", "attempt", "wait before it");
    let mut row = |planned: &Planned| {
        let wait = match planned.attempt {
            1 => "none".to_owned(),
            _ => between(planned.wait_min, planned.wait),
        };
        let _ = writeln!(text, "{:>9}  {wait:28}{}", planned.attempt, told(planned.elapsed));
    };
    shown.iter().for_each(&mut row);
    if let Some(last) = last {
        row(last);
        text = text
            .replace(&format!("\n{:>9}  ", last.attempt), &format!("\n{:>9}\n{:>9}  ", "...", last.attempt));
    }
    let longest = config.policy.schedule.longest();
    let each = between(longest.mul_f64(1.0 - config.policy.schedule.jitter()), longest);
    let exhausted = format!("failure.exhausted = \"{}\"", config.policy.exhausted.name());
    let _ = match forecast.end {
        None => writeln!(text, "{:>9}  {each}\nNothing ends it: it goes on for ever.", "further"),
        Some(end) => {
            if end.attempts > forecast.attempts.len() as u64 {
                let _ = writeln!(text, "{:>9}  {each}", "further");
            }
            let jitter = match end.attempts_with_jitter {
                Some(attempts) if attempts == end.attempts => String::new(),
                Some(attempts) => format!(" (with jitter, up to attempt {attempts})"),
                None => " (with jitter, any number)".to_owned(),
            };
            let (attempts, elapsed, limit) = (end.attempts, told(end.elapsed), end.limit.key());
            writeln!(
                text,
                "The last is attempt {attempts}, {elapsed} after the first{jitter}: {limit} ends it, then {exhausted}."
            )
        }
    };
    text
}

fn between(least: Duration, most: Duration) -> String {
    if least == most { told(most) } else { format!("{} to {}", told(least), told(most)) }
}

/// What the settings multiply to.
fn bounds(config: &Config) -> String {
    let partitions = usize::from(config.updates.partitions.get());
    let attempts = partitions.saturating_mul(config.dispatch.in_flight_max.get());
    let held = partitions.saturating_mul(config.dispatch.prefetch.get().into());
    let mebibytes = held.saturating_mul(config.updates.body_bytes_max).div_ceil(1 << 20);
    format!(
        "\nAt most, if this process owns all {partitions} partitions: {attempts} attempts at once, {held} updates held, \
         {mebibytes} MiB of bodies.\n"
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
        "values": loaded.shown,
        "schedule": { "attempts": attempts, "end": end },
        "warnings": warnings(&loaded.config),
    })
}
