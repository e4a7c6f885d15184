//! The keys of `[[target.on]]`: what requests of some types have instead of the target's own.

use std::collections::BTreeSet;

use super::fault::Problem;
use super::reader::{Section, Shape};
use super::target;
use lanekeeper_core::routes::TypePattern;
use lanekeeper_core::secret::Secret;
use lanekeeper_core::template::UrlTemplate;

/// What the requests of some types have; `None`: what the target has.
#[derive(Clone, Debug, PartialEq)]
pub struct OnConfig {
    /// The types that it is for. Of the rows that match a type, the first counts.
    pub types: Vec<TypePattern>,
    /// HTTP method, upper case.
    pub method: Option<String>,
    /// URL of requests.
    pub url: Option<UrlTemplate>,
    /// Sent in addition to the target's own headers; they replace those with the same names.
    pub headers: Vec<(String, Secret)>,
}

/// Reads all rows; `None`: a fault was noted. `idempotency_header`: of the target.
pub fn read(section: &mut Section<'_, '_>, idempotency_header: Option<&str>) -> Option<Vec<OnConfig>> {
    let count = section.count("on")?;
    let rows: Vec<Option<OnConfig>> =
        (0..count).map(|index| read_one(section.element("on", index), idempotency_header)).collect();
    rows.into_iter().collect()
}

fn read_one(mut section: Section<'_, '_>, idempotency_header: Option<&str>) -> Option<OnConfig> {
    let types = section.each("types", Shape::List, |_, raw| target::type_pattern(raw));
    if types.as_ref().is_some_and(Vec::is_empty) {
        let what = "is empty: the row would be for no update";
        section.fault("types", Problem::new(what, "write types = [\"customer.created\"], or remove the row"));
    }
    let method = section.read_if_set("method", target::method);
    let url = section.read_if_set("url", target::url);
    let is_sound = method.is_some() == section.has("method") && url.is_some() == section.has("url");
    let mut taken: BTreeSet<String> = idempotency_header.map(str::to_ascii_lowercase).into_iter().collect();
    let headers = section.each("headers", Shape::Table, |name, raw| target::header(name, raw, &mut taken));
    section.finish();
    let row = OnConfig { types: types?, method, url, headers: headers? };
    is_sound.then_some(row)
}
