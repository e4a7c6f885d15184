//! The keys of `[[target.on]]`: what requests of some types have instead of the target's own.

use std::collections::BTreeSet;

use super::fault::Problem;
use super::reader::{Section, Shape};
use super::target;
use super::templates::{self, TemplatesConfig};
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
    /// `url` as it may be shown.
    pub url_shown: Option<String>,
    /// Sent in addition to the target's own headers; they replace those with the same names.
    pub headers: Vec<(String, Secret)>,
    /// Headers and values of the query that are added and replace those with the same names, and the body.
    pub templates: TemplatesConfig,
}

/// Reads all rows; `None`: a fault was noted. `reserved`: headers in lower case that other keys of the target set; `headers`: of
/// the target.
pub fn read(
    section: &mut Section<'_, '_>,
    reserved: &BTreeSet<String>,
    headers: &[(String, Secret)],
) -> Option<Vec<OnConfig>> {
    let count = section.count("on")?;
    let rows: Vec<Option<OnConfig>> =
        (0..count).map(|index| read_one(section.element("on", index), reserved, headers)).collect();
    rows.into_iter().collect()
}

fn read_one(
    mut section: Section<'_, '_>,
    reserved: &BTreeSet<String>,
    of_target: &[(String, Secret)],
) -> Option<OnConfig> {
    let types = section.each("types", Shape::List, |_, raw| target::type_pattern(raw));
    if types.as_ref().is_some_and(Vec::is_empty) {
        let what = "is empty: the row would be for no update";
        section.fault("types", Problem::new(what, "write types = [\"customer.created\"], or remove the row"));
    }
    let method = section.read_if_set("method", target::method);
    let url = section.read_if_set("url", target::url);
    let url_shown = url.is_some().then(|| section.shown("url"));
    let is_sound = method.is_some() == section.has("method") && url.is_some() == section.has("url");
    let sent = templates::read(&mut section, reserved.clone(), Some(of_target));
    section.finish();
    let (headers, templates) = sent?;
    let row = OnConfig { types: types?, method, url, url_shown, headers, templates };
    is_sound.then_some(row)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Environment, Purpose, TARGET_EXAMPLE};

    fn read(text: &str) -> Config {
        let file = Some((Path::new("lk.toml"), text));
        super::super::read(file, &Environment::default(), Purpose::Dispatch).unwrap().config
    }

    #[test]
    fn rows_for_types_that_never_come_are_warned_of() {
        let warnings_of = |text: &str| super::super::warnings(&read(text));
        let row = |types: &str| format!("[[target.on]]\ntypes = {types}\nmethod = \"POST\"\n");
        let crm = TARGET_EXAMPLE.replace("\"*\"", "\"customer.*\", \"order.paid\"");
        let sound = row("[\"customer.created\"]") + &row("[\"customer.*\", \"order.*\"]");
        assert_eq!(warnings_of(&format!("{crm}\n{sound}")), Vec::<String>::new());
        let unused = row("[\"customer.*\"]") + &row("[\"customer.deleted\", \"invoice.paid\"]");
        let found = warnings_of(&format!("{crm}\n{unused}"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("on[1]") && found[0].contains("on[0] comes first"), "{found:?}");
        assert!(found[1].contains("\"invoice.paid\": the target's types do not have it"), "{found:?}");
        let second = TARGET_EXAMPLE.replace("\"crm\"", "\"rest\"");
        let found = warnings_of(&format!("{crm}\n{second}\n{}", row("[\"customer.created\"]")));
        assert!(found.len() == 1 && found[0].contains("target \"crm\" comes first"), "{found:?}");
    }

    #[test]
    fn a_row_replaces_headers_of_the_target_and_none_that_are_made_for_each_request() {
        let check = |keys: &str, header: &str, fault: Option<&str>| {
            let row = format!("[[target.on]]\ntypes = [\"a\"]\nheaders = {{ {header} = \"x\" }}\n");
            let text = format!("{TARGET_EXAMPLE}\n{keys}\n{row}");
            let read = super::super::read(
                Some((Path::new("lk.toml"), &text)),
                &Environment::default(),
                Purpose::Dispatch,
            );
            match (read, fault) {
                (Ok(_), None) => {}
                (Err(faults), Some(key)) => assert!(faults.to_string().contains(key), "{faults}"),
                (read, _) => panic!("{text}: {:?}", read.map(|_| ())),
            }
        };
        check("headers = { x-a = \"1\" }", "X-A", None);
        check("", "Idempotency-Key", Some("target[0].on[0].headers.Idempotency-Key"));
        check(
            "[target.auth]\nbearer = \"t\"",
            "Authorization",
            Some("target[0].on[0].headers.Authorization"),
        );
        check(
            "[target.auth.header]\nname = \"x-api-key\"\nvalue = \"t\"",
            "x-api-key",
            Some("[target.auth] or"),
        );
        let hmac =
            "[target.signature.hmac]\nheader = \"x-sig\"\nsecret = \"a-secret-of-32-bytes-or-more-0000\"";
        check(hmac, "x-sig", Some("[target.auth] or"));
        check(hmac, "x-other", None);
    }
}
