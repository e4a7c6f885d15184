//! The keys of a target that say what it shares with others: `rate_max`, `in_flight_max` and `limits`.

use std::num::NonZeroUsize;

use super::fault::Problem;
use super::model::{LimitsConfig, TargetConfig};
use super::parse::{format_rate, integer, rate};
use super::reader::{Reader, Section};
use super::target;
use lanekeeper_core::pacing::PacerLimits;
use lanekeeper_core::routes::TargetId;

const IN_FLIGHT_MAX: u64 = 1_000_000;

/// Reads the keys of one target, whose name is the default of `limits`; `None`: a fault was noted.
pub fn read(section: &mut Section<'_, '_>, name: Option<&str>) -> (Option<String>, PacerLimits) {
    let rate_max = section.read_if_set("rate_max", rate);
    let in_flight_max = section.read_if_set("in_flight_max", integer::<usize>(1..=IN_FLIGHT_MAX));
    let limits = section.read_or("limits", name.unwrap_or("unnamed"), target::name);
    (limits, PacerLimits { rate_max, in_flight_max: in_flight_max.and_then(NonZeroUsize::new) })
}

/// The groups of targets with the same `limits`. Notes a fault for each target that contradicts an earlier one of its
/// group, or takes the name of a target for its group that is not in it. `None` among the targets: a fault was noted.
pub fn group(reader: &mut Reader<'_>, targets: &[Option<(TargetConfig, PacerLimits)>]) -> Vec<LimitsConfig> {
    let read: Vec<(usize, &TargetConfig, PacerLimits)> = targets
        .iter()
        .enumerate()
        .filter_map(|(index, target)| target.as_ref().map(|(target, own)| (index, target, *own)))
        .collect();
    let mut groups: Vec<LimitsConfig> = Vec::new();
    for &(index, target, own) in &read {
        for (key, problem) in faults(&read, index, target, own) {
            reader.element("target", index).fault(key, problem);
        }
        let known = groups.iter().position(|group| group.name == target.limits);
        let number = known.unwrap_or_else(|| {
            let name = target.limits.clone();
            groups.push(LimitsConfig { name, targets: Vec::new(), limits: PacerLimits::default() });
            groups.len() - 1
        });
        let group = &mut groups[number];
        group.targets.push(TargetId(index));
        group.limits.rate_max = group.limits.rate_max.or(own.rate_max);
        group.limits.in_flight_max = group.limits.in_flight_max.or(own.in_flight_max);
    }
    groups
}

