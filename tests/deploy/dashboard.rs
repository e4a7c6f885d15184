//! The dashboard of `deploy/grafana` is one that Grafana takes, its panels do not overlap, and each says what to do. Its
//! queries run in `tests/it/dashboard.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::anchors::anchors;
use crate::{MANUAL, read, words};

const DASHBOARD: &str = "deploy/grafana/lanekeeper.json";
/// What Grafana has without a plugin.
const PANELS: [&str; 5] = ["row", "stat", "table", "timeseries", "state-timeline"];
/// What the links begin with. `sed` puts the address of a copy of the project in its place.
const MANUAL_LINK: &str = "(${docs}/docs/operating.md#";
/// Columns of a dashboard.
const WIDTH: u64 = 24;

#[test]
fn its_panels_are_those_of_grafana_and_each_has_an_id_of_its_own() {
    let mut ids = BTreeSet::new();
    for panel in panels() {
        let title = text(&panel["title"]);
        assert!(ids.insert(number(&panel["id"])), "{title}: its id is there twice");
        assert!(PANELS.contains(&text(&panel["type"])), "{title}: {}", panel["type"]);
    }
}

#[test]
fn its_panels_do_not_overlap_and_leave_no_room_between_rows() {
    let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for panel in panels() {
        let (title, place) = (text(&panel["title"]), &panel["gridPos"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(&place[side]));
        assert!(w > 0 && h > 0 && x + w <= WIDTH, "{title}: {place}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, title.to_owned()) {
                panic!("{title} and {other} overlap at {cell:?}");
            }
        }
    }
    let lines: BTreeSet<u64> = taken.keys().map(|(_, y)| *y).collect();
    assert_eq!(lines.len() as u64, lines.last().expect("there are panels") + 1, "an empty line");
}

#[test]
fn every_query_goes_to_the_prometheus_that_is_chosen() {
    for panel in panels() {
        let title = text(&panel["title"]);
        if panel["type"] == "row" {
            assert!(list(&panel["panels"]).is_empty(), "{title}: panels within a row are not looked at here");
            continue;
        }
        let targets = list(&panel["targets"]);
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for source in targets.iter().chain([panel]).map(|asking| &asking["datasource"]) {
            assert_eq!(
                (text(&source["type"]), text(&source["uid"])),
                ("prometheus", "${datasource}"),
                "{title}"
            );
        }
        let names: BTreeSet<&str> = targets.iter().map(|target| text(&target["refId"])).collect();
        assert_eq!(names.len(), targets.len(), "{title}: a refId is there twice");
    }
}

#[test]
fn each_panel_says_what_to_do_and_where_the_manual_says_more() {
    let anchors = anchors(&read(MANUAL));
    for panel in panels().iter().filter(|panel| panel["type"] != "row") {
        let (title, description) = (text(&panel["title"]), text(&panel["description"]));
        let (says, link) = description.split_once("\n\n[").unwrap_or_else(|| panic!("{title} has no link"));
        assert!(says.ends_with('.') && says.len() > 20, "{title}: {says}");
        let (_, rest) = link.split_once(MANUAL_LINK).unwrap_or_else(|| panic!("{title}: {link}"));
        let anchor = rest.trim_end_matches(')');
        assert!(anchors.contains(anchor), "{title}: {MANUAL} has no heading #{anchor}");
    }
}

/// The metrics that the manual lists are those of the code, by a test beside the code.
#[test]
fn it_shows_every_metric_of_the_manual_and_no_other() {
    let listed: BTreeSet<String> =
        words(&read(MANUAL)).into_iter().filter(|word| word.starts_with("lanekeeper_")).collect();
    let dashboard = dashboard();
    let expressions = panels_of(&dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked: BTreeSet<String> = expressions
        .flat_map(|target| words(text(&target["expr"])))
        .filter(|word| word.starts_with("lanekeeper_"))
        .map(|word| word.strip_suffix("_bucket").map_or(word.clone(), str::to_owned))
        .collect();
    assert_eq!(asked, listed, "{DASHBOARD} and {MANUAL}");
}

/// What stands for the address of the manual stands for it in every place where `sed` has to replace it.
#[test]
fn the_manual_tells_how_to_put_the_address_of_a_copy_into_it() {
    let dashboard = dashboard();
    let variables = list(&dashboard["templating"]["list"]);
    let docs = variables.iter().find(|variable| variable["name"] == "docs").expect("it has the variable");
    let placeholder = text(&docs["query"]);
    assert_eq!(text(&docs["current"]["value"]), placeholder);
    assert_eq!(text(&docs["options"][0]["value"]), placeholder);
    assert!(read(MANUAL).contains(&format!("sed 's|{placeholder}|")), "{MANUAL}: {placeholder}");
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap_or_else(|error| panic!("{DASHBOARD}: {error}"))
}

fn panels() -> &'static [Value] {
    static DASHBOARD: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    panels_of(DASHBOARD.get_or_init(dashboard))
}

fn panels_of(dashboard: &Value) -> &[Value] {
    list(&dashboard["panels"])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a whole number: {value}"))
}
