//! Who gets what, and what is refused.

use super::port::{Answer, Listen, Port, READ, WRITE, config};

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{answer:?}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}

#[tokio::test]
async fn off_loopback_and_without_a_read_token_only_health_and_metrics_are_served() {
    for write in [None, Some(WRITE)] {
        let port = Port::open(&config(Listen::Elsewhere, None, write)).await;
        for path in ["/livez", "/metrics"] {
            assert_eq!(port.get(path, &[]).await.status, 200, "{path}");
        }
        assert_eq!(port.get("/readyz", &[]).await.status, 503);
        for path in ["/", "/login", "/nothing", "/assets/style.css"] {
            let answer = port.get(path, &[&bearer(WRITE)]).await;
            assert_eq!(answer.status, 403, "{path}");
            assert!(answer.body.contains("admin.read_token"), "{path}: {answer:?}");
        }
        assert_problem(&port.get("/api/nothing", &[]).await, 403, "closed");
    }
}

#[tokio::test]
async fn on_loopback_everybody_of_this_host_may_read_without_a_token() {
    let port = Port::open(&config(Listen::OnLoopback, None, None)).await;
    let answer = port.get("/", &[]).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("/login"), "there is no token to log in with: {answer:?}");
    assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none';"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    for host in
        ["host: evil.example", "host: 127.0.0.1.evil.example:80", "host: ", "host: localhost\r\nhost: a"]
    {
        let answer = port.get("/", &[host]).await;
        assert!(matches!(answer.status, 400 | 403), "{host}: a name that leads here is not ours: {answer:?}");
    }
    assert_eq!(port.get("/", &["host: localhost:1"]).await.status, 200);
    assert_eq!(port.get("/", &["origin: http://evil.example"]).await.status, 403);
    let from_a_page = ["sec-fetch-site: cross-site", "sec-fetch-mode: no-cors"];
    assert_eq!(port.get("/", &from_a_page).await.status, 403);
    let by_a_link = ["sec-fetch-site: cross-site", "sec-fetch-mode: navigate"];
    assert_eq!(port.get("/", &by_a_link).await.status, 200);
}

#[tokio::test]
async fn with_a_read_token_it_must_be_shown() {
    for listen in [Listen::OnLoopback, Listen::Elsewhere] {
        let port = Port::open(&config(listen, Some(READ), Some(WRITE))).await;
        let answer = port.get("/?a=b%2Fc", &[]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/login?next=%2F%3Fa%3Db%252Fc")));
        for (header, status) in [
            (bearer(READ), 200),
            (bearer(WRITE), 200),
            (format!("authorization: bearer {READ}"), 200),
            (format!("authorization: Basic {READ}"), 303),
            (bearer("wrong"), 303),
            (bearer(""), 303),
        ] {
            assert_eq!(port.get("/", &[&header]).await.status, status, "{header}");
        }
        assert_eq!(port.get("/livez", &[]).await.status, 200, "probes need none");
        assert_eq!(port.get("/assets/style.css", &[]).await.status, 200, "the login page needs it");
    }
}

#[tokio::test]
async fn a_login_sets_a_cookie_that_no_script_and_no_page_of_others_can_use() {
    let port = Port::open(&config(Listen::OnLoopback, Some(READ), Some(WRITE))).await;
    let page = port.get("/login?next=%2F%3Fa%3D1", &[]).await;
    let (cookie, token) = (page.cookies(), page.form_token());
    assert!(page.body.contains("name=\"next\" value=\"/?a=1\""), "{page:?}");
    let form = format!("form_token={token}&token={READ}&next=%2F%3Fa%3D1");
    let answer = port.post_form("/login", &[&cookie], &form).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/?a=1")));
    let set = answer.header("set-cookie").unwrap().to_owned();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{set}");
    assert!(!set.contains(READ), "{set}");
    let session = answer.cookies();
    let page = port.get("/", &[&session]).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("may read"), "{page:?}");
    let out = port.post_form("/logout", &[&session], &format!("form_token={}", page.form_token())).await;
    assert_eq!((out.status, out.header("location")), (303, Some("/login")));
    assert_eq!(port.get("/", &[&session]).await.status, 303, "it is over");
}

