//! Rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can hold, by reading the source.

mod anchors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lanekeeper_core::policy::Malformed;
use strum::VariantNames as _;

use anchors::anchors;

const LINES_MAX: usize = 500;
/// Longer files, each with its reason.
const LONGER: [(&str, &str); 0] = [];

/// The only tests that may sleep: what waits for a condition, and fakes that live in paused time, where sleeping is how time
/// passes.
const MAY_SLEEP: [&str; 2] = ["tests/it/harness/wait.rs", "src/runtime/driver/tests/"];

#[test]
fn files_are_short_enough_to_read() {
    let mut faults = Vec::new();
    for (path, text) in code() {
        let lines = text.lines().count();
        let exception = LONGER.iter().any(|(longer, _)| *longer == path);
        match (lines > LINES_MAX, exception) {
            (true, false) => faults.push(format!("{path}: {lines} lines, over {LINES_MAX}: take it apart")),
            (false, true) => faults.push(format!("{path}: does not need its exception")),
            _ => {}
        }
    }
    assert_none(&faults);
}

#[test]
fn no_test_is_ignored_and_none_sleeps() {
    let mut faults = Vec::new();
    for (path, text) in code().into_iter().chain(tests()) {
        for (number, line) in code_lines(&text) {
            if line.contains(concat!("#[", "ignore")) {
                faults.push(format!("{path}:{number}: a test that is not run holds nothing"));
            }
            if (path.starts_with("tests/") || path.contains("/tests/"))
                && !is_this_file(&path)
                && !MAY_SLEEP.iter().any(|may| path.starts_with(may))
                && words(line).any(|(_, word)| word == "sleep")
            {
                faults.push(format!("{path}:{number}: sleeps; wait for a condition with `until` instead"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in documents() {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { path.clone() } else { beside(&path, file) };
            let absolute = project().join(&to);
            if !absolute.exists() {
                faults.push(format!("{path}: {link} leads nowhere"));
            } else if !anchor.is_empty() && !anchors(&read(&absolute)).contains(anchor) {
                faults.push(format!("{path}: {to} has no heading #{anchor}"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn documents_that_are_mentioned_exist() {
    let mut faults = Vec::new();
    for (path, text) in tracked() {
        for rest in after_each(&text, "docs/") {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'))
                .collect();
            let Some(end) = name.find(".md") else { continue };
            let mentioned = format!("docs/{}.md", &name[..end]);
            if !project().join(&mentioned).exists() {
                faults.push(format!("{path}: there is no {mentioned}"));
            }
        }
    }
    assert_none(&faults);
}

/// A document names a test as `FILE.rs::FUNCTION`.
#[test]
fn tests_that_documents_name_exist() {
    let mut faults = Vec::new();
    let mut named = 0;
    for (path, text) in documents() {
        for span in text.split('`').skip(1).step_by(2) {
            let Some((file, function)) = span.split_once(".rs::") else { continue };
            named += 1;
            let source = fs::read_to_string(project().join(format!("{file}.rs"))).unwrap_or_default();
            if !after_each(&source, "fn ").any(|rest| word_at(rest) == function) {
                faults.push(format!("{path}: there is no {span}"));
            }
        }
    }
    assert!(named > 20, "the table in docs/receiving.md names them: {named}");
    assert_none(&faults);
}

#[test]
fn no_file_knows_the_machine_that_it_was_written_on() {
    let mut faults = Vec::new();
    for (path, text) in tracked() {
        for (number, line) in text.lines().enumerate() {
            for directory in ["work", "root", "home", "Users"] {
                let absolute = format!("/{directory}/");
                for (at, _) in line.match_indices(&absolute) {
                    let before = line[..at].chars().next_back();
                    if before
                        .is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '}' | '.' | '*' | ')'))
                    {
                        faults.push(format!("{path}:{}: {absolute}", number + 1));
                    }
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_reason_of_a_malformed_delivery_is_documented() {
    let reasons: BTreeSet<&str> = Malformed::VARIANTS.iter().copied().collect();
    let wire = read(&project().join("docs/wire.md"));
    let table = wire.split("### Malformed deliveries").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = table.expect("docs/wire.md has the table").lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    documented.remove("lanekeeper-reason");
    assert_eq!(documented, reasons);
}

/// Code of others comes from the registry, unmodified: no folder of it, no `[patch]`, no package from elsewhere.
#[test]
fn nothing_third_party_is_in_the_tree() {
    let mut faults = Vec::new();
    for (path, text) in tracked() {
        if path.ends_with("Cargo.toml") {
            let patched = text.lines().any(|line| line.starts_with("[patch"));
            let ours = path == "Cargo.toml" || path.starts_with("crates/") || path.starts_with("examples/");
            if patched || !ours {
                faults.push(format!("{path}: a package of others, or a patch of one"));
            }
        }
    }
    let lock = read(&project().join("Cargo.lock"));
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        let (name, source) = (value("name").unwrap_or_default(), value("source"));
        let registry = "\"registry+https://github.com/rust-lang/crates.io-index\"";
        if !name.starts_with("\"lanekeeper") && source != Some(registry) {
            faults.push(format!("Cargo.lock: {name} comes from {}", source.unwrap_or("the tree")));
        }
    }
    assert_none(&faults);
}

// How the source is read.

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_this_file(path: &str) -> bool {
    path == "tests/tidy.rs"
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Rust files below a directory: path from the project's root, and text.
fn sources(directory: &str) -> BTreeMap<String, String> {
    let files = files_below(&project().join(directory));
    let sources: BTreeMap<_, _> = files
        .into_iter()
        .filter(|path| has_ending(path, ".rs"))
        .map(|path| (path.clone(), read(&project().join(path))))
        .collect();
    assert!(!sources.is_empty(), "no Rust file in {directory}");
    sources
}

/// The code of all packages.
fn code() -> BTreeMap<String, String> {
    let mut all = sources("src");
    all.extend(sources("crates").into_iter().filter(|(path, _)| path.contains("/src/")));
    all
}

/// The tests of all packages.
fn tests() -> BTreeMap<String, String> {
    let mut all = sources("tests");
    all.extend(sources("crates").into_iter().filter(|(path, _)| path.contains("/tests/")));
    all
}

/// Our own documents.
fn documents() -> BTreeMap<String, String> {
    tracked().into_iter().filter(|(path, _)| has_ending(path, ".md")).collect()
}

/// Text files that are ours: not built, not downloaded, not another's.
fn tracked() -> BTreeMap<String, String> {
    let files = files_below(project()).into_iter().filter(|path| path != "Cargo.lock");
    files.filter_map(|path| Some((path.clone(), fs::read_to_string(project().join(path)).ok()?))).collect()
}

fn files_below(directory: &Path) -> Vec<String> {
    const NOT_OURS: [&str; 3] = ["node_modules", ".git", ".lanekeeper"];
    // Cargo's target folder, whatever it is called, and a virtual environment of Python.
    const MARKS: [&str; 2] = ["CACHEDIR.TAG", "pyvenv.cfg"];
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path: PathBuf = entry.expect("the directory can be read").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("our files have plain names")
                .to_owned();
            let top = path.parent() == Some(project());
            if path.is_dir() {
                let marked = MARKS.iter().any(|mark| path.join(mark).exists());
                if !(marked || top && NOT_OURS.contains(&name.as_str())) {
                    directories.push(path);
                }
            } else if path.is_file() && name != ".git" {
                let below = path.strip_prefix(project()).expect("below the project's root");
                files.push(below.to_str().expect("plain names").to_owned());
            }
        }
    }
    files
}

/// Our file names are in lower case.
fn has_ending(path: &str, ending: &str) -> bool {
    path.ends_with(ending)
}

/// Lines with their numbers, without comments. (A `//` in a string cuts the line: what is looked for stands before.)
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &'_ str| line.find("//").unwrap_or(line.len());
    text.lines().enumerate().map(move |(index, line)| (index + 1, &line[..code(line)]))
}

/// What follows each occurrence.
fn after_each<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(what).map(move |(at, _)| &text[at + what.len()..])
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn word_at(text: &str) -> &str {
    &text[..text.find(|c| !is_of_word(c)).unwrap_or(text.len())]
}

/// Identifiers and other words, with where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].find(is_of_word)?;
        let word = word_at(&text[at..]);
        let begin = at;
        at += word.len();
        Some((begin, word))
    })
}

/// Targets of `[text](target)`, outside of fenced blocks.
fn links(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut links = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            links.extend(after_each(line, "](").filter_map(|rest| rest.split(')').next()));
        }
    }
    links
}

/// A link `../b.md` in a page of `docs` leads to `b.md`.
fn beside(document: &str, link: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
