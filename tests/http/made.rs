//! What templates make of updates: URLs, queries, headers and bodies.

use bytes::Bytes;
use lanekeeper::http::Target;
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::update::{RecordKey, Update};
use proptest::prelude::*;

use crate::server::{Server, answer};
use crate::{attempt_of, target_with, targets, update};

const BODY: &str =
    r#"{"name": "Zoë", "amount": 10.10, "id": 12345678901234567890, "tenant": "a/b", "bad": "a\nb"}"#;

fn update_with(body: impl Into<Bytes>) -> Update {
    let published_at = Some(1_700_000_000);
    Update {
        body: body.into(),
        version: Some(4),
        published_at,
        content_encoding: Some("identity".into()),
        ..update("k/1")
    }
}

/// The request with these lines of a target at `HOST`, or why there is none.
async fn sent(lines: &str, update: Update) -> Result<String, String> {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let targets = targets(target_with(&lines.replace("HOST", &server.address.to_string()))).unwrap();
    match targets.attempt(attempt_of(update)).await {
        Outcome::Applied => Ok(server.next_request().await),
        Outcome::Rejected(failure) => {
            assert_eq!(failure.cause, Cause::Unsendable);
            assert!(failure.detail.ends_with("nothing was sent") && server.no_further_request(), "{failure}");
            Err(failure.detail)
        }
        other => panic!("{other:?}"),
    }
}

async fn made(lines: &str) -> String {
    sent(lines, update_with(BODY)).await.unwrap()
}

async fn check_fault(lines: &str, expected: &str) {
    let fault = sent(lines, update_with(BODY)).await.unwrap_err();
    assert!(fault.contains(expected) && !fault.contains("Zoë"), "{expected} in {fault}");
}

