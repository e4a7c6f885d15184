//! Differences for people.

use std::fmt::Write as _;

use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

/// A line of a difference of texts is cut to this many characters.
const LINE_CHARS_MAX: usize = 400;

/// `what` is another than expected; `None`: it is the same.
pub(super) fn text(what: &str, expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut lines = format!("{what} differs (-: expected, +: found)\n");
    for change in TextDiff::from_lines(expected, found).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        let value: String = change.value().trim_end_matches('\n').chars().take(LINE_CHARS_MAX).collect();
        let _ = writeln!(lines, "  {sign} {value}");
    }
    Some(lines)
}

/// As [`text`], for JSON: the order of members and white space do not count.
pub(super) fn json(what: &str, expected: &Json, found: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Json>(found) {
        Ok(found) if found == *expected => None,
        Ok(found) => text(what, &format!("{expected:#}"), &format!("{found:#}")),
        Err(error) => Some(format!("{what} is not JSON ({error}): {}\n", String::from_utf8_lossy(found))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_shows_the_lines() {
        assert_eq!(text("method", "PUT", "PUT"), None);
        insta::assert_snapshot!(text("method", "PUT", "POST").unwrap(), @r"
        method differs (-: expected, +: found)
          - PUT
          + POST
        ");
        assert_eq!(json("body", &json!({"a": 1, "b": 2}), b"{\"b\":2, \"a\":1}"), None);
        insta::assert_snapshot!(json("body", &json!({"a": 1, "b": 2}), b"{\"a\":1,\"b\":3}").unwrap(), @r#"
        body differs (-: expected, +: found)
            {
              "a": 1,
          -   "b": 2
          +   "b": 3
            }
        "#);
        assert!(json("body", &json!({}), b"<html>").unwrap().contains("is not JSON"));
    }
}
