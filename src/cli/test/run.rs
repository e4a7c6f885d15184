//! Runs one case.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use lanekeeper_core::outcome::OutcomeKind;
use lanekeeper_core::routes::TargetId;

use super::case::{Case, CaseAnswer, CaseUpdate, ExpectedRequest};
use super::compare;
use crate::cli::rehearsal::{self, Rehearsal, shown};
use crate::http::preview::Preview;

/// What is other than the case expects; empty: it holds.
pub(super) fn differences(rehearsal: &Rehearsal, case: &Case) -> Vec<String> {
    let line = match &case.update {
        CaseUpdate::Text(line) => line.clone(),
        CaseUpdate::Table(members) => serde_json::to_string(members).expect("what was read can be written"),
    };
    let rejected = |why: &str| match &case.rejected {
        Some(part) if why.contains(part.as_str()) => Vec::new(),
        Some(part) => vec![format!("it is rejected for another reason\n  - {part}\n  + {why}\n")],
        None => vec![format!("it cannot be sent: {why}\n")],
    };
    let update = match rehearsal.update(line.as_bytes()) {
        Ok(update) => update,
        Err(why) => return rejected(&why),
    };
    let target = update.target;
    let preview = rehearsal.previews.request(&rehearsal::attempt(update, case.attempt, case.etag.clone()));
    let preview = match preview {
        Ok(preview) => preview,
        Err(why) => return rejected(&why),
    };
    let Some(expected) = &case.request else {
        let text = rehearsal::as_text(&preview);
        return vec![format!("it is not rejected, but sent:\n{text}")];
    };
    let mut differences = of_request(expected, rehearsal.previews.name(target), &preview);
    for (index, answer) in case.answers.iter().enumerate() {
        differences.extend(of_answer(rehearsal, target, answer, index + 1));
    }
    differences
}

fn of_request(expected: &ExpectedRequest, target: &str, preview: &Preview) -> Vec<String> {
    let request = &preview.request;
    let mut differences = Vec::new();
    let compared = [
        ("target", &expected.target, target.to_owned()),
        ("method", &expected.method, request.method().to_string()),
    ];
    for (what, expected, found) in compared {
        differences.extend(expected.as_ref().and_then(|expected| compare::text(what, expected, &found)));
    }
    let url = request.uri().to_string();
    if let Some(expected) = expected.url.as_ref().filter(|expected| **expected != url) {
        // It shows no more of a secret than the file of the case does, which may have *** instead.
        differences.extend(compare::text("url", expected, &preview.shown_url));
    }
    for (name, value) in &expected.headers {
        let what = format!("header {name}");
        match request.headers().get(name.as_str()) {
            None => differences.push(format!("{what} is missing\n")),
            Some(found) if found.as_bytes() == value.as_bytes() => {}
            Some(found) if found.is_sensitive() => {
                differences
                    .push(format!("{what} has another value, which is not shown since it may be secret\n"));
            }
            Some(found) => differences.extend(compare::text(&what, value, shown(found))),
        }
    }
    for name in &expected.headers_absent {
        if let Some(found) = request.headers().get(name.as_str()) {
            differences.push(format!("header {name} is there: {}\n", shown(found)));
        }
    }
    if let Some(body) = &expected.body {
        differences.extend(compare::json("body", body, request.body()));
    }
    if let Some(body) = &expected.body_text {
        let found = String::from_utf8_lossy(request.body());
        differences.extend(compare::text("body", body, &found));
    }
    differences
}

fn of_answer(rehearsal: &Rehearsal, target: TargetId, answer: &CaseAnswer, number: usize) -> Option<String> {
    let what = format!("answer {number} (status {})", answer.status);
    let kinds = OutcomeKind::ALL.map(OutcomeKind::name);
    if !kinds.contains(&answer.outcome.as_str()) {
        return Some(format!(
            "{what}: {:?} is no outcome; write one of {}\n",
            answer.outcome,
            kinds.join(", ")
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => return Some(format!("{what}: the header {name:?} is not valid in HTTP\n")),
        }
    }
    let body = match (&answer.body, &answer.body_text) {
        (Some(json), _) => json.to_string(),
        (None, Some(text)) => text.clone(),
        (None, None) => String::new(),
    };
    let outcome = rehearsal.previews.judge(target, answer.status, &headers, body.as_bytes());
    let found = match outcome.failure() {
        Some(failure) => format!("{} ({failure})", outcome.kind().name()),
        None => outcome.kind().name().to_owned(),
    };
    (outcome.kind().name() != answer.outcome)
        .then(|| format!("{what} means something else\n  - {}\n  + {found}\n", answer.outcome))
}