#[tokio::test]
async fn a_url_is_made_of_the_update_and_stays_what_it_is() {
    let request = made(
        r#"url = "http://HOST/t/{{ body.tenant }}/{record_key}/v{{ version }}?who={{ body.name }}&x=1"
        query = { at = "{{ time }}", fixed = "a&b" }"#,
    )
    .await;
    let line = request.lines().next().unwrap();
    assert_eq!(
        line,
        "PUT /t/a%2Fb/k%2F1/v4?who=Zo%C3%AB&x=1&at=2023-11-14T22%3A13%3A20Z&fixed=a%26b HTTP/1.1"
    );
    check_fault(
        r#"url = "http://HOST/{{ body.missing }}""#,
        "the template of url, expression 1, fails at line 1, column",
    )
    .await;
    check_fault(r#"url = "http://HOST/{{ '..' }}""#, "segment 1 of the URL's path").await;
    check_fault(r#"url = "http://HOST/a/{{ '' }}""#, "segment 2 of the URL's path").await;
    check_fault("url = \"http://HOST/a\"\nquery = { a = \"{{ body }}\" }", "the template of query.a fails")
        .await;
}

#[tokio::test]
async fn a_header_is_made_of_the_update_unless_it_has_a_reference() {
    let request = made(
        r#"url = "http://HOST/{record_key}"
        headers = { x-tenant = "t-{{ body.tenant }}", user-agent = "v{{ version }}" }"#,
    )
    .await;
    assert!(request.contains("x-tenant: t-a/b\r\n") && request.contains("user-agent: v4\r\n"), "{request}");
    let header =
        |value: &str| format!("url = \"http://HOST/{{record_key}}\"\nheaders = {{ x-a = \"{value}\" }}");
    check_fault(&header("{{ body.name }}"), "the value of header x-a is not valid in HTTP").await;
    check_fault(&header("{{ body.bad }}"), "the value of header x-a is not valid in HTTP").await;
    check_fault(&header("{{ body.nick.name }}"), "the template of headers.x-a fails at line 1, column").await;
    // A secret may have braces in it.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{{ s3cret").unwrap();
    let request = made(&header(&format!("file:{}", file.path().display()))).await;
    assert!(request.contains("x-a: {{ s3cret\r\n"), "{request}");
}

#[tokio::test]
async fn a_body_is_made_of_the_update_with_every_digit() {
    let url = "url = \"http://HOST/{record_key}\"\n";
    let request = made(&format!("{url}body = '''{{\"n\": {{{{ body.name }}}}, \"a\": {{{{ body.amount }}}}, \"i\": {{{{ body.id }}}}}}'''")).await;
    assert!(
        request.ends_with("\r\n\r\n{\"n\": \"Zoë\", \"a\": 10.10, \"i\": 12345678901234567890}"),
        "{request}"
    );
    assert!(
        request.contains("content-type: application/json\r\n") && !request.contains("content-encoding"),
        "{request}"
    );
    let form = "headers = { content-type = \"application/x-www-form-urlencoded\" }\nbody = \"n={{ body.name }}&t={{ body.tenant }}\"";
    let request = made(&format!("{url}{form}")).await;
    assert!(request.ends_with("\r\n\r\nn=Zo%C3%AB&t=a%2Fb"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    let request = made(&format!("{url}method = \"DELETE\"\nbody = \"\"")).await;
    assert!(request.ends_with("\r\n\r\n") && !request.contains("content-type"), "{request}");
    check_fault(
        &format!("{url}body = \"{{{{ body.name }}}} x\""),
        "the template of body makes no valid JSON",
    )
    .await;
    check_fault(
        &format!("{url}body = \"{{{{ body.amount * 2 }}}}\""),
        "the template of body fails at line 1, column 4",
    )
    .await;
    let fault =
        sent(&format!("{url}body = \"{{{{ body.a }}}}\""), update_with("nonsense")).await.unwrap_err();
    assert!(fault.contains("not JSON"), "{fault}");
}

#[tokio::test]
async fn a_row_adds_values_and_replaces_the_body() {
    let lines = r#"
url = "http://HOST/{record_key}"
headers = { x-a = "{{ version }}", x-b = "own" }
query = { a = "1", b = "2" }
body = "{{ body.name }}"

[[target.on]]
types = ["customer.created"]
headers = { X-A = "literal", x-b = "{{ body.tenant }}" }
query = { b = "{{ version }}" }

[[target.on]]
types = ["customer.deleted"]
body = ""
"#;
    let of_type = |update_type: &str| Update { update_type: Some(update_type.into()), ..update_with(BODY) };
    let created = sent(lines, of_type("customer.created")).await.unwrap();
    assert!(
        created.starts_with("PUT /k%2F1?a=1&b=4 HTTP/1.1\r\n") && created.ends_with("\r\n\r\n\"Zoë\""),
        "{created}"
    );
    assert!(created.contains("x-a: literal\r\n") && created.contains("x-b: a/b\r\n"), "{created}");
    assert_eq!((created.matches("x-a: ").count(), created.matches("x-b: ").count()), (1, 1), "{created}");
    let deleted = sent(lines, of_type("customer.deleted")).await.unwrap();
    assert!(
        deleted.contains("x-a: 4\r\n") && deleted.contains("x-b: own\r\n") && deleted.ends_with("\r\n\r\n"),
        "{deleted}"
    );
}

#[tokio::test]
async fn a_record_key_that_a_target_does_not_take_is_rejected_and_not_quoted() {
    let lines = "url = \"http://HOST/{record_key}\"\nrecord_keys = \"c-[0-9]+|x\"";
    for (key, is_sent) in
        [("c-17", true), ("x", true), ("c-17/../x", false), ("xc-1", false), ("s3cret", false)]
    {
        let update = Update { record_key: RecordKey::new(key).unwrap(), ..update("k") };
        match sent(lines, update).await {
            Ok(_) => assert!(is_sent, "{key}"),
            Err(fault) => {
                assert!(!is_sent && fault.contains("record_keys of target \"crm\""), "{key}: {fault}");
                assert!(!fault.contains(key), "{fault}");
            }
        }
    }
    // Without the key, they are still sent in this version.
    let update = Update { record_key: RecordKey::new("a/../b").unwrap(), ..update("k") };
    let request = sent("url = \"http://HOST/{record_key}\"", update).await.unwrap();
    assert!(request.starts_with("PUT /a%2F..%2Fb HTTP/1.1\r\n"), "{request}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_body_without_a_template_is_passed_on_byte_for_byte(body in prop::collection::vec(any::<u8>(), 0..300)) {
        // A header that looks into the body does not touch it.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let lines = "url = \"http://HOST/{record_key}\"\nheaders = { x-v = \"{{ version }}\" }";
        let request = runtime.block_on(sent(lines, update_with(body.clone()))).unwrap();
        // The server of the tests keeps requests as text.
        let (_, received) = request.split_once("\r\n\r\n").unwrap();
        let expected = String::from_utf8_lossy(&body).into_owned();
        prop_assert_eq!(received, expected);
    }
}

#[tokio::test]
async fn a_body_that_a_template_only_looks_at_is_not_changed() {
    let body = "{ \"name\" : \"k\",\n \"amount\": 1.50e+3 ,\"dup\":1,\"dup\":2 }\n";
    let lines = "url = \"http://HOST/{{ body.name }}\"";
    let request =
        sent(lines, Update { content_type: Some("text/x".into()), ..update_with(body) }).await.unwrap();
    assert!(
        request.starts_with("PUT /k HTTP/1.1\r\n") && request.ends_with(&format!("\r\n\r\n{body}")),
        "{request}"
    );
    assert!(request.contains("content-type: text/x\r\n"), "{request}");
}
