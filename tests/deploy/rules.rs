//! The alert rules of `deploy/prometheus` are valid, each has been seen firing and not firing, and each says what to do.

use std::collections::BTreeSet;
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

use crate::anchors::anchors;
use crate::{MANUAL, is_of_word, project, read, words};

const RULES: &str = "deploy/prometheus/lanekeeper.rules.yml";
const SITUATIONS: &str = "deploy/prometheus/lanekeeper.rules.test.yml";

/// A metric of Prometheus itself about each process that it scrapes.
const UP: &str = "up";

#[test]
fn the_rules_are_valid() {
    promtool(&["check", "rules", "--lint-fatal", RULES]);
}

#[test]
fn each_alert_fires_in_its_situation_and_in_no_other() {
    promtool(&["test", "rules", SITUATIONS]);
}

#[test]
fn each_alert_is_seen_firing_and_not_firing_in_situations_of_its_own() {
    let situations = yaml(SITUATIONS);
    for alert in alerts() {
        let name = text(&alert["alert"]);
        let label = format!("alertname=\"{name}\"");
        let own = list(&situations["tests"]).iter().filter(|group| text(&group["name"]) == name);
        let fires: Vec<bool> = own
            .flat_map(|group| list(&group["promql_expr_test"]))
            .map(|question| {
                let expected = question["exp_samples"].as_vec().map(Vec::as_slice).unwrap_or_default();
                expected.iter().any(|sample| text(&sample["labels"]).contains(&label))
            })
            .collect();
        assert!(fires.contains(&true), "{SITUATIONS}: {name} never fires in groups of this name");
        assert!(fires.contains(&false), "{SITUATIONS}: {name} always fires in groups of this name");
    }
}

#[test]
fn each_alert_says_who_must_act_and_what_is_to_be_done() {
    let anchors = anchors(&read(MANUAL));
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(name.starts_with("Lanekeeper"), "{name}");
        assert!(alert["for"].as_str().is_some(), "{name} does not say for how long");
        let severity = text(&alert["labels"]["severity"]);
        assert!(["page", "ticket"].contains(&severity), "{name}: severity {severity}");
        let annotations = &alert["annotations"];
        assert!(!text(&annotations["summary"]).ends_with('.'), "{name}: a summary is no sentence");
        assert!(text(&annotations["description"]).ends_with('.'), "{name}: a description is sentences");
        let runbook = text(&annotations["runbook_url"]);
        let (page, anchor) = runbook.split_once('#').expect("a section");
        assert_eq!(page, MANUAL, "{name}");
        assert!(anchors.contains(anchor), "{name}: {MANUAL} has no heading #{anchor}");
    }
}

#[test]
fn the_manual_lists_each_alert_and_no_other() {
    let alerts: BTreeSet<String> = alerts().iter().map(|alert| text(&alert["alert"]).to_owned()).collect();
    let mut listed = words(&read(MANUAL));
    listed.retain(|word| word.starts_with("Lanekeeper") && word != "Lanekeeper");
    assert_eq!(listed, alerts, "{MANUAL}");
}

/// The metrics that the manual lists are those of the code, by a test beside the code.
#[test]
fn rules_and_situations_use_metrics_that_exist() {
    let listed = words(&read(MANUAL));
    for alert in alerts() {
        let name = text(&alert["alert"]);
        let used = words(text(&alert["expr"]));
        let asks = used.iter().any(|word| word == UP || word.starts_with("lanekeeper_"));
        assert!(asks, "{name} asks for no metric of ours");
    }
    for file in [RULES, SITUATIONS] {
        for metric in words(&read(file)).iter().filter(|word| word.starts_with("lanekeeper_")) {
            assert!(listed.contains(metric), "{file}: {MANUAL} has no metric {metric}");
        }
    }
}

#[test]
fn a_counter_is_looked_at_only_for_how_it_grows() {
    for alert in alerts() {
        let expr: String = text(&alert["expr"]).split_whitespace().collect::<Vec<_>>().join(" ");
        let (name, mut from) = (text(&alert["alert"]), 0);
        while let Some(at) = expr[from..].find("_total") {
            let end = from + at;
            let begin = expr[..end].rfind(|c: char| !is_of_word(c)).map_or(0, |before| before + 1);
            from = end + "_total".len();
            let grows = expr[..begin].ends_with("rate(") || expr[..begin].ends_with("increase(");
            // Series that were absent before have grown since then; both sides of `unless` are that counter.
            let is_new = expr[..begin].ends_with("unless ") || {
                let rest = expr[from..].trim_start_matches(|c| c != ' ' && c != ')');
                rest.starts_with(" unless lanekeeper_")
            };
            assert!(grows || is_new, "{name}: …{}", &expr[begin..]);
        }
    }
}

fn alerts() -> Vec<Yaml> {
    let rules = yaml(RULES);
    let alerts: Vec<Yaml> =
        list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect();
    assert!(!alerts.is_empty());
    alerts
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(project())
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}. scripts/test installs it, with Prometheus"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

fn yaml(path: &str) -> Yaml {
    let mut documents =
        YamlLoader::load_from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

fn list(value: &Yaml) -> &[Yaml] {
    value.as_vec().unwrap_or_else(|| panic!("not a list: {value:?}"))
}

fn text(value: &Yaml) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value:?}"))
}
