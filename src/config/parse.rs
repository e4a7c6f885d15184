//! Parses and checks values, with one function per kind. A problem says what to do.
//!
//! Each function leaves in `raw` what may be shown. Numbers and flags may be strings, because environment variables are.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;
use tracing_subscriber::EnvFilter;

use super::fault::Problem;
use super::model::TakeoverWait;
use lanekeeper_core::pacing::Rate;

/// The limit of timeouts: under 15 minutes, half of RabbitMQ's default acknowledgement timeout.
const TIMEOUT_MAX: Duration = Duration::from_millis(15 * 60 * 1000 - 1);

/// The most requests of a rate.
const RATE_REQUESTS_MAX: u64 = 1_000_000;

/// The time of a rate.
const RATE_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

/// Any string.
pub fn text(raw: &mut Json) -> Result<String, Problem> {
    match raw {
        Json::String(text) => Ok(text.clone()),
        other => Err(Problem::new(format!("{} is not a string", written(other)), "put it in quotes: \"…\"")),
    }
}

/// Hosts of one server, at most: more than a cluster has nodes.
const URLS_MAX: usize = 32;

/// One URL or a list of them. A string may name several, with a comma between them, since an environment variable has no
/// lists; a comma that no URL of this kind follows belongs to the URL before it.
pub fn one_or_several<T>(
    raw: &mut Json,
    schemes: &[&str],
    parse: impl Fn(&mut Json) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let mut urls = match raw {
        Json::Array(urls) => std::mem::take(urls),
        Json::String(text) => split(text, schemes).map(Json::from).collect(),
        _ => return text(raw).map(|_| Vec::new()),
    };
    if urls.is_empty() || urls.len() > URLS_MAX {
        let what = format!("has {} URLs", urls.len());
        return Err(Problem::new(what, format!("write one URL, or a list of 1 to {URLS_MAX}")));
    }
    let several = urls.len() > 1;
    let mut parsed = Vec::with_capacity(urls.len());
    for (index, url) in urls.iter_mut().enumerate() {
        parsed.push(parse(url).map_err(|problem| {
            if several { problem.of(&format!("URL {} of the list", index + 1)) } else { problem }
        })?);
    }
    *raw = if several { Json::Array(urls) } else { urls.remove(0) };
    Ok(parsed)
}

/// The URLs of a text.
fn split<'a>(text: &'a str, schemes: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest.take()?;
        let follows = |(at, _): &(usize, _)| {
            let after = whole[at + 1..].trim_start();
            schemes.iter().any(|scheme| after.strip_prefix(scheme).is_some_and(|it| it.starts_with("://")))
        };
        let Some((at, _)) = whole.match_indices(',').find(follows) else { return Some(whole) };
        rest = Some(whole[at + 1..].trim_start());
        Some(whole[..at].trim_end())
    })
}

/// `true` or `false`.
pub fn flag(raw: &mut Json) -> Result<bool, Problem> {
    let flag = match raw {
        Json::Bool(flag) => Some(*flag),
        Json::String(text) => text.parse().ok(),
        _ => None,
    };
    let flag = flag.ok_or_else(|| {
        Problem::new(format!("{} is neither true nor false", written(raw)), "write true or false")
    })?;
    *raw = Json::from(flag);
    Ok(flag)
}

/// A whole number within the range.
pub fn integer<T>(range: RangeInclusive<u64>) -> impl Fn(&mut Json) -> Result<T, Problem>
where
    T: TryFrom<u64>,
{
    move |raw| {
        let (least, most) = (range.start(), range.end());
        let problem =
            |what: String| Problem::new(what, format!("write a whole number from {least} to {most}"));
        let number = match &*raw {
            Json::Number(number) => number.as_u64(),
            Json::String(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(problem(format!("{} is not a whole number of zero or more", written(raw))));
        };
        match T::try_from(number) {
            Ok(value) if range.contains(&number) => {
                *raw = Json::from(number);
                Ok(value)
            }
            _ => Err(problem(format!("{number} is outside {least} to {most}"))),
        }
    }
}

/// A number within the range.
pub fn number(range: RangeInclusive<f64>) -> impl Fn(&mut Json) -> Result<f64, Problem> {
    move |raw| {
        let (least, most) = (range.start(), range.end());
        let problem = |what: String| Problem::new(what, format!("write a number from {least:?} to {most:?}"));
        let number = match &*raw {
            Json::Number(number) => number.as_f64(),
            Json::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(problem(format!("{} is not a number", written(raw))));
        };
        if !range.contains(&number) {
            return Err(problem(format!("{number:?} is outside {least:?} to {most:?}")));
        }
        *raw = Json::from(number);
        Ok(number)
    }
}

/// A duration within the range.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&mut Json) -> Result<Duration, Problem> {
    move |raw| {
        let unit = "write a number with its unit in quotes, such as \"500ms\", \"10s\" or \"15m\"";
        let Json::String(text) = &*raw else {
            return Err(Problem::new(format!("{} has no unit", written(raw)), unit));
        };
        let duration = humantime::parse_duration(text.trim())
            .map_err(|error| Problem::new(format!("{text:?} is not a duration: {error}"), unit))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
        Err(Problem::new(
            format!("{text:?} is outside {least} to {most}"),
            format!("write a duration from {least} to {most}"),
        ))
    }
}

