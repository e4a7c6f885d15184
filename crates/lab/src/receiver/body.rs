//! The members of a body that the receiver reads: sequence, number to add, time of publishing.

use serde::Deserialize;
use serde_json::{Value, json};

/// Members of the outermost object. All are `None` if the body is not valid, is no JSON object, or has one of them twice.
/// The rest of the body is skipped, and takes no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BodyMembers {
    /// The integer member `sequence`, at least 1.
    pub(super) sequence: Option<u64>,
    /// The integer member `add`: it is added to the record's total, whatever that is.
    pub(super) add: Option<i64>,
    /// The integer member `sent_us`: when it was published, in microseconds since 1970.
    pub(super) sent_us: Option<u64>,
}

#[derive(Deserialize)]
struct BodyFields {
    sequence: Option<Value>,
    add: Option<Value>,
    sent_us: Option<Value>,
}

impl BodyMembers {
    pub(super) fn of(body: &[u8]) -> Self {
        // serde would also fill the struct from an array.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Self::default();
        }
        let Ok(written) = serde_json::from_slice::<BodyFields>(body) else { return Self::default() };
        let sequence = written.sequence.and_then(|sequence| sequence.as_u64());
        Self {
            sequence: sequence.filter(|sequence| *sequence > 0),
            add: written.add.and_then(|add| add.as_i64()),
            sent_us: written.sent_us.and_then(|sent| sent.as_u64()),
        }
    }

    /// The value of a record after such an update; `None`: the body itself is the value.
    pub(super) fn sum(&self, before: &[u8]) -> Option<Vec<u8>> {
        let total = total_of(before).saturating_add(self.add?);
        let value = match self.sequence {
            Some(sequence) => json!({ "sequence": sequence, "total": total }),
            None => json!({ "total": total }),
        };
        Some(value.to_string().into_bytes())
    }
}

/// The integer member `total` of a value; zero if it has none.
fn total_of(value: &[u8]) -> i64 {
    let value: Value = serde_json::from_slice(value).unwrap_or_default();
    value.get("total").and_then(Value::as_i64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_an_integer_member_of_the_outermost_object() {
        let check = |body: &str, expected: Option<u64>| {
            assert_eq!(BodyMembers::of(body.as_bytes()).sequence, expected, "{body}");
        };
        check(r#"{"sequence":7}"#, Some(7));
        check(" \n{ \"name\" : \"}{\\\"sequence\\\":1\", \"sequence\" : 12 , \"x\": [{}] } ", Some(12));
        check(r#"{"\u0073equence":3}"#, Some(3));
        check(r#"{"inner":{"sequence":5},"sequence":6}"#, Some(6));
        check(r#"{"inner":{"sequence":5}}"#, None);
        check(r#"[{"sequence":5}]"#, None);
        check("[5]", None);
        check(r#"{"sequence":"5"}"#, None);
        check(r#"{"sequence":5.0}"#, None);
        check(r#"{"sequence":-5}"#, None);
        check(r#"{"sequence":0}"#, None);
        check(r#"{"sequence":1,"sequence":2}"#, None);
        check(r#"{"sequence":1"#, None);
        check(r#"{"sequence":18446744073709551615}"#, Some(u64::MAX));
        check(r#"{"sequence":18446744073709551616}"#, None);
        check("", None);
        check("\u{feff}{}", None);
    }

    #[test]
    fn what_is_added_goes_to_the_total_of_the_value_before() {
        let check = |before: &str, body: &str, expected: Option<&str>| {
            let sum = BodyMembers::of(body.as_bytes()).sum(before.as_bytes());
            assert_eq!(sum.as_deref(), expected.map(str::as_bytes), "{before} {body}");
        };
        check("", r#"{"add":5}"#, Some(r#"{"total":5}"#));
        check(r#"{"total":5}"#, r#"{"add":-7}"#, Some(r#"{"total":-2}"#));
        check(r#"{"total":1}"#, r#"{"add":1,"sequence":2}"#, Some(r#"{"sequence":2,"total":2}"#));
        check(r#"{"total":9223372036854775807}"#, r#"{"add":1}"#, Some(r#"{"total":9223372036854775807}"#));
        check("[]", r#"{"add":5}"#, Some(r#"{"total":5}"#));
        check(r#"{"total":1}"#, r#"{"total":5}"#, None);
        check(r#"{"total":1}"#, r#"{"add":"5"}"#, None);
    }
}
