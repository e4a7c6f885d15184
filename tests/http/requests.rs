//! What goes out.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use lanekeeper::config::{IdempotencyKeyStyle, Secret};
use lanekeeper::http::{Attempt, RequestShape, SendGuard, Target, TraceHeaders};
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_core::update::{Update, UpdateId};

use crate::server::{Server, answer};
use crate::{attempt_of, target, targets, update};

async fn request_of(attempt: Attempt, change: impl FnOnce(&mut lanekeeper::config::TargetConfig)) -> String {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let mut config = target(server.address);
    change(&mut config);
    assert_eq!(targets(config).unwrap().attempt(attempt).await, Outcome::Applied);
    server.next_request().await
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let mut values = request.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let value = values.next();
    assert_eq!(values.next(), None, "{name} is sent once");
    value
}

#[tokio::test]
async fn the_request_says_what_docs_wire_promises() {
    let attempt = Attempt {
        update: Update {
            if_match: Some("\"v7\"".into()),
            content_encoding: Some("gzip".into()),
            headers: vec![("traceparent".into(), "00-1-2-01".into()), ("ce-type".into(), "a.b".into())],
            ..update("Zoë/1")
        }
        .into(),
        number: 3,
        tenure: Some(17),
        etag: None,
        send_guard: SendGuard::always(),
        trace: None,
    };
    let request = request_of(attempt, |_| {}).await;
    let check = |name, value| assert_eq!(header(&request, name), Some(value), "{request}");
    assert!(request.starts_with("PUT /customers/Zo%C3%AB%2F1 HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"sequence\":1}"), "{request}");
    check("idempotency-key", "\"u-1\"");
    check("if-match", "\"v7\"");
    check("content-type", "application/json");
    check("content-encoding", "gzip");
    check("traceparent", "00-1-2-01");
    check("ce-type", "a.b");
    check("authorization", "Bearer s3cret");
    check("lanekeeper-record-key", "Zo%C3%AB%2F1");
    check("lanekeeper-update-id", "u-1");
    check("lanekeeper-attempt", "3");
    check("lanekeeper-tenure", "17");
    check("user-agent", concat!("lanekeeper/", env!("CARGO_PKG_VERSION")));
    check("content-length", "14");
    assert_eq!(header(&request, "accept-encoding"), None);
}

/// The target's span is a child of the attempt's, and not of the publisher's.
#[tokio::test]
async fn an_attempt_with_a_trace_says_so_instead_of_what_the_publisher_said() {
    let of_publisher = [("traceparent", "of-publisher"), ("tracestate", "a=1"), ("ce-type", "a.b")];
    let headers = of_publisher.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let attempt = |tracestate: Option<&'static str>| {
        let trace = TraceHeaders {
            traceparent: HeaderValue::from_static("of-attempt"),
            tracestate: tracestate.map(HeaderValue::from_static),
            is_sampled: true,
            request: OnceLock::new(),
        };
        Attempt {
            trace: Some(trace.into()),
            ..attempt_of(Update { headers: headers.clone(), ..update("k") })
        }
    };
    let check = async |attempt, lines: &[(&str, &str)], parent, state| {
        let request = request_of(attempt, |config| {
            let headers = lines.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
            config.headers.extend(headers);
        })
        .await;
        let found = (header(&request, "traceparent"), header(&request, "tracestate"));
        assert_eq!((found, header(&request, "ce-type")), ((parent, state), Some("a.b")), "{request}");
    };
    check(attempt(Some("a=1")), &[], Some("of-attempt"), Some("a=1")).await;
    check(attempt(None), &[], Some("of-attempt"), None).await;
    // An operator who sets the header wants it.
    check(attempt(Some("a=1")), &[("traceparent", "of-config")], Some("of-config"), None).await;
}

#[tokio::test]
async fn what_the_request_was_is_told_to_a_trace_that_is_sampled_and_to_no_other() {
    let server = Server::answering(answer("204 No Content", "", ""), false).await;
    let targets = targets(target(server.address)).unwrap();
    let shape_of = async |is_sampled| {
        let (traceparent, request) = (HeaderValue::from_static("of-attempt"), OnceLock::new());
        let trace = Arc::new(TraceHeaders { traceparent, tracestate: None, is_sampled, request });
        targets.send(Attempt { trace: Some(Arc::clone(&trace)), ..attempt_of(update("k-17")) }).await;
        trace.request.get().cloned()
    };
    assert_eq!(shape_of(false).await, None);
    let request = shape_of(true).await.expect("it is sampled");
    let expected = RequestShape {
        method: "PUT".into(),
        scheme: "http",
        host: "127.0.0.1".into(),
        port: server.address.port(),
        url_template: "/customers/{record_key}".into(),
    };
    assert_eq!(*request, expected);
}

