//! What real APIs do to their callers: rate limits, outages, and firewalls.

use std::net::SocketAddr;
use std::time::Duration;

use lanekeeper_lab::receiver::{
    Outage, PlannedOutage, RateLimit, RateLimitFields, Receiver, ReceiverSettings, RefusalBody, SecondCounts,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::TEST_TIMEOUT;

/// One request over a connection of its own; the whole answer.
async fn send(address: SocketAddr, method: &str, record: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} /records/{record} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(TEST_TIMEOUT, stream.read_to_string(&mut answer))
        .await
        .expect("it answers")
        .unwrap();
    answer
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

async fn started(settings: ReceiverSettings) -> (Receiver, SocketAddr) {
    let receiver = Receiver::new(settings);
    let address = receiver.spawn().await.unwrap();
    (receiver, address)
}

/// Two requests, and then one a minute.
fn limited(fields: RateLimitFields, refusal: RefusalBody) -> ReceiverSettings {
    let limit = RateLimit { capacity: Some(2), fields, refusal, .."1/1m".parse().unwrap() };
    ReceiverSettings { rate_limit: Some(limit), ..ReceiverSettings::default() }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_not_applied_whatever_their_record() {
    let (receiver, address) = started(limited(RateLimitFields::RateLimit, RefusalBody::Problem)).await;
    let field = |answer: &str| {
        answer.lines().find_map(|line| line.strip_prefix("ratelimit: \"default\";")).unwrap().to_owned()
    };
    let answers = [
        send(address, "PUT", "a").await,
        send(address, "GET", "a").await,
        send(address, "PUT", "b").await,
        send(address, "GET", "a").await,
    ];
    assert_eq!(answers.each_ref().map(|answer| status(answer)), [200, 200, 429, 429]);
    assert_eq!(
        answers.each_ref().map(|answer| field(answer)),
        ["r=1;t=60", "r=0;t=120", "r=0;t=120", "r=0;t=120"]
    );
    assert!(answers[2].contains("\r\ncontent-type: application/problem+json\r\n"), "{}", answers[2]);

    let report = receiver.report(0);
    assert_eq!((report.counts.requests, report.counts.updates, report.counts.limited), (2, 1, 1));
    assert_eq!((report.counts.failed, report.counts.rejected, report.in_progress), (0, 0, 0));
    let limit = report.rate_limit.unwrap();
    assert_eq!(limit.total, SecondCounts { accepted: 2, refused: 2 });
    assert_eq!(limit.shares(0..limit.now + 1).unwrap().counts, limit.total);

    receiver.forget().await.unwrap();
    assert_eq!(status(&send(address, "PUT", "a").await), 429, "what was spent stays spent");
    assert_eq!(receiver.rate_limit().unwrap().total, SecondCounts { accepted: 0, refused: 1 });
}

#[tokio::test]
async fn a_refusal_can_be_plain_text_that_says_when_to_come_again() {
    let (_, address) = started(limited(RateLimitFields::RetryAfter, RefusalBody::Plain)).await;
    for _ in 0..2 {
        assert!(!send(address, "PUT", "a").await.contains("retry-after"));
    }
    let refused = send(address, "PUT", "a").await;
    assert!(refused.contains("\r\nretry-after: 60\r\n") && refused.ends_with("\r\n\r\ntoo many requests\n"));
}

#[tokio::test]
async fn an_outage_begins_and_ends_on_request_and_spends_nothing_of_the_limit() {
    let (receiver, address) = started(limited(RateLimitFields::XRateLimit, RefusalBody::Problem)).await;
    let retry_after = Some(Duration::from_millis(4500));
    receiver.begin_outage(Outage { retry_after, ..Outage::of_all("page-503".parse().unwrap()) });
    for method in ["PUT", "GET", "PUT"] {
        let answer = send(address, method, "a").await;
        assert_eq!(status(&answer), 503);
        for part in ["\r\nretry-after: 5\r\n", "text/html", "<h1>503 Service Unavailable</h1>"] {
            assert!(answer.contains(part), "{part} in {answer}");
        }
        assert!(!answer.contains("x-ratelimit"), "the gateway does not know of the limit: {answer}");
    }
    receiver.end_outage();
    let answer = send(address, "PUT", "a").await;
    assert!(answer.contains("\r\nx-ratelimit-remaining: 1\r\n"), "{answer}");
    let counts = receiver.report(0).counts;
    assert_eq!((counts.requests, counts.failed, counts.updates), (3, 2, 1));
}

#[tokio::test]
async fn an_outage_of_half_of_the_records_spares_the_others() {
    let outage = Outage { share: 0.5, ..Outage::of_all("gateway-404".parse().unwrap()) };
    let planned = PlannedOutage { outage, after: Duration::ZERO, lasts: None };
    let (_, address) =
        started(ReceiverSettings { outage: Some(planned), ..ReceiverSettings::default() }).await;
    let mut failed = 0;
    for record in (0..40).map(|number| format!("record-{number}")) {
        let answer = send(address, "PUT", &record).await;
        let expected = if outage.is_of(&record, 1) { 404 } else { 200 };
        assert_eq!(status(&answer), expected);
        assert_eq!(expected == 404, answer.ends_with("no backend answers\n"));
        assert_eq!(status(&send(address, "PUT", &record).await), expected, "the same records always");
        failed += u64::from(expected == 404);
    }
    assert!((10..=30).contains(&failed), "{failed}");
}

#[tokio::test]
async fn a_firewall_blocks_one_record_and_another_one_has_a_limit_of_its_own() {
    let fail_records = ["blocked=page-403", "busy=429:retry-after-3s"].map(|text| text.parse().unwrap());
    let settings = ReceiverSettings { fail_records: fail_records.to_vec(), ..ReceiverSettings::default() };
    let (_, address) = started(settings).await;
    let blocked = send(address, "PUT", "blocked").await;
    assert!(status(&blocked) == 403 && blocked.contains("<h1>403 Forbidden</h1>"), "{blocked}");
    let busy = send(address, "PUT", "busy").await;
    assert!(status(&busy) == 429 && busy.contains("\r\nretry-after: 3\r\n"), "{busy}");
    assert_eq!(status(&send(address, "PUT", "other").await), 200);
}