/// Requests in a time, such as `"50/s"` or `"1000/1m"`.
pub fn rate(raw: &mut Json) -> Result<Rate, Problem> {
    let fix = "write requests and a time in quotes, such as \"50/s\" or \"1000/1m\"";
    let Json::String(text) = &*raw else {
        return Err(Problem::new(format!("{} is not a rate", written(raw)), fix));
    };
    let parts = text.split_once('/').filter(|(_, per)| !per.trim().is_empty());
    let Some((requests, per)) = parts else {
        return Err(Problem::new(format!("{text:?} has no time"), fix));
    };
    let requests = integer::<u32>(1..=RATE_REQUESTS_MAX)(&mut Json::from(requests))
        .map_err(|problem| problem.of(&format!("the number of requests of {text:?}:")))?;
    let per = per.trim();
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    let per = duration(RATE_TIME)(&mut Json::from(per))
        .map_err(|problem| problem.of(&format!("the time of {text:?}:")))?;
    let requests = NonZeroU32::new(requests).expect("it is at least 1");
    Ok(Rate { requests, per })
}

/// Formats a rate as in the config.
pub fn format_rate(rate: Rate) -> String {
    let per = format_duration(rate.per);
    let unit = per.strip_prefix('1').filter(|unit| !unit.contains(|c: char| c.is_ascii_digit()));
    format!("{}/{}", rate.requests, unit.unwrap_or(&per))
}

/// A duration over zero and under 15 minutes.
pub fn timeout(raw: &mut Json) -> Result<Duration, Problem> {
    duration(Duration::from_millis(1)..=TIMEOUT_MAX)(raw)
}

/// `"auto"`, or a duration under 15 minutes.
pub fn takeover_wait(raw: &mut Json) -> Result<TakeoverWait, Problem> {
    if *raw == "auto" {
        return Ok(TakeoverWait::Auto);
    }
    let other = |problem: Problem| Problem::new(problem.to_string(), "or write \"auto\"");
    duration(Duration::ZERO..=TIMEOUT_MAX)(raw).map(TakeoverWait::Fixed).map_err(other)
}

/// A duration of whole seconds.
pub fn whole_seconds(range: RangeInclusive<u64>) -> impl Fn(&mut Json) -> Result<Duration, Problem> {
    move |raw| {
        let (least, most) = (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
        let duration = duration(least..=most)(raw)?;
        if duration.subsec_nanos() == 0 {
            return Ok(duration);
        }
        Err(Problem::new(format!("{raw} is not whole seconds"), "write whole seconds, such as \"10s\""))
    }
}

/// One of several named values.
pub fn choice<T: Copy>(choices: &[(&'static str, T)]) -> impl Fn(&mut Json) -> Result<T, Problem> {
    move |raw| {
        let chosen = choices.iter().find(|(name, _)| *raw == *name);
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            let (last, others) = names.split_last().expect("a choice has values");
            let names =
                if others.is_empty() { last.clone() } else { format!("{} or {last}", others.join(", ")) };
            Problem::new(format!("{} is not a value of this key", written(raw)), format!("choose {names}"))
        })
    }
}

/// The exchange. Names of queues are derived from it, so it is shorter than an AMQP short string (255 bytes).
pub fn exchange(raw: &mut Json) -> Result<String, Problem> {
    let name = text(raw)?;
    let what = match name.as_str() {
        "" => "is empty".to_owned(),
        name if name.len() > 200 => format!("has {} bytes", name.len()),
        name if name.starts_with("amq.") => {
            format!("{name:?} begins with \"amq.\", which RabbitMQ reserves")
        }
        name if name.chars().any(char::is_control) || name.trim() != name => {
            format!("{name:?} has control characters, or spaces at an end")
        }
        _ => return Ok(name),
    };
    Err(Problem::new(what, "write a name of 1 to 200 bytes, such as \"updates\""))
}

/// Name of this process; empty: the host name.
pub fn instance(raw: &mut Json) -> Result<String, Problem> {
    let name = text(raw)?;
    if name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Problem::new(
            format!("{name:?} has more than 100 bytes or control characters"),
            "write a shorter printable name, or \"\" for the host name",
        ));
    }
    Ok(name)
}

/// An address to listen on; empty: none.
pub fn listen(raw: &mut Json) -> Result<Option<SocketAddr>, Problem> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Problem::new(
            format!("{text:?} is not an IP address with a port"),
            "write one such as \"127.0.0.1:9419\" or \"[::]:9419\", or \"\" for none",
        )
    })
}

/// A `tracing` filter.
pub fn log_filter(raw: &mut Json) -> Result<String, Problem> {
    let text = text(raw)?;
    match EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Problem::new(
            format!("{text:?} is not a filter: {error}"),
            "write a level such as \"info\", or one per module as in \"lanekeeper=debug,warn\"",
        )),
    }
}

/// Formats a duration for people.
pub fn format_duration(duration: Duration) -> String {
    // Multiplied waits can have some microseconds that nobody wants to read.
    let millis = if duration.as_secs() > 0 { 1_000_000 } else { 1_000 };
    let nanos = duration.subsec_nanos() / millis * millis;
    humantime::format_duration(Duration::new(duration.as_secs(), nanos)).to_string()
}

/// Formats a value for a problem.
fn written(value: &Json) -> String {
    match value {
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    }
}
