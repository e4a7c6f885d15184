//! The reference target, as `HttpTargets` and plain connections see it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper::config::{FirstContact, IfMatch, TargetConfig};
use lanekeeper::http::client::HttpTargets;
use lanekeeper::http::{Attempt, Target};
use lanekeeper_core::outcome::{Cause, Outcome, OutcomeKind};
use lanekeeper_core::policy::FailurePolicy;
use lanekeeper_core::update::{Update, UpdateId};
use lanekeeper_lab::receiver::{FailingRecord, Receiver, ReceiverSettings, Report, Safeguards};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{TEST_TIMEOUT, attempt_of, target, targets, update};

/// A receiver on a port of its own.
struct Running {
    receiver: Receiver,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(settings: ReceiverSettings) -> Self {
        let receiver = Receiver::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn({
            let receiver = receiver.clone();
            async move {
                let stopped = async { drop(stopped.await) };
                receiver.run(listener, stopped).await
            }
        });
        Self { receiver, address, stop, served }
    }

    fn targets(&self) -> HttpTargets {
        self.targets_with(|_| {})
    }

    fn targets_with(&self, change: impl FnOnce(&mut TargetConfig)) -> HttpTargets {
        let mut config = target(self.address);
        change(&mut config);
        targets(config).unwrap()
    }

    /// Waits until the report is as wanted.
    async fn until(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        let seen = tokio::time::timeout(TEST_TIMEOUT, async {
            loop {
                let report = self.receiver.report(usize::MAX);
                if wanted(&report) {
                    return report;
                }
                tokio::task::yield_now().await;
            }
        });
        seen.await.unwrap_or_else(|_| panic!("last seen: {:#?}", self.receiver.report(usize::MAX)))
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(TEST_TIMEOUT, self.served).await.expect("it stops").unwrap().unwrap();
    }
}

