//! Questions of other processes by the port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::AnswererSlot;
use super::port::{Listen, Port, READ, config};
use crate::config::{AdminConfig, Secret};
use crate::inspect::admin_ports::{AskedByPorts, ask_by_ports};
use crate::inspect::question::InspectionQuery;
use crate::inspect::report::{Answer, TargetAnswer};
use crate::inspect::signature::{InquiryKey, SIGNATURE};
use lanekeeper_broker::SeenProcess;

const PROCESS: &str = "process of a";
const JSON: &str = "content-type: application/json";

/// A port that answers.
async fn open(admin: &AdminConfig) -> Port {
    let mut slot = AnswererSlot::default();
    let port = Port::open_with(admin, |parts| slot = parts.answerer.clone()).await;
    slot.set(
        format!("http://{}", port.address),
        Arc::new(|question| {
            assert!(matches!(question, InspectionQuery::Target { .. }), "{question:?}");
            let process = PROCESS.to_owned();
            let answer = TargetAnswer { instance: "a".to_owned(), process, target: None, steps: Vec::new() };
            Box::pin(async move { Answer::Target(answer) })
        }),
    );
    port
}

fn question() -> String {
    let question = InspectionQuery::Target { name: "crm".to_owned() };
    serde_json::to_string(&question).expect("plain data")
}

#[tokio::test]
async fn who_has_signed_the_question_with_the_read_token_is_answered() {
    let port = open(&config(Listen::Elsewhere, Some(READ), None)).await;
    let question = question();
    let post = async |signature: &str, text: &str| {
        port.send("POST", "/inquiry", &[JSON, &format!("{SIGNATURE}: {signature}")], text).await
    };
    let url = format!("http://{}", port.address);
    let of = |token: &str| {
        InquiryKey::new(&Secret::new(token)).sign_question(&url, question.as_bytes(), SystemTime::now())
    };
    let answer = post(&of(READ), &question).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains(PROCESS), "{}", answer.body);
    assert_eq!(post(&of("another-token-0123456"), &question).await.status, 401);
    assert_eq!(post(&of(READ), &question.replace("crm", "erp")).await.status, 401);
    assert_eq!(post("", &question).await.status, 401);
    assert_eq!(post("", &" ".repeat(65_537)).await.status, 413);
    // The token itself is not what is asked for.
    let bearer = format!("authorization: Bearer {READ}");
    assert_eq!(port.send("POST", "/inquiry", &[JSON, &bearer], &question).await.status, 401);
    assert_eq!(port.get("/inquiry", &[]).await.status, 405);
}

#[tokio::test]
async fn without_a_token_only_this_host_is_answered() {
    let port = open(&config(Listen::OnLoopback, None, None)).await;
    let (question, evil) = (question(), "host: evil.example:9419");
    assert_eq!(port.send("POST", "/inquiry", &[JSON], &question).await.status, 200);
    assert_eq!(port.send("POST", "/inquiry", &[JSON, evil], &question).await.status, 403);
    assert_eq!(port.send("POST", "/inquiry", &["content-type: text/plain"], &question).await.status, 415);
    let page = "origin: http://evil.example";
    assert_eq!(port.send("POST", "/inquiry", &[JSON, page], &question).await.status, 403);
    assert_eq!(port.send("POST", "/inquiry", &[JSON], "{}").await.status, 400);
    let closed = open(&config(Listen::Elsewhere, None, None)).await;
    assert_eq!(closed.send("POST", "/inquiry", &[JSON], &question).await.status, 403);
    let starting = Port::open(&config(Listen::OnLoopback, None, None)).await;
    assert_eq!(starting.send("POST", "/inquiry", &[JSON], &question).await.status, 503);
}

#[tokio::test]
async fn who_asks_learns_which_process_answered_and_why_others_did_not() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let admin = config(Listen::OnLoopback, Some(READ), None);
    let port = open(&admin).await;
    let ask = async |token: &str, instance: &str, seen: &[(&str, Option<String>)]| -> AskedByPorts {
        let seen: BTreeMap<String, SeenProcess> = seen
            .iter()
            .map(|(process, admin)| {
                let (instance, admin) = (instance.to_owned(), admin.clone());
                ((*process).to_owned(), SeenProcess { instance, admin, ..SeenProcess::default() })
            })
            .collect();
        let asking = AdminConfig { listen: None, read_token: Some(Secret::new(token)), ..admin.clone() };
        ask_by_ports(&asking, &seen, &question(), Instant::now() + Duration::from_secs(10)).await
    };
    let here = Some(format!("http://{}", port.address));
    let all = [(PROCESS, here.clone()), ("gone", here.clone()), ("closed", None)];
    let asked = ask(READ, "b", &all).await;
    assert_eq!(asked.answers.keys().collect::<Vec<_>>(), [PROCESS]);
    assert!(asked.faults["gone"].contains("the process of a answers there"), "{:?}", asked.faults);
    assert_eq!(asked.faults["closed"], "it has no admin port");
    let restarted = ask(READ, "a", &all).await.faults;
    assert_eq!(restarted.keys().collect::<Vec<_>>(), ["closed"], "the new process has answered");
    let seen = [(PROCESS, here), ("off", Some("http://127.0.0.1:1".to_owned()))];
    let asked = ask("another-token-0123456", "a", &seen).await;
    assert!(asked.answers.is_empty());
    assert!(
        asked.faults[PROCESS].contains("not signed with our admin.read_token for this port"),
        "{:?}",
        asked.faults
    );
    assert!(asked.faults["off"].contains("refused"), "{:?}", asked.faults);
}
