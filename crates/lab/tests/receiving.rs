//! docs/receiving.md shows the statements that the receiver runs, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every statement file below a directory.
fn statements(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() { files.extend(statements(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn the_statements_in_the_documentation_are_those_that_run() {
    let page = fs::read_to_string(project().join("../../docs/receiving.md")).expect("the page can be read");
    let shown: BTreeSet<&str> = page
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("a split has a first part"))
        .collect();
    let files = statements(&project().join("src/receiver/sql"));
    let run: Vec<String> =
        files.iter().map(|file| fs::read_to_string(file).expect("a statement can be read")).collect();
    let run: BTreeSet<&str> = run.iter().map(String::as_str).collect();
    let not_shown: Vec<_> = run.difference(&shown).collect();
    assert!(not_shown.is_empty(), "docs/receiving.md does not show {not_shown:#?}");
    let not_run: Vec<_> = shown.difference(&run).collect();
    assert!(not_run.is_empty(), "docs/receiving.md shows what the receiver does not run: {not_run:#?}");
}