#[tokio::test]
async fn what_an_update_does_not_have_is_not_sent() {
    let attempt = attempt_of(Update { content_type: None, ..update("k") });
    let request = request_of(attempt, |_| {}).await;
    for name in ["content-type", "content-encoding", "if-match", "lanekeeper-tenure"] {
        assert_eq!(header(&request, name), None, "{request}");
    }
}

#[tokio::test]
async fn the_idempotency_key_goes_out_in_the_configured_way() {
    let attempt = || attempt_of(Update { id: UpdateId::published("a\"b\\c"), ..update("k") });
    let request = request_of(attempt(), |_| {}).await;
    assert_eq!(header(&request, "idempotency-key"), Some(r#""a\"b\\c""#));
    let request = request_of(attempt(), |config| {
        config.idempotency_key = IdempotencyKeyStyle::Bare;
        config.idempotency_header = "PayPal-Request-Id".into();
    })
    .await;
    assert_eq!(header(&request, "paypal-request-id"), Some(r#"a"b\c"#));
    assert_eq!(header(&request, "idempotency-key"), None);
    let request = request_of(attempt(), |config| config.idempotency_key = IdempotencyKeyStyle::Off).await;
    assert_eq!(header(&request, "idempotency-key"), None);
    assert_eq!(header(&request, "lanekeeper-update-id"), Some(r#"a"b\c"#));
}

#[tokio::test]
async fn a_publisher_cannot_change_the_operators_headers_or_the_framing() {
    let names =
        ["Authorization", "Host", "content-length", "transfer-encoding", "lanekeeper-attempt", "connection"];
    let headers = names.map(|name| (name.to_owned(), "evil".to_owned())).to_vec();
    let attempt = attempt_of(Update { headers, ..update("k") });
    let request = request_of(attempt, |config| {
        config.headers.push(("Content-Type".into(), Secret::new("application/merge-patch+json")));
    })
    .await;
    assert!(!request.contains("evil"), "{request}");
    assert_eq!(header(&request, "content-type"), Some("application/merge-patch+json"));
}

#[tokio::test]
async fn what_cannot_be_sent_is_rejected_without_a_request() {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let targets = targets(target(server.address)).unwrap();
    let unsendable = [
        update("."),
        update(".."),
        Update { id: UpdateId::published("a\r\nx: y"), ..update("k") },
        Update { id: UpdateId::published("é"), ..update("k") },
        Update { content_type: Some("text/plain\r\n\r\nGET / HTTP/1.1".into()), ..update("k") },
        Update { if_match: Some("\0".into()), ..update("k") },
        Update { headers: vec![("tracestate".into(), "\u{7f}".into())], ..update("k") },
    ];
    for update in unsendable {
        match targets.attempt(attempt_of(update)).await {
            Outcome::Rejected(failure) => {
                assert_eq!(failure.cause, Cause::Unsendable);
                assert!(failure.detail.ends_with("nothing was sent"), "{}", failure.detail);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(server.no_further_request());
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_template_without_a_key_sends_every_record_to_the_collection() {
    let request = request_of(attempt_of(update("..")), |config| {
        config.method = "POST".into();
        config.url = UrlTemplate::parse(&config.url.to_string().replace("/{record_key}", "?dry=1")).unwrap();
    })
    .await;
    assert!(request.starts_with("POST /customers?dry=1 HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "lanekeeper-record-key"), Some(".."));
}

#[tokio::test]
async fn headers_that_are_not_the_operators_to_set_are_refused() {
    let refused = |name: &str, value: &str| {
        let mut config = target(([127, 0, 0, 1], 1).into());
        config.headers = vec![(name.to_owned(), Secret::new(value))];
        let fault = targets(config).expect_err(name).to_string();
        assert!(fault.contains("crm") && fault.contains(name), "{fault}");
        assert!(!fault.contains("s3cret"), "{fault}");
    };
    for name in ["Host", "Content-Length", "transfer-encoding", "Connection", "Lanekeeper-Attempt", "a b", ""]
    {
        refused(name, "s3cret");
    }
    refused("x-token", "s3cret\n");
    let mut config = target(([127, 0, 0, 1], 1).into());
    config.idempotency_header = "Content-Length".into();
    assert!(targets(config.clone()).is_err());
    config.idempotency_header = "Idempotency-Key".into();
    assert!(targets(config.clone()).is_ok());
    config.method = "P U T".into();
    assert!(targets(config).is_err());
}