fn numbered(record_key: &str, sequence: u32) -> Update {
    Update {
        id: UpdateId::published(format!("u-{sequence}")),
        body: Bytes::from(format!(r#"{{"sequence":{sequence}}}"#)),
        ..update(record_key)
    }
}

/// One request over a connection of its own; the answer's head and body.
async fn plain(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (first, rest) = request.split_once("\r\n").unwrap_or((request, ""));
    let request = format!("{first} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{rest}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn every_hostile_key_arrives_as_the_record_it_names() {
    let running = Running::start(ReceiverSettings::default()).await;
    let targets = running.targets();
    let mut keys: Vec<String> = [
        "../../admin",
        "a/b",
        "/",
        "//",
        "a?x=1",
        "?",
        "http://evil/",
        "http://evil/../x",
        "//evil/",
        "é",
        "日本語",
        "🙂",
        " ",
        "a b",
        " a ",
        "%2F",
        "%2e%2e",
        "%2E%2E/",
        "%",
        "%%",
        "%zz",
        "a%00b",
        ";",
        "a;b=c",
        "#",
        "a#b",
        "\\",
        "..\\..\\x",
        "...",
        ".hidden",
        "a.",
        "./",
        "../",
        "/..",
        "..;/",
        "\u{0}",
        "\t",
        "\r\n",
        "x\r\nhost: evil",
        "\u{7f}",
        "\u{1b}[31m",
        "\u{202e}",
        "\u{feff}",
        "+",
        "a+b",
        "&",
        "=",
        "@",
        "user:pw@evil",
        ":80",
        "{record_key}",
        "'",
        "\"",
        "<>",
        "`",
        "|",
        "^",
        "[::1]",
        "~",
        "report",
        "reset",
        "*",
        "$",
        ",",
        "!",
        "()",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.push("x".repeat(255));
    keys.push("ü".repeat(127));
    keys.push("/".repeat(255));
    keys.push("%".repeat(255));
    keys.extend((0..=0x7f_u8).map(|byte| format!("k{}", char::from(byte))));
    for key in &keys {
        let outcome = targets.attempt(attempt_of(numbered(key, 1))).await;
        assert_eq!(outcome, Outcome::Applied, "{key:?}");
    }
    let report = running.receiver.report(usize::MAX);
    let mut seen: Vec<_> = report.by_record.keys().cloned().collect();
    keys.sort();
    seen.sort();
    assert_eq!(seen, keys);
    assert_eq!(report.counts.key_mismatches, 0);
    assert_eq!(report.counts.updates, keys.len() as u64);
    running.stop().await;
}

#[tokio::test]
async fn the_order_of_each_record_is_judged() {
    let running = Running::start(ReceiverSettings::default()).await;
    let targets = running.targets();
    for (key, sequence) in [("a", 1), ("b", 2), ("a", 2), ("b", 1), ("a", 2), ("c", 1), ("c", 4)] {
        assert_eq!(targets.attempt(attempt_of(numbered(key, sequence))).await, Outcome::Applied);
    }
    let report = running.receiver.report(2);
    let counts = &report.counts;
    assert_eq!((counts.requests, counts.updates, counts.duplicates), (7, 6, 1));
    assert_eq!((counts.reorders, counts.gaps, counts.overlaps, counts.outdated), (1, 2, 0, 1));
    assert_eq!(report.records, 3);
    assert_eq!(
        report.by_record.keys().collect::<Vec<_>>(),
        ["b", "c"],
        "those with something wrong come first"
    );
    assert_eq!(report.by_record["b"].first_violation.as_deref(), Some("sequence 1 was applied after 2"));

    let report = plain(running.address, "GET /report?records=all").await;
    let report: Report = serde_json::from_str(report.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(report, running.receiver.report(usize::MAX));
    assert!(plain(running.address, "GET /report?records=some").await.starts_with("HTTP/1.1 400"));
    for forget in ["DELETE /report", "POST /reset"] {
        assert_eq!(targets.attempt(attempt_of(numbered("a", 1))).await, Outcome::Applied);
        assert!(plain(running.address, forget).await.starts_with("HTTP/1.1 204"), "{forget}");
        assert_eq!(running.receiver.report(usize::MAX), Report::default());
    }
    running.stop().await;
}

#[tokio::test]
async fn a_records_value_can_be_read() {
    let running = Running::start(ReceiverSettings::default()).await;
    let targets = running.targets();
    for sequence in 1..=3 {
        targets.attempt(attempt_of(numbered("a/b", sequence))).await;
    }
    let answer = plain(running.address, "GET /customers/a%2Fb").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\r\netag: \"3\"\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"sequence\":3}"), "{answer}");
    assert!(plain(running.address, "GET /customers/other").await.starts_with("HTTP/1.1 404"));
    assert!(plain(running.address, "PUT /customers/").await.starts_with("HTTP/1.1 404"));
    assert_eq!(running.receiver.report(0).counts.requests, 3);
}

#[tokio::test]
async fn a_header_that_names_another_record_is_counted() {
    let running = Running::start(ReceiverSettings::default()).await;
    plain(running.address, "PUT /customers/a\r\nlanekeeper-record-key: b\r\n").await;
    plain(running.address, "PUT /customers/a%20b\r\nlanekeeper-record-key: a%20b\r\n").await;
    assert_eq!(running.receiver.report(0).counts.key_mismatches, 1);
}

#[tokio::test]
async fn a_share_of_first_attempts_fails_and_the_next_ones_do_not() {
    let settings = ReceiverSettings {
        fail_share: 0.3,
        fail_with: ["500", "503", "429", "applied-then-500"].map(|fault| fault.parse().unwrap()).to_vec(),
        first_attempts_only: true,
        retry_after: Some(Duration::from_millis(1500)),
        ..ReceiverSettings::default()
    };
    let running = Running::start(settings).await;
    let targets = running.targets();
    let mut failed = 0;
    for n in 1..=500 {
        let attempt = attempt_of(numbered("k", n));
        if let Outcome::Retryable { failure, retry_after } = targets.attempt(attempt.clone()).await {
            failed += 1;
            let asked = matches!(failure.cause, Cause::Status(503 | 429)).then_some(Duration::from_secs(2));
            assert_eq!(retry_after, asked);
            assert_eq!(targets.attempt(Attempt { number: 2, ..attempt }).await, Outcome::Applied);
        }
    }
    let counts = running.receiver.report(0).counts;
    assert!((110..190).contains(&failed), "{failed}");
    assert_eq!(counts.failed, failed);
    assert_eq!((counts.updates, counts.reorders, counts.gaps, counts.overlaps), (500, 0, 0, 0));
    assert!(
        (15..60).contains(&counts.duplicates),
        "those applied and then answered 500: {}",
        counts.duplicates
    );
}

#[tokio::test]
async fn a_failing_record_leaves_the_others_alone() {
    let failing: FailingRecord = "bad=503".parse().unwrap();
    let ended: FailingRecord = "better=500:0s".parse().unwrap();
    let settings = ReceiverSettings { fail_records: vec![failing, ended], ..ReceiverSettings::default() };
    let running = Running::start(settings).await;
    let targets = running.targets();
    for _ in 0..3 {
        assert_eq!(targets.attempt(attempt_of(numbered("bad", 1))).await.kind(), OutcomeKind::Retryable);
        assert_eq!(targets.attempt(attempt_of(numbered("better", 1))).await, Outcome::Applied);
        assert_eq!(targets.attempt(attempt_of(numbered("good", 1))).await, Outcome::Applied);
    }
    assert_eq!(running.receiver.record("bad").unwrap().counts.failed, 3);
    assert_eq!(running.receiver.record("bad").unwrap().counts.updates, 0);
}

#[tokio::test]
async fn a_sender_that_goes_away_ends_its_request() {
    let settings = ReceiverSettings {
        fail_records: vec!["hung=hang".parse().unwrap(), "late=applied-then-hang".parse().unwrap()],
        hang_for: TEST_TIMEOUT * 10,
        ..ReceiverSettings::default()
    };
    let running = Running::start(settings).await;
    let targets = running.targets_with(|config| config.timeout = Duration::from_millis(300));
    for round in 1..=3 {
        for key in ["hung", "late"] {
            match targets.attempt(attempt_of(numbered(key, 1))).await {
                Outcome::Retryable { failure, .. } => assert_eq!(failure.cause, Cause::Timeout),
                other => panic!("{other:?}"),
            }
        }
        running.until(|report| report.in_progress == 0 && report.counts.disconnected == 2 * round).await;
    }
    let (hung, late) = (running.receiver.record("hung").unwrap(), running.receiver.record("late").unwrap());
    assert_eq!((hung.counts.updates, hung.counts.overlaps), (0, 0));
    assert_eq!((late.counts.updates, late.counts.duplicates, late.counts.overlaps), (1, 2, 0));
    running.stop().await;
}

#[tokio::test]
async fn requests_of_one_record_that_run_together_overlap() {
    let settings = ReceiverSettings { latency: Duration::from_millis(100), ..ReceiverSettings::default() };
    let running = Running::start(settings).await;
    let targets = running.targets();
    let (first, second, other) = tokio::join!(
        targets.attempt(attempt_of(numbered("k", 1))),
        targets.attempt(attempt_of(numbered("k", 2))),
        targets.attempt(attempt_of(numbered("other", 1))),
    );
    assert_eq!([first, second, other], [Outcome::Applied, Outcome::Applied, Outcome::Applied]);
    assert_eq!(running.receiver.record("k").unwrap().counts.overlaps, 1);
    assert_eq!(running.receiver.record("other").unwrap().counts.overlaps, 0);
}

#[tokio::test]
async fn idempotency_key_and_if_match_are_honoured() {
    let settings = ReceiverSettings { safeguards: Safeguards::ALL, ..ReceiverSettings::default() };
    let running = Running::start(settings).await;
    let targets = running.targets();
    for _ in 0..3 {
        assert_eq!(targets.attempt(attempt_of(numbered("k", 1))).await, Outcome::Applied);
    }
    let other_body = Update { body: Bytes::from_static(b"{}"), ..numbered("k", 1) };
    assert_eq!(targets.attempt(attempt_of(other_body)).await.kind(), OutcomeKind::Rejected);
    let guarded = |etag: &str, sequence| Update { if_match: Some(etag.into()), ..numbered("k", sequence) };
    assert_eq!(targets.attempt(attempt_of(guarded("\"1\"", 2))).await, Outcome::Applied);
    match targets.attempt(attempt_of(guarded("\"1\"", 3))).await {
        Outcome::Conflict(failure) => {
            assert_eq!(failure.cause, Cause::Status(412));
            assert!(failure.detail.contains("another version"), "{}", failure.detail);
        }
        other => panic!("{other:?}"),
    }
    let counts = running.receiver.record("k").unwrap().counts;
    assert_eq!((counts.updates, counts.duplicates, counts.replayed, counts.rejected), (2, 0, 2, 2));
}

#[tokio::test]
async fn the_etag_is_fetched_where_none_is_known_or_it_is_outdated() {
    let settings = ReceiverSettings {
        safeguards: Safeguards::ALL,
        require_if_match: true,
        ..ReceiverSettings::default()
    };
    let running = Running::start(settings).await;
    let auto = |first_contact| {
        let mut config = target(running.address);
        (config.if_match, config.first_contact) = (IfMatch::Auto, first_contact);
        config.failure.conflict = FailurePolicy::Refetch;
        HttpTargets::new(&[config]).unwrap()
    };
    let send = async |targets: &HttpTargets, sequence, etag: Option<&str>| {
        let etag = etag.map(ToOwned::to_owned);
        targets.send(Attempt { etag, ..attempt_of(numbered("k", sequence)) }).await
    };
    // It is not there: `If-None-Match: *`, with and without asking first.
    let (outcome, receipt) = send(&auto(FirstContact::Create), 1, None).await;
    assert_eq!((outcome, receipt.etag.as_deref()), (Outcome::Applied, Some("\"1\"")));
    let (outcome, receipt) = send(&auto(FirstContact::Get), 2, None).await;
    assert_eq!((outcome, receipt.etag.as_deref()), (Outcome::Applied, Some("\"2\"")), "it is there by now");
    let (outcome, _) = send(&auto(FirstContact::Get), 3, Some("\"2\"")).await;
    assert_eq!(outcome, Outcome::Applied, "the ETag that is known is sent");
    // Somebody else has written, or nobody knew of the record: 412, then the ETag as it is now.
    let (outcome, _) = send(&auto(FirstContact::Get), 4, Some("\"1\"")).await;
    assert_eq!(outcome, Outcome::Applied);
    let (outcome, receipt) = send(&auto(FirstContact::Create), 5, None).await;
    assert_eq!((outcome, receipt.etag.as_deref()), (Outcome::Applied, Some("\"5\"")));
}

#[tokio::test]
async fn stopping_ends_what_hangs_and_it_may_run_again() {
    let settings = ReceiverSettings {
        fail_records: vec!["hung=hang".parse().unwrap()],
        hang_for: TEST_TIMEOUT * 10,
        ..ReceiverSettings::default()
    };
    let running = Running::start(settings).await;
    let targets = running.targets();
    let hung = tokio::spawn(async move { targets.attempt(attempt_of(numbered("hung", 1))).await });
    running.until(|report| report.in_progress == 1).await;
    let (receiver, address) = (running.receiver.clone(), running.address);
    running.stop().await;
    assert_eq!(hung.await.unwrap().kind(), OutcomeKind::Retryable);
    assert_eq!(receiver.report(0).in_progress, 0);

    let listener = TcpListener::bind(address).await.expect("the port is free again");
    let again = receiver.clone();
    tokio::spawn(async move { again.run(listener, std::future::pending()).await });
    assert!(plain(address, "PUT /customers/k").await.starts_with("HTTP/1.1 200"));
    assert_eq!(receiver.report(0).records, 2);
}
