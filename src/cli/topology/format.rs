//! Values as `show`, `plan` and `apply` print them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::doctor::change::{Danger, Weight};

/// `2026-11-25T01:02:03Z`, of seconds since 1970-01-01 UTC.
pub fn format_time(seconds: u64) -> String {
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// `1h 2m`: the two largest units.
pub fn format_age(seconds: u64) -> String {
    let exact = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// One danger, on one line.
pub fn format_danger(danger: &Danger) -> String {
    let weight = match danger.weight {
        Weight::Forbids => "blocks the change",
        Weight::Unseen => "blocks the change unless --without-management is given",
        Weight::Risks | Weight::Warns => "could go wrong",
    };
    let Danger { finding, .. } = danger;
    format!("{weight} ({}): {}; {}", finding.code, finding.what, finding.cost)
}
