use axum::http::Request;

use super::*;

fn parts(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, value.as_bytes());
    }
    request.body(()).unwrap().into_parts().0
}

fn update(uri: &str, id: Option<&str>, headers: &[(&str, &str)]) -> Result<Outgoing, DoorProblem> {
    let parts = parts(uri, headers);
    let key = RecordKey::new("4711").unwrap();
    Head::new(&parts).update(key, id.map(str::to_owned), true, Bytes::from_static(b"{}"), 7)
}

#[track_caller]
fn check_id(id: Option<&str>, uri: &str, headers: &[(&str, &str)], expected: Result<&str, DoorProblemCode>) {
    let found = update(uri, id, headers);
    let found = found.as_ref().map(|outgoing| outgoing.id.as_str()).map_err(DoorProblem::code);
    assert_eq!(found, expected, "{id:?} {uri} {headers:?}");
}

#[test]
fn an_id_comes_from_where_a_sender_can_put_it() {
    use DoorProblemCode::{IdUnfit, NoId};
    let long = "x".repeat(256);
    check_id(None, "/", &[("idempotency-key", "a-1")], Ok("a-1"));
    check_id(None, "/", &[("idempotency-key", "\"a-1\"")], Ok("a-1"));
    check_id(None, "/", &[("idempotency-key", r#""a\"\\1""#)], Ok(r#"a"\1"#));
    check_id(None, "/", &[("idempotency-key", "\"a-1")], Err(IdUnfit));
    check_id(None, "/", &[("idempotency-key", "\"a\", \"b\"")], Err(IdUnfit));
    check_id(None, "/", &[("webhook-id", "msg_1")], Ok("msg_1"));
    check_id(None, "/", &[("ce-id", "e1")], Ok("e1"));
    check_id(None, "/?id=a%2F1&x=2", &[], Ok("a/1"));
    check_id(Some("p"), "/", &[], Ok("p"));
    check_id(Some("p"), "/", &[("idempotency-key", "\"p\""), ("ce-id", "p")], Ok("p"));
    check_id(Some("p"), "/", &[("ce-id", "q")], Err(IdUnfit));
    check_id(None, "/?id=a", &[("idempotency-key", "b")], Err(IdUnfit));
    check_id(None, "/", &[], Err(NoId));
    check_id(None, "/?id=", &[], Err(IdUnfit));
    check_id(None, "/?id=%C3%A9", &[], Err(IdUnfit));
    check_id(None, "/", &[("ce-id", &long)], Err(IdUnfit));
    check_id(None, "/", &[("ce-id", "a"), ("ce-id", "a")], Err(DoorProblemCode::HeaderUnfit));
}

#[test]
fn without_require_id_one_is_made() {
    let parts = parts("/", &[]);
    let made = || {
        let key = RecordKey::new("4711").unwrap();
        Head::new(&parts).update(key, None, false, Bytes::new(), 7).unwrap().id
    };
    assert_ne!(made(), made());
}

#[test]
fn headers_become_the_parts_of_the_update() {
    let outgoing = update(
        "/",
        Some("u-1"),
        &[
            ("lanekeeper-type", "customer.updated"),
            ("record-version", "-3"),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("if-match", "\"e1\""),
            ("traceparent", "00-x"),
            ("ce-specversion", "1.0"),
            ("ce-source", "/crm%20%C3%A9"),
            ("x-other", "left out"),
            ("authorization", "Bearer secret"),
        ],
    )
    .unwrap();
    let text = |text: &Option<ShortText>| text.as_ref().map(|text| text.as_str().to_owned());
    assert_eq!(text(&outgoing.update_type).as_deref(), Some("customer.updated"));
    assert_eq!(text(&outgoing.content_type).as_deref(), Some("application/json"));
    assert_eq!(text(&outgoing.content_encoding).as_deref(), Some("gzip"));
    assert_eq!(outgoing.published_at, 7);
    let mut headers: Vec<(&str, String)> = outgoing
        .headers
        .iter()
        .map(|(name, value)| match value {
            HeaderValue::Text(text) => (name.as_str(), text.clone()),
            HeaderValue::Integer(number) => (name.as_str(), number.to_string()),
            HeaderValue::Flag(flag) => (name.as_str(), flag.to_string()),
        })
        .collect();
    headers.sort_unstable();
    let expected = [
        ("cloudEvents_source", "/crm é"),
        ("cloudEvents_specversion", "1.0"),
        ("if-match", "\"e1\""),
        ("record-version", "-3"),
        ("traceparent", "00-x"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn what_cannot_be_passed_on_is_refused() {
    use DoorProblemCode::{BadEvent, HeaderUnfit};
    let check = |headers: &[(&str, &str)], expected: DoorProblemCode| {
        let found = update("/", Some("u-1"), headers).expect_err("it is refused").code();
        assert_eq!(found, expected, "{headers:?}");
    };
    check(&[("record-version", "1.5")], HeaderUnfit);
    check(&[("record-version", "9223372036854775808")], HeaderUnfit);
    check(&[("record-version", "1"), ("record-version", "2")], HeaderUnfit);
    check(&[("lanekeeper-type", "")], HeaderUnfit);
    check(&[("lanekeeper-type", "a"), ("ce-type", "b")], HeaderUnfit);
    check(&[("content-type", "é")], HeaderUnfit);
    check(&[("ce-subject", "%FF")], HeaderUnfit);
    check(&[("ce-specversion", "0.3")], BadEvent);
}

#[test]
fn a_record_key_is_one_segment_decoded_once() {
    let check = |segment: &str, expected: Option<&str>| {
        let found = decoded_segment(segment).and_then(record_key);
        assert_eq!(found.as_ref().ok().map(RecordKey::as_str), expected, "{segment}");
    };
    check("4711", Some("4711"));
    check("a%2Fb", Some("a/b"));
    check("a%252Fb", Some("a%2Fb"));
    check("a+b", Some("a+b"));
    check("%C3%A9", Some("é"));
    check("%FF", None);
    check("..", None);
    check("%2e%2E", None);
    check(".", None);
    check("...", Some("..."));
    check(&"x".repeat(255), Some(&"x".repeat(255)));
    check(&"x".repeat(256), None);
    check("", None);
}
