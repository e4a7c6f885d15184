//! The fields of a query or a form: few, each once, and UTF-8.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode;

use super::problem::{AdminProblem, ProblemCode};

/// More than the largest form has.
const FIELDS_MAX: usize = 32;

/// Fields with their values, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses `a=b&c=d`, as browsers send it (`application/x-www-form-urlencoded`).
    pub(super) fn parse(text: &str) -> Result<Self, AdminProblem> {
        let invalid = |why: &str| AdminProblem::new(ProblemCode::InvalidRequest, why);
        let mut fields: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                let spaced = text.replace('+', " ");
                let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
                decoded.map(Cow::into_owned).map_err(|_| invalid("a field is not UTF-8"))
            };
            let (name, value) = (decoded(name)?, decoded(value)?);
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(invalid("a field comes twice"));
            }
            if fields.len() == FIELDS_MAX {
                return Err(invalid("there are too many fields"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// These ones, decoded already.
    pub(super) fn of(fields: BTreeMap<String, String>) -> Result<Self, AdminProblem> {
        if fields.len() > FIELDS_MAX {
            return Err(AdminProblem::new(ProblemCode::InvalidRequest, "there are too many fields"));
        }
        Ok(Self(fields.into_iter().collect()))
    }

    /// The value; `None`: there is no such field, or it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|it| !it.is_empty())
    }

    /// The value of a field that there must be.
    pub(super) fn require(&self, name: &str) -> Result<&str, AdminProblem> {
        self.get(name).ok_or_else(|| {
            AdminProblem::new(ProblemCode::InvalidRequest, format!("the field `{name}` is missing or empty"))
        })
    }
}

/// The fields of a request's query.
pub(super) struct QueryFields(pub(super) Fields);

impl<S: Send + Sync> FromRequestParts<S> for QueryFields {
    type Rejection = AdminProblem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminProblem> {
        Fields::parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_decoded_once() {
        let fields = Fields::parse("key=a%2Fb%2e%25%20c+d&empty=&flag&%C3%BC=%F0%9F%8C%8D&&").unwrap();
        let check = |name, expected| assert_eq!(fields.get(name), expected, "{name}");
        check("key", Some("a/b.% c d"));
        check("empty", None);
        check("flag", None);
        check("ü", Some("🌍"));
        check("gone", None);
        assert_eq!(fields.require("key").unwrap(), "a/b.% c d");
        assert!(fields.require("gone").unwrap_err().detail().contains("`gone`"));
    }

    #[test]
    fn what_is_unclear_is_refused() {
        for text in ["a=1&a=2", "a=%FF", "%c0%ae=1"] {
            assert_eq!(Fields::parse(text).unwrap_err().code(), ProblemCode::InvalidRequest, "{text}");
        }
        let many: Vec<String> = (0..=FIELDS_MAX).map(|number| format!("f{number}=1")).collect();
        assert!(Fields::parse(&many.join("&")).is_err());
        assert!(Fields::parse(&many[1..].join("&")).is_ok());
    }
}
