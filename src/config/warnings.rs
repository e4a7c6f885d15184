//! What is allowed and yet likely not meant. `lanekeeper check` prints it.

use std::time::Duration;

use super::forecast::Forecast;
use super::{Config, TargetConfig, told};
use crate::core::policy::FailurePolicy;
use crate::core::routes::TypePattern;

/// Two thirds of RabbitMQ's acknowledgement timeout (30 minutes by default): with the last request and the wait for a
/// place in the window, an update held this long is still settled in time.
const HELD_MAX: Duration = Duration::from_secs(20 * 60);

/// One sentence or two for each: what will happen, and what to do.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let fence = 2 * config.broker.heartbeat;
    for (index, target) in config.targets.iter().enumerate() {
        let name = &target.name;
        if target.timeout > fence {
            warnings.push(format!(
                "target {name:?}: timeout {} is over two heartbeats ({}): a request of an owner that fell silent can \
                 still be at work when the next owner starts. Shorten the timeout, raise broker.heartbeat, or let the \
                 target check the header lanekeeper-tenure.",
                told(target.timeout),
                told(fence),
            ));
        }
        if target.timeout > config.dispatch.drain_timeout {
            warnings.push(format!(
                "target {name:?}: timeout {} is over dispatch.drain_timeout ({}): a stop can cut a request off, which \
                 is then sent again. Raise drain_timeout.",
                told(target.timeout),
                told(config.dispatch.drain_timeout),
            ));
        }
        let earlier = &config.targets[..index];
        warnings.extend(unreachable(target, earlier));
    }
    let (prefetch, in_flight_max) =
        (usize::from(config.dispatch.prefetch.get()), config.dispatch.in_flight_max.get());
    if prefetch < 4 * in_flight_max {
        warnings.push(format!(
            "dispatch.prefetch = {prefetch} is below 4 x in_flight_max ({}): few records that wait are enough to delay \
             all others of their partition. Raise it.",
            4 * in_flight_max
        ));
    }
    warnings.extend(held_long(config));
    warnings
}

/// Types of a target that earlier targets take all of.
fn unreachable(target: &TargetConfig, earlier: &[TargetConfig]) -> Option<String> {
    let taken: Vec<(&TypePattern, &TargetConfig)> = target
        .types
        .iter()
        .filter_map(|pattern| {
            let covered = |before: &&TargetConfig| before.types.iter().any(|before| covers(before, pattern));
            Some((pattern, earlier.iter().find(covered)?))
        })
        .collect();
    let (_, first) = taken.first()?;
    let (name, before) = (&target.name, &first.name);
    Some(if taken.len() == target.types.len() {
        format!("target {name:?} gets no update: target {before:?}, before it, takes its types. Put it first.")
    } else {
        let listed: Vec<String> = taken.iter().map(|(pattern, _)| format!("\"{pattern}\"")).collect();
        let listed = listed.join(", ");
        format!("target {name:?} gets no update of type {listed}: target {before:?}, before it, takes them.")
    })
}

fn covers(before: &TypePattern, pattern: &TypePattern) -> bool {
    match (before, pattern) {
        (TypePattern::Any, _) => true,
        (_, TypePattern::Any) | (TypePattern::Exact(_), TypePattern::Prefix(_)) => false,
        (TypePattern::Prefix(before), TypePattern::Prefix(text) | TypePattern::Exact(text)) => {
            text.starts_with(before.as_str())
        }
        (TypePattern::Exact(before), TypePattern::Exact(text)) => before == text,
    }
}

fn held_long(config: &Config) -> Option<String> {
    let policy = &config.policy;
    let held = match Forecast::new(policy).end {
        Some(end) if end.elapsed <= HELD_MAX && policy.elapsed_max.is_none_or(|max| max <= HELD_MAX) => None,
        Some(end) => Some(format!("for {}", told(policy.elapsed_max.unwrap_or(end.elapsed)))),
        None => Some("for ever".to_owned()),
    };
    let advice =
        if policy.exhausted == FailurePolicy::Block { "" } else { " Set retry.elapsed_max to 20m or less." };
    held.map(|held| {
        format!(
            "retry: a failing update is retried {held}, past RabbitMQ's acknowledgement timeout (30 minutes by \
             default): the broker then closes the channel, and what it held is delivered again.{advice}"
        )
    })
}
