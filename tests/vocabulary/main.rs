//! The code has none of the names that it had before its vocabulary was the field's (docs/glossary.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A word, then the folders (they end in a slash) and files in which it is not to be used; without any: everywhere.
const OLD_IDENTIFIERS: &str = include_str!("old-identifiers.txt");

#[test]
fn no_old_identifier_is_used() {
    let mut old: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in OLD_IDENTIFIERS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(word) = words.next() else { continue };
        old.insert(word, words.collect());
    }
    assert!(old.len() > 200, "the list is read: {}", old.len());
    let mut faults = Vec::new();
    let mut files = 0;
    for path in sources() {
        let text = fs::read_to_string(project().join(&path)).expect("a source is text");
        files += 1;
        for (index, line) in code(&text).lines().enumerate() {
            for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let forbidden = old.get(word).is_some_and(|scopes| {
                    scopes.is_empty() || scopes.iter().any(|scope| path.starts_with(scope))
                });
                if forbidden {
                    faults.push(format!("{path}:{}: {word}", index + 1));
                }
            }
        }
    }
    assert!(files > 300, "the sources are found: {files}");
    assert!(faults.is_empty(), "old names, see tests/vocabulary/old-identifiers.txt:\n{}", faults.join("\n"));
}

#[test]
fn comments_and_strings_are_no_code() {
    let check = |text: &str, expected: &str| assert_eq!(code(text), expected, "{text:?}");
    check("a // told\nb", "a \nb");
    check("a /* told /* told */ told */ b", "a  b");
    check(r#"say("told \" told", 'x', '"', b)"#, "say(, , , b)");
    check("r#\"told \" told\"# a", " a");
    check("fn f<'told>(x: &'a str)", "fn f<'told>(x: &'a str)");
    check("\"a\nb\" c", "\n c");
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files of all packages, from the project's root.
fn sources() -> Vec<String> {
    let mut directories: Vec<PathBuf> = ["src", "crates", "tests", "examples"].map(PathBuf::from).into();
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(project().join(&directory)).expect("a folder can be read") {
            let entry = entry.expect("an entry can be read");
            let path = directory.join(entry.file_name());
            if entry.path().is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.to_str().expect("our paths are UTF-8").to_owned());
            }
        }
    }
    files
}

/// The text without comments, strings and characters. Lines stay lines.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest));
        let end = skipped.unwrap_or(c.len_utf8());
        match skipped {
            Some(_) => kept.extend(rest[..end].chars().filter(|c| *c == '\n')),
            None => kept.push(c),
        }
        rest = &rest[end..];
    }
    kept
}

/// How long the comment is with which the text begins.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut depth = 0;
    let mut at = 0;
    while text.get(at..).is_some_and(|rest| !rest.is_empty()) {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if depth > 0 && rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else if depth == 0 {
            return None;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// How long the string or character is with which the text begins.
fn literal(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let marks = raw.len() - raw.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(marks));
        let body = raw[marks..].strip_prefix('"')?;
        return body.find(&end).map(|at| 1 + marks + 1 + at + end.len());
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    // A lifetime has no second quote behind its first character.
    let is_character = || text[1..].starts_with('\\') || text[1..].chars().nth(1) == Some('\'');
    if quote == '\'' && !is_character() {
        return None;
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}
