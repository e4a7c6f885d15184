//! Values as `show`, `plan` and `apply` print them.

use std::time::Duration;

use crate::doctor::change::{Danger, Weight};
pub use crate::wall_time::format_seconds as format_time;

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
