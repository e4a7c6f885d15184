//! The cases of a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    #[serde(rename = "case", default)]
    pub(super) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) update: CaseUpdate,
    #[serde(default = "first")]
    pub(super) attempt: u32,
    pub(super) etag: Option<String>,
    pub(super) request: Option<ExpectedRequest>,
    /// A part of the reason for which the update cannot be sent.
    pub(super) rejected: Option<String>,
    #[serde(rename = "answer", default)]
    pub(super) answers: Vec<CaseAnswer>,
}

fn first() -> u32 {
    1
}

/// As a line of `lanekeeper publish`, or its members.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a table with the members of a line, or the line as a string")]
pub(super) enum CaseUpdate {
    Text(String),
    Table(BTreeMap<String, Json>),
}

/// What must be sent. What is left out is not compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedRequest {
    pub(super) target: Option<String>,
    pub(super) method: Option<String>,
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) headers_absent: Vec<String>,
    pub(super) body: Option<Json>,
    pub(super) body_text: Option<String>,
}

/// An answer, and what it means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseAnswer {
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Option<Json>,
    pub(super) body_text: Option<String>,
    pub(super) outcome: String,
}

/// Reads a file.
///
/// # Errors
/// In words: it cannot be read, or is no file of cases.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<TestFile, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_string(&mut text));
    let bytes = read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes as u64 > bytes_max {
        return Err(format!("has more than {bytes_max} bytes: split it"));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<TestFile, String> {
    let file: TestFile = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    if file.cases.is_empty() {
        return Err("has no [[case]]; `lanekeeper test --help` has the format".to_owned());
    }
    for case in &file.cases {
        let fault = if case.request.is_some() == case.rejected.is_some() {
            "needs either `request` or `rejected`"
        } else if case.rejected.is_some() && !case.answers.is_empty() {
            "has an answer, but is rejected before it is sent"
        } else if case
            .request
            .as_ref()
            .is_some_and(|request| request.body.is_some() && request.body_text.is_some())
            || case.answers.iter().any(|answer| answer.body.is_some() && answer.body_text.is_some())
        {
            "has body and body_text: write one of them"
        } else {
            continue;
        };
        return Err(format!("the case {:?} {fault}", case.name));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_file_are_named() {
        let check = |text: &str, part: &str| {
            let fault = parse(text).expect_err(text);
            assert!(fault.contains(part), "{part:?} in {fault}");
        };
        check("", "has no [[case]]");
        check("[[case]]\nname = \"a\"", "update");
        let case = "[[case]]\nname = \"a\"\nupdate = { key = \"1\" }\n";
        check(case, "needs either");
        check(&format!("{case}request.verb = \"PUT\""), "verb");
        check(&format!("{case}rejected = \"x\"\nrequest = {{}}"), "needs either");
        check(&format!("{case}request = {{ body = 1, body_text = \"1\" }}"), "write one of them");
        check(
            &format!("{case}rejected = \"x\"\n[[case.answer]]\nstatus = 200\noutcome = \"applied\""),
            "before it is sent",
        );
        check(&format!("{case}update = 1"), "duplicate key");
        assert_eq!(parse(&format!("{case}request = {{}}")).map(|file| file.cases.len()), Ok(1));
    }
}
