use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000;

fn parsed(line: &str) -> Outgoing {
    parse(line.as_bytes(), 100, NOW).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The body and content type that a line is sent with.
fn check_body(line: &str, body: &str, content_type: &str) {
    let outgoing = parsed(line);
    assert_eq!(outgoing.body, body.as_bytes(), "{line}");
    assert_eq!(outgoing.content_type.as_ref().map(ShortText::as_str), Some(content_type), "{line}");
}

/// What a bad line is told, in part.
fn check_bad(line: &str, expected: &str) {
    let message = parse(line.as_bytes(), 100, NOW).expect_err(line).to_string();
    assert!(message.contains(expected), "{line}\n told: {message}\n expected: {expected}");
    assert!(!message.contains("line 1"), "the command names the line: {message}");
}

#[test]
fn the_body_is_sent_as_written() {
    const JSON: &str = "application/json";
    check_body(
        r#"{"key":"a","body":{"n":1.10,"big":123456789012345678901234567890}}"#,
        r#"{"n":1.10,"big":123456789012345678901234567890}"#,
        JSON,
    );
    check_body(r#"{"key":"a","body": { "b" : 1 , "a":2 } }"#, r#"{ "b" : 1 , "a":2 }"#, JSON);
    check_body(r#"{"key":"a","body":"text \u00e9"}"#, r#""text \u00e9""#, JSON);
    check_body(r#"{"key":"a","body":null}"#, "null", JSON);
    check_body(r#"{"key":"a","body":-0.0}"#, "-0.0", JSON);
    check_body(
        r#"{"key":"a","body":[],"content_type":"application/merge-patch+json"}"#,
        "[]",
        "application/merge-patch+json",
    );
    check_body(r#"{"key":"a","body_base64":"aGVsbG8="}"#, "hello", "application/octet-stream");
    check_body(r#"{"key":"a","body_base64":"","content_type":"text/plain"}"#, "", "text/plain");
}

#[test]
fn every_member_has_its_place() {
    let outgoing = parsed(
        r#"{"key":"clé","id":"u-1","type":"customer.updated","version":9007199254740993,
            "headers":{"if-match":"\"e1\"","tries":-2,"dry":true},"body":1}"#,
    );
    assert_eq!(outgoing.record_key.as_str(), "clé");
    assert_eq!(outgoing.id.as_str(), "u-1");
    assert_eq!(outgoing.update_type.as_ref().map(ShortText::as_str), Some("customer.updated"));
    assert_eq!(outgoing.published_at, NOW);
    let headers: Vec<(&str, &HeaderValue)> =
        outgoing.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(
        headers,
        [
            ("record-version", &HeaderValue::Integer(9_007_199_254_740_993)),
            ("dry", &HeaderValue::Flag(true)),
            ("if-match", &HeaderValue::Text("\"e1\"".to_owned())),
            ("tries", &HeaderValue::Integer(-2)),
        ]
    );
}

#[test]
fn a_line_without_an_id_gets_one_of_its_own() {
    let ids = [parsed(r#"{"key":"a","body":1}"#).id, parsed(r#"{"key":"a","id":null,"body":1}"#).id];
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| Uuid::parse_str(id.as_str()).is_ok()));
}

#[test]
fn a_bad_line_says_what_to_do() {
    let long = "x".repeat(256);
    check_bad("", "EOF");
    check_bad("{", "EOF");
    check_bad("[]", "expected");
    check_bad("{\"key\":\"a\",\"body\":1} {}", "trailing characters");
    check_bad(r#"{"body":1}"#, "missing field `key`");
    check_bad(r#"{"key":1,"body":1}"#, "expected a string");
    check_bad(r#"{"key":"","body":1}"#, "\"key\": the record key is empty");
    check_bad(&format!(r#"{{"key":"{long}","body":1}}"#), "longer than 255 bytes");
    check_bad(r#"{"key":"a"}"#, "exactly one of");
    check_bad(r#"{"key":"a","body":1,"body_base64":"YQ=="}"#, "exactly one of");
    check_bad(r#"{"key":"a","body_base64":"a"}"#, "not base64");
    check_bad(r#"{"key":"a","body":1,"colour":2}"#, "unknown field `colour`");
    check_bad(r#"{"key":"a","key":"b","body":1}"#, "duplicate field `key`");
    check_bad(r#"{"key":"a","version":1.5,"body":1}"#, "expected i64");
    check_bad(r#"{"key":"a","version":9223372036854775808,"body":1}"#, "expected i64");
    check_bad(r#"{"key":"a","id":"","body":1}"#, "\"id\" is empty");
    check_bad(&format!(r#"{{"key":"a","id":"{long}","body":1}}"#), "\"id\" is longer");
    check_bad(&format!(r#"{{"key":"a","type":"{long}","body":1}}"#), "\"type\" is longer");
    check_bad(r#"{"key":"a","headers":{"a":1.5},"body":1}"#, "a header is a string, an integer or a boolean");
    check_bad(
        r#"{"key":"a","headers":{"a":null},"body":1}"#,
        "a header is a string, an integer or a boolean",
    );
    check_bad(&format!(r#"{{"key":"a","headers":{{"{long}":1}},"body":1}}"#), "\"headers\" is longer");
    check_bad(r#"{"key":"a","headers":{"CC":"b"},"body":1}"#, "changes how RabbitMQ routes");
    check_bad(r#"{"key":"a","version":1,"headers":{"record-version":2},"body":1}"#, "give one of them");
    check_bad(
        &format!(r#"{{"key":"a","body":"{}"}}"#, "x".repeat(99)),
        "101 bytes, over updates.body_bytes_max = 100",
    );
    check_bad(
        &format!(r#"{{"key":"a","headers":{{"a":"{}"}},"body":1}}"#, "x".repeat(40_000)),
        "headers have 40001",
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_a_bad_line() {
    for line in [&b"{\"key\":\"\xff\",\"body\":1}"[..], b"{\"key\":\"a\",\"body\":\"\xff\"}"] {
        assert!(matches!(parse(line, 100, NOW), Err(BadLine::Json(_))));
    }
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(line in ".*") {
        let _ = parse(line.as_bytes(), 100, NOW);
    }

    #[test]
    fn any_bytes_travel_as_base64(body in prop::collection::vec(any::<u8>(), 0..100)) {
        let line = format!(r#"{{"key":"a","body_base64":"{}"}}"#, STANDARD.encode(&body));
        prop_assert_eq!(&parsed(&line).body[..], &body[..]);
    }
}
