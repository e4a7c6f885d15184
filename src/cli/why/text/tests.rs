use super::text;
use crate::inspect::examples::reports_of_every_cause;

/// Read it again when it changes.
#[test]
fn every_cause_as_the_command_prints_it() {
    let shown: Vec<String> = reports_of_every_cause().iter().map(text).collect();
    let shown = shown.join("\n");
    assert_eq!(shown, include_str!("causes.txt"));
}
