//! What is allowed and yet likely not meant. `lanekeeper check` prints it.

use std::time::Duration;

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
                 still be at work when the next owner starts. Shorten the timeout or raise broker.heartbeat.",
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
        format!(
            "target {name:?} gets no update: target {before:?}, before it, takes its types. Put it first."
        )
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

/// Waits may be as long as a target asks for, so the end of the forecast is not the bound.
fn held_long(config: &Config) -> Option<String> {
    let policy = &config.policy;
    let longest = policy.schedule.longest().max(policy.retry_after_max);
    let by_attempts = policy.attempts_max.map(|max| longest.saturating_mul(max.get() - 1));
    let held = match [by_attempts, policy.elapsed_max].into_iter().flatten().min() {
        Some(held) if held <= HELD_MAX => return None,
        Some(held) => format!("for up to {}", told(held)),
        None => "for ever".to_owned(),
    };
    let advice = match policy.exhausted {
        FailurePolicy::Block => "",
        FailurePolicy::DeadLetter => " Set retry.elapsed_max to 20m or less.",
    };
    Some(format!(
        "retry: an update that fails is held {held}, past RabbitMQ's acknowledgement timeout (30 minutes by default): \
         its partition then closes its channel and begins again with what it held.{advice}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_every_match_of_the_other_matches() {
        let check = |before: &str, pattern: &str, expected| {
            assert_eq!(
                covers(&before.parse().unwrap(), &pattern.parse().unwrap()),
                expected,
                "{before} {pattern}"
            );
        };
        check("*", "*", true);
        check("*", "a.*", true);
        check("*", "a", true);
        check("a.*", "*", false);
        check("a.*", "a.*", true);
        check("a.*", "a.b.*", true);
        check("a.b.*", "a.*", false);
        check("a.*", "a.b", true);
        check("a.*", "a", false);
        check("a.*", "ab.c", false);
        check("a.b", "a.b", true);
        check("a.b", "a.b.*", false);
        check("a", "*", false);
    }
}
