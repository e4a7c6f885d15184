//! What is there for the people on call: the alert rules and the dashboard are valid, and say what to do.

#[path = "../anchors/mod.rs"]
mod anchors;
mod dashboard;
mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const MANUAL: &str = "docs/operating.md";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c| !is_of_word(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
