//! The keys of `[failure]` and `[target.failure]`.

use super::fault::Problem;
use super::parse::choice;
use super::reader::{Reader, Section};
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy};

/// For `rejected` and `exhausted`; `conflict` has two more.
const FAILURE_POLICIES: [(&str, FailurePolicy); 3] = [
    (FailurePolicy::Park.name(), FailurePolicy::Park),
    (FailurePolicy::DeadLetter.name(), FailurePolicy::DeadLetter),
    (FailurePolicy::Block.name(), FailurePolicy::Block),
];

const CONFLICT_POLICIES: [(&str, FailurePolicy); 5] = [
    FAILURE_POLICIES[0],
    FAILURE_POLICIES[1],
    FAILURE_POLICIES[2],
    (FailurePolicy::Superseded.name(), FailurePolicy::Superseded),
    (FailurePolicy::Refetch.name(), FailurePolicy::Refetch),
];

/// Reads `[failure]`.
pub fn read(reader: &mut Reader<'_>) -> Option<FailurePolicies> {
    let mut section = reader.section("failure");
    let rejected = section.read("rejected", choice(&FAILURE_POLICIES));
    let exhausted = section.read("exhausted", choice(&FAILURE_POLICIES));
    let conflict = section.read("conflict", choice(&CONFLICT_POLICIES));
    section.finish();
    Some(FailurePolicies { rejected: rejected?, exhausted: exhausted?, conflict: conflict? })
}

/// Reads `[target.failure]`, whose defaults are those of `[failure]`; `None` as default: a fault was noted there.
/// `can_park`: there is a ledger.
pub fn read_of_target(
    target: &mut Section<'_, '_>,
    default: Option<FailurePolicies>,
    can_park: bool,
) -> Option<FailurePolicies> {
    let mut section = target.table("failure");
    let default = default.unwrap_or(FailurePolicies::all(FailurePolicy::Block));
    // A default that parks is a fault of `[failure]`.
    let own = ["rejected", "exhausted", "conflict"].map(|key| section.has(key));
    let rejected = section.read_or("rejected", default.rejected.name(), choice(&FAILURE_POLICIES));
    let exhausted = section.read_or("exhausted", default.exhausted.name(), choice(&FAILURE_POLICIES));
    let conflict = section.read_or("conflict", default.conflict.name(), choice(&CONFLICT_POLICIES));
    if !can_park {
        let [rejected, exhausted, conflict] = [(own[0], rejected), (own[1], exhausted), (own[2], conflict)]
            .map(|(own, read)| read.filter(|_| own));
        note_parking(&mut section, rejected, exhausted, conflict);
    }
    section.finish();
    Some(FailurePolicies { rejected: rejected?, exhausted: exhausted?, conflict: conflict? })
}

/// Notes a fault for each key of `[failure]` that parks updates, which needs a ledger.
pub fn parks_without_ledger(reader: &mut Reader<'_>, read: FailurePolicies) {
    let FailurePolicies { rejected, exhausted, conflict } = read;
    note_parking(&mut reader.section("failure"), Some(rejected), Some(exhausted), Some(conflict));
}

fn note_parking(
    section: &mut Section<'_, '_>,
    rejected: Option<FailurePolicy>,
    exhausted: Option<FailurePolicy>,
    conflict: Option<FailurePolicy>,
) {
    for (key, policy) in [("rejected", rejected), ("exhausted", exhausted), ("conflict", conflict)] {
        if let Some(policy @ (FailurePolicy::Park | FailurePolicy::Refetch)) = policy {
            let what = format!(
                "is {:?}, which parks updates in the ledger, but ledger.url is \"none\"",
                policy.name()
            );
            section.fault(key, Problem::new(what, "set ledger.url, or choose \"dead_letter\" or \"block\""));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Environment, Faults, Purpose, TARGET_EXAMPLE};
    use super::*;
    use lanekeeper_core::routes::TargetId;

    fn read_config(text: &str, purpose: Purpose) -> Result<Config, Faults> {
        super::super::read(Some((Path::new("lk.toml"), text)), &Environment::default(), purpose)
            .map(|loaded| loaded.config)
    }

    #[test]
    fn a_target_can_replace_single_keys() {
        let second = TARGET_EXAMPLE.replace("crm", "erp");
        let text = format!(
            "[failure]\nrejected = \"dead_letter\"\n{TARGET_EXAMPLE}\n[target.failure]\nexhausted = \"block\"\n\
             conflict = \"refetch\"\n{second}"
        );
        let config = read_config(&text, Purpose::Dispatch).unwrap();
        let crm = FailurePolicies {
            rejected: FailurePolicy::DeadLetter,
            exhausted: FailurePolicy::Block,
            conflict: FailurePolicy::Refetch,
        };
        let erp = FailurePolicies {
            rejected: FailurePolicy::DeadLetter,
            ..FailurePolicies::all(FailurePolicy::Park)
        };
        assert_eq!([config.targets[0].failure, config.targets[1].failure], [crm, erp]);
        assert_eq!([0, 1].map(|target| config.policy.failure_of(TargetId(target))), [crm, erp]);
    }

    #[test]
    fn what_parks_needs_a_ledger_for_each_target() {
        let check = |failure: &str, of_target: &str, expected: &[&str]| {
            let text = format!(
                "[ledger]\nurl = \"none\"\n[failure]\n{failure}\n{TARGET_EXAMPLE}\n[target.failure]\n{of_target}"
            );
            let faults = read_config(&text, Purpose::Dispatch).err();
            let keys: Vec<String> =
                faults.into_iter().flat_map(|faults| faults.0).map(|fault| fault.key).collect();
            assert_eq!(keys, expected, "{text}");
            assert!(read_config(&text, Purpose::Publish).is_ok());
        };
        let blocking = "rejected = \"block\"\nexhausted = \"block\"\nconflict = \"block\"";
        check(blocking, "", &[]);
        check(blocking, "rejected = \"dead_letter\"", &[]);
        check(
            blocking,
            "rejected = \"park\"\nconflict = \"refetch\"",
            &["target[0].failure.rejected", "target[0].failure.conflict"],
        );
        check("", "", &["failure.rejected", "failure.exhausted", "failure.conflict"]);
    }
}
