//! Act 1, without Lanekeeper: each update is sent as soon as it happens, and again until it is accepted.
//!
//! The comparison is fair: HTTP client, timeout, waits between retries and the handling of Retry-After are Lanekeeper's
//! own. Two things are missing. Without the queue, updates of one customer do not wait for each other. And there is no
//! idempotency key, which a plain client does not send. (With a key, no update would be applied twice here either. Wrong
//! values would stay: a key stops repeats, not overtaking.)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

use super::api::{Api, Findings, Wrong};
use super::console::{Console, count, number};
use super::error::DemoError;
use super::stall_timeout::StallTimeout;
use super::workload::{Planned, Workload, format_customer};
use lanekeeper::config::Config;
use lanekeeper::http::client::HttpTargets;
use lanekeeper::http::{Attempt, SendGuard, Target as _};
use lanekeeper_core::policy::{Policy, Progress, Verdict};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often each update was sent.
type Requests = HashMap<(RecordKey, u64), u32>;

/// Sends all updates and prints the result. `config` is that of the second act, with the URL of this API.
pub(super) async fn act(
    config: &Config,
    workload: &Workload,
    api: &Api,
    console: &Console,
) -> Result<Findings, DemoError> {
    let begun = Instant::now();
    console.begin_progress(workload.total(), "updates accepted");
    let requests = send_all(config, workload, api, console).await?;
    let findings = api.judge(workload, begun.elapsed());
    console.end_progress();
    print_findings(&findings, &requests, workload, begun.elapsed(), console);
    Ok(findings)
}

async fn send_all(
    config: &Config,
    workload: &Workload,
    api: &Api,
    console: &Console,
) -> Result<Requests, DemoError> {
    let targets = Arc::new(HttpTargets::new(&config.targets)?);
    let policy = Arc::new(config.policy.clone());
    let begun = Instant::now();
    let mut sending: JoinSet<((RecordKey, u64), u32)> = workload
        .updates
        .iter()
        .map(|planned| send(planned.clone(), Arc::clone(&targets), Arc::clone(&policy), begun))
        .collect();
    let mut requests = Requests::new();
    let mut stall_timeout = StallTimeout::new("every update to be accepted");
    let mut look = interval(POLL_INTERVAL);
    loop {
        tokio::select! {
            sent = sending.join_next() => match sent {
                Some(sent) => requests.extend([sent.expect("sending does not panic")]),
                None => return Ok(requests),
            },
            _ = look.tick() => {
                let accepted = requests.len() as u64;
                console.progress(accepted);
                stall_timeout.see(accepted, || {
                    format!("{} of {} accepted; the API saw {}", accepted, workload.total(), api.report().counts)
                })?;
            }
        }
    }
}

/// Sends one update until it is accepted. It knows nothing of the others.
async fn send(
    planned: Planned,
    targets: Arc<HttpTargets>,
    policy: Arc<Policy>,
    begun: Instant,
) -> ((RecordKey, u64), u32) {
    let now = || Tick::ZERO.after(begun.elapsed());
    let update = Arc::new(Update {
        record_key: planned.record_key.clone(),
        id: UpdateId::published(planned.id),
        target: TargetId(0),
        update_type: None,
        version: None,
        content_type: Some("application/json".to_owned()),
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: planned.body,
    });
    let mut progress = Progress::default();
    let mut due = Tick::ZERO.after(planned.due);
    loop {
        sleep_until(begun + due.since(Tick::ZERO)).await;
        let number = progress.begin_attempt(now());
        let outcome = targets
            .attempt(Attempt {
                update: Arc::clone(&update),
                number,
                tenure: None,
                etag: None,
                send_guard: SendGuard::always(),
                trace: None,
            })
            .await;
        match policy.judge(&update.id, update.target, outcome, &mut progress, now()) {
            Verdict::RetryAt(tick) => due = tick,
            Verdict::RetryInTurn => {} // a request of its own has no turn
            Verdict::Resolve(_) => {
                return ((planned.record_key, planned.sequence), number);
            }
        }
    }
}

fn print_findings(
    findings: &Findings,
    requests: &Requests,
    workload: &Workload,
    took: Duration,
    console: &Console,
) {
    let accepted = format!("{} sent; in the end each was answered 200.", count(workload.total(), "update"));
    console.step(took, &accepted);
    let wrong = findings.wrong.len() as u64;
    console.detail(&format!(
        "But {} of {} have a wrong value now, and keep it.",
        number(wrong),
        count(workload.records, "customer")
    ));
    // Not the customer that always fails; best one whose update was sent again, which is the usual case.
    let sent = |wrong: &Wrong| requests.get(&(wrong.expected.record_key.clone(), wrong.sequence)).copied();
    let ordinary = |wrong: &&Wrong| wrong.expected.record_key.as_str() != super::workload::FAILING_RECORD;
    let shown = findings.wrong.iter().filter(ordinary).max_by_key(|wrong| sent(wrong) > Some(1));
    let Some(shown) = shown else { return };
    let key = shown.expected.record_key.as_str();
    let gap = " ".repeat(key.len() + 2);
    let (older, newest) = (shown.sequence, shown.expected.sequence);
    let why = if sent(shown) > Some(1) {
        format!("Update {older} failed, was sent again, and overwrote update {newest}.")
    } else {
        format!("Update {older} took longer than update {newest}, and overwrote it.")
    };
    for line in [
        format!("{key}: expected  {}  (update {newest})", format_customer(&shown.expected.body)),
        format!("{gap}got       {}  (update {older})", format_customer(shown.value.as_bytes())),
        why,
    ] {
        console.detail(&line);
    }
}