#[tokio::test]
async fn a_forged_form_does_nothing() {
    let port = Port::open(&config(Listen::OnLoopback, Some(READ), Some(WRITE))).await;
    let (mine, theirs) = (port.log_in(WRITE).await, port.log_in(WRITE).await);
    let my_token = port.get("/", &[&mine]).await.form_token();
    let their_token = port.get("/", &[&theirs]).await.form_token();
    let long = "a".repeat(70_000);
    for (headers, form, status) in [
        (vec![], format!("form_token={my_token}"), 403),
        (vec![mine.as_str()], String::new(), 403),
        (vec![&mine], "form_token=".to_owned(), 403),
        (vec![&mine], format!("form_token={their_token}"), 403),
        (vec![&mine], format!("form_token={my_token}&form_token={my_token}"), 400),
        (vec![&mine], format!("form_token={my_token}&a=%FF"), 400),
        (vec![&mine], format!("form_token={my_token}&a={long}"), 413),
        (vec![&mine, "origin: http://evil.example"], format!("form_token={my_token}"), 403),
        (vec![&mine, "origin: null"], format!("form_token={my_token}"), 403),
        (vec![&mine, "sec-fetch-site: same-site"], format!("form_token={my_token}"), 403),
    ] {
        let answer = port.post_form("/logout", &headers, &form).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
    let text = ["content-type: text/plain", &mine];
    let answer = port.send("POST", "/logout", &text, &format!("form_token={my_token}")).await;
    assert_eq!(answer.status, 415);
    assert_eq!(port.get("/logout", &[&mine]).await.status, 405);
    assert_eq!(port.get("/", &[&mine]).await.status, 200, "nobody was logged out");

    // Somebody else's login, sent by a page of others: the browser would act in their name from then on.
    let page = port.get("/login", &[]).await;
    let form = format!("form_token={}&token={WRITE}", page.form_token());
    assert_eq!(port.post_form("/login", &[], &form).await.status, 403, "without the cookie of the page");
    let foreign = [page.cookies(), "origin: http://evil.example".to_owned()];
    let answer = port.post_form("/login", &[&foreign[0], &foreign[1]], &form).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (403, None));
}

#[tokio::test]
async fn wrong_tokens_are_counted_and_then_none_is_looked_at() {
    let port = Port::open(&config(Listen::OnLoopback, Some(READ), Some(WRITE))).await;
    let page = port.get("/login", &[]).await;
    let (cookie, form_token) = (page.cookies(), page.form_token());
    let log_in = async |token: &str| {
        port.post_form("/login", &[&cookie], &format!("form_token={form_token}&token={token}")).await
    };
    let session = log_in(READ).await.cookies();
    for _ in 0..10 {
        let answer = log_in("wrong").await;
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None));
        assert!(answer.body.contains("the token is wrong") && !answer.body.contains("value=\"wrong\""));
    }
    for _ in 0..2 {
        let answer = log_in(READ).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (429, None), "not even the right one");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() <= 61);
    }
    assert_eq!(port.get("/", &[&bearer(READ)]).await.status, 429);
    assert_eq!(port.get("/", &[&session]).await.status, 200, "who is logged in goes on");
}

#[tokio::test]
async fn tokens_that_change_end_the_sessions() {
    let port = Port::open(&config(Listen::OnLoopback, Some(READ), Some(WRITE))).await;
    let session = port.log_in(READ).await;
    assert_eq!(port.get("/", &[&session]).await.status, 200);
    port.access.change(&config(Listen::OnLoopback, Some("another-token-012345"), Some(WRITE)));
    assert_eq!(port.get("/", &[&session]).await.status, 303);
    assert_eq!(port.get("/", &[&bearer(READ)]).await.status, 303);
    assert_eq!(port.get("/", &[&bearer("another-token-012345")]).await.status, 200);
}

#[tokio::test]
async fn what_there_is_not_is_said_in_words() {
    let port = Port::open(&config(Listen::OnLoopback, None, None)).await;
    assert_problem(&port.get("/api/nothing", &[]).await, 404, "not_found");
    let page = port.get("/nothing%2F..%2f%00", &[]).await;
    assert_eq!(page.status, 404);
    assert!(page.body.contains("There is no such page") && page.header("content-security-policy").is_some());
    assert_eq!(port.send("PUT", "/", &[], "").await.status, 405);
    assert_eq!(port.get("/../../etc/passwd", &[]).await.status, 404);
}
