use super::cause;
use crate::inspect::examples::reports_of_every_cause;

/// Read it again when it changes.
#[test]
fn every_cause_as_the_page_shows_it() {
    let shown: Vec<String> = reports_of_every_cause()
        .iter()
        .map(|report| cause(report).into_string().replace("<dt>", "\n  <dt>").replace("</div>", "\n</div>"))
        .collect();
    let shown = shown.join("\n") + "\n";
    assert_eq!(shown, include_str!("causes.html"));
}