/// The faults of one of the targets, with their keys.
fn faults(
    read: &[(usize, &TargetConfig, PacerLimits)],
    index: usize,
    target: &TargetConfig,
    own: PacerLimits,
) -> Vec<(&'static str, Problem)> {
    let mut faults = Vec::new();
    let earlier = || read.iter().filter(|(other, ..)| *other < index);
    let same = || earlier().filter(|(_, other, _)| other.limits == target.limits);
    let contradicts = |value: String, other: &TargetConfig, theirs: String| {
        Problem::new(
            format!(
                "is {value}, but target {:?}, which shares limits {:?}, has {theirs}",
                other.name, target.limits
            ),
            "write the same, or leave one of them out",
        )
    };
    if let Some(rate) = own.rate_max
        && let Some((other, theirs)) = same().find_map(|(_, other, limits)| Some((other, limits.rate_max?)))
        && theirs != rate
    {
        let quoted = |rate| format!("{:?}", format_rate(rate));
        faults.push(("rate_max", contradicts(quoted(rate), other, quoted(theirs))));
    }
    if let Some(max) = own.in_flight_max
        && let Some((other, theirs)) =
            same().find_map(|(_, other, limits)| Some((other, limits.in_flight_max?)))
        && theirs != max
    {
        faults.push(("in_flight_max", contradicts(max.to_string(), other, theirs.to_string())));
    }
    let namesake = read.iter().find(|(_, other, _)| other.name == target.limits);
    if let Some((_, other, _)) = namesake.filter(|(_, other, _)| other.limits != target.limits) {
        let what =
            format!("{:?} is the name of a target that has other limits ({:?})", target.limits, other.limits);
        faults.push((
            "limits",
            Problem::new(what, "choose another name, or give both targets the same limits"),
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::Path;
    use std::time::Duration;

    use super::super::{Config, Environment, Faults, Purpose};
    use super::*;
    use lanekeeper_core::pacing::Rate;

    /// A config with 4 partitions and targets of these names with these lines.
    fn read_config(targets: &[(&str, &str)]) -> Result<Config, Faults> {
        let target = |(name, lines): &(&str, &str)| {
            format!(
                "[[target]]\nname = \"{name}\"\ntypes = [\"{name}\"]\nurl = \"http://h/{{record_key}}\"\n{lines}\n"
            )
        };
        let targets: Vec<String> = targets.iter().map(target).collect();
        let text = format!("[updates]\npartitions = 4\n{}", targets.concat());
        super::super::read(Some((Path::new("lk.toml"), &text)), &Environment::default(), Purpose::Dispatch)
            .map(|loaded| loaded.config)
    }

    fn rate(requests: u32, seconds: u64) -> Option<Rate> {
        Some(Rate { requests: NonZeroU32::new(requests)?, per: Duration::from_secs(seconds) })
    }

    #[test]
    fn a_rate_is_requests_and_a_time() {
        for (text, expected, formatted) in [
            ("50/s", rate(50, 1), "50/s"),
            ("1000/1m", rate(1000, 60), "1000/m"),
            ("1_000_000 / 24h", rate(1_000_000, 86_400), "1000000/day"),
            ("3/10s", rate(3, 10), "3/10s"),
            ("3/90s", rate(3, 90), "3/1m 30s"),
        ] {
            let read = super::super::parse::rate(&mut text.into()).unwrap();
            assert_eq!((Some(read), format_rate(read).as_str()), (expected, formatted), "{text}");
        }
    }

    #[test]
    fn targets_with_one_name_for_their_limits_are_a_group() {
        let config = read_config(&[
            ("people", "limits = \"crm\"\nrate_max = \"50/s\""),
            ("erp", "in_flight_max = 7"),
            ("orders", "limits = \"crm\"\nin_flight_max = 8\nrate_max = \"50/1s\""),
            ("crm", ""),
        ]);
        let config = config.unwrap();
        let in_flight_max = |max| PacerLimits { rate_max: None, in_flight_max: NonZeroUsize::new(max) };
        let expected = [
            LimitsConfig {
                name: "crm".to_owned(),
                targets: vec![TargetId(0), TargetId(2), TargetId(3)],
                limits: PacerLimits { rate_max: rate(50, 1), ..in_flight_max(8) },
            },
            LimitsConfig { name: "erp".to_owned(), targets: vec![TargetId(1)], limits: in_flight_max(7) },
        ];
        assert_eq!(config.limits, expected);
        assert_eq!([0, 1, 2, 3].map(|target| config.limits_of(TargetId(target))), [0, 1, 0, 0]);
        assert_eq!(config.targets[3].limits, "crm");
    }

    #[test]
    fn targets_of_one_group_contradict_each_other_or_a_name_is_taken() {
        let check = |targets: &[(&str, &str)], expected: &[(&str, &str)]| {
            let faults = read_config(targets).unwrap_err();
            let found: Vec<(&str, &str)> =
                faults.0.iter().map(|fault| (fault.key.as_str(), fault.what())).collect();
            assert_eq!(found, expected, "{targets:?}");
        };
        check(
            &[
                ("people", "limits = \"crm\"\nrate_max = \"50/s\""),
                ("orders", "limits = \"crm\"\nin_flight_max = 8\nrate_max = \"100/m\""),
                ("crm", "in_flight_max = 9"),
            ],
            &[
                (
                    "target[1].rate_max",
                    "is \"100/m\", but target \"people\", which shares limits \"crm\", has \"50/s\"",
                ),
                (
                    "target[2].in_flight_max",
                    "is 9, but target \"orders\", which shares limits \"crm\", has 8",
                ),
            ],
        );
        check(
            &[("people", "limits = \"crm\""), ("crm", "limits = \"erp\""), ("erp", "")],
            &[("target[0].limits", "\"crm\" is the name of a target that has other limits (\"erp\")")],
        );
    }

    #[test]
    fn an_in_flight_max_below_the_number_of_partitions_is_warned_of() {
        let check = |lines: &str, expected: &[&str]| {
            let warnings = super::super::warnings(&read_config(&[("crm", lines)]).unwrap());
            assert!(warnings.len() == expected.len(), "{lines}: {warnings:?}");
            for (warning, part) in warnings.iter().zip(expected) {
                assert!(warning.contains(part), "{part} in {warning}");
            }
        };
        check("", &[]);
        check("in_flight_max = 4", &[]);
        check(
            "in_flight_max = 3",
            &["limits \"crm\": in_flight_max = 3 is below updates.partitions = 4: each"],
        );
    }
}
