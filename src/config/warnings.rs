//! Finds what is allowed but likely a mistake. `lanekeeper check` prints the warnings.

use std::time::{Duration, SystemTime};

use super::model::{Config, LimitsConfig, TargetConfig};
use super::on::OnConfig;
use super::parse::format_duration;
use super::{admin, ingest, plain_text, tls};
use lanekeeper_core::routes::TypePattern;

/// RabbitMQ's default acknowledgement timeout (`consumer_timeout`; 3.10 and 4.0).
pub const ACK_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// RabbitMQ looks for overdue deliveries once a minute, and may do so a little early.
const ACK_TIMEOUT_MARGIN: Duration = Duration::from_secs(60);

/// All warnings. Each says what can happen and what to do.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, target) in config.targets.iter().enumerate() {
        let name = &target.name;
        if target.timeout > config.dispatch.drain_timeout {
            warnings.push(format!(
                "target {name:?}: timeout {} is longer than dispatch.drain_timeout ({}): a stop can abort a request, which \
                 is then sent again. Raise drain_timeout.",
                format_duration(target.timeout),
                format_duration(config.dispatch.drain_timeout),
            ));
        }
        let earlier = &config.targets[..index];
        warnings.extend(unreachable(target, earlier));
        warnings.extend(unused_rows(target, earlier));
    }
    warnings.extend(config.limits.iter().filter_map(|group| too_few_to_share(config, group)));
    let (prefetch, in_flight_max) =
        (usize::from(config.dispatch.prefetch.get()), config.dispatch.in_flight_max.get());
    if prefetch < 4 * in_flight_max {
        warnings.push(format!(
            "dispatch.prefetch = {prefetch} is below 4 x in_flight_max ({}): a few waiting records are enough to delay all \
             others of their partition. Raise it.",
            4 * in_flight_max
        ));
    }
    warnings.extend(held_long(config));
    warnings.extend(tls::expiring(&config.targets, SystemTime::now()).map(|expiring| expiring.to_string()));
    let receivers: Vec<TargetConfig> = config.notify.iter().map(|notify| notify.receiver.clone()).collect();
    let expiring = tls::expiring(&receivers, SystemTime::now());
    warnings.extend(expiring.map(|expiring| plain_text::of_notify(&expiring.to_string())));
    warnings.extend(plain_text::warnings(config));
    warnings.extend(admin::warnings(config));
    warnings.extend(ingest::warnings(config));
    warnings
}

/// The warnings for a process that is a door and nothing else: what it does not use is not warned of.
#[must_use]
pub fn warnings_of_door(config: &Config) -> Vec<String> {
    let mut warnings = plain_text::of_broker(config);
    warnings.extend(admin::warnings(config));
    warnings.extend(ingest::warnings(config));
    warnings
}

/// The warning for an `in_flight_max` that not every owner can have a share of.
fn too_few_to_share(config: &Config, group: &LimitsConfig) -> Option<String> {
    let in_flight_max = group.limits.in_flight_max?.get();
    let partitions = config.updates.partitions.get();
    (in_flight_max < usize::from(partitions)).then(|| {
        format!(
            "limits {:?}: in_flight_max = {in_flight_max} is below updates.partitions = {partitions}: each process that \
             owns a partition keeps at least one request in flight, so that more than {in_flight_max} processes exceed it. \
             Raise it, or run at most {in_flight_max}.",
            group.name
        )
    })
}

/// The warning for types of a target that earlier targets take.
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
            "target {name:?} gets no update: target {before:?} comes first and takes its types. Put {name:?} first."
        )
    } else {
        let listed: Vec<String> = taken.iter().map(|(pattern, _)| format!("\"{pattern}\"")).collect();
        let listed = listed.join(", ");
        format!(
            "target {name:?} gets no update of type {listed}: target {before:?} comes first and takes them."
        )
    })
}

/// The warnings for types of a target's `on` that are for no update.
fn unused_rows(target: &TargetConfig, earlier: &[TargetConfig]) -> Vec<String> {
    let name = &target.name;
    let mut warnings = Vec::new();
    for (index, row) in target.on.iter().enumerate() {
        for pattern in &row.types {
            let comes = target.types.iter().any(|own| covers(own, pattern) || covers(pattern, own));
            let taken = earlier.iter().find(|before| before.types.iter().any(|types| covers(types, pattern)));
            let hides = |before: &OnConfig| before.types.iter().any(|types| covers(types, pattern));
            let hidden = target.on[..index].iter().position(hides);
            let row = format!("target {name:?}: on[{index}] is for no update of type \"{pattern}\":");
            if !comes {
                warnings.push(format!(
                    "{row} the target's types do not have it. Add it there, or remove it here."
                ));
            } else if let Some(before) = taken {
                let before = &before.name;
                warnings
                    .push(format!("{row} target {before:?} comes first and takes it. Put {name:?} first."));
            } else if let Some(before) = hidden {
                warnings.push(format!("{row} on[{before}] comes first and takes it. Put on[{index}] first."));
            }
        }
    }
    warnings
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

/// The shortest acknowledgement timeout that RabbitMQ may have: a partition is given back after `held_max`, which can take
/// the drain timeout, and the broker may look a little early.
#[must_use]
pub fn held_at_most(config: &Config) -> Duration {
    config.dispatch.held_max + config.dispatch.drain_timeout + ACK_TIMEOUT_MARGIN
}

fn held_long(config: &Config) -> Option<String> {
    let (held_max, drain_timeout) = (config.dispatch.held_max, config.dispatch.drain_timeout);
    (held_at_most(config) > ACK_TIMEOUT).then(|| {
        format!(
            "dispatch.held_max = {} and drain_timeout = {} are too near to RabbitMQ's acknowledgement timeout (30 minutes by \
             default), after which the broker closes the channel while attempts are in flight. Lower held_max, or raise \
             the broker's consumer_timeout.",
            format_duration(held_max),
            format_duration(drain_timeout),
        )
    })
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
