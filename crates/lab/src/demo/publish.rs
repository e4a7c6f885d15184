//! Publishing as a publisher in any language does it: persistent, mandatory, with confirms.

use std::cell::Cell;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::DemoError;
use super::stage::Stage;
use super::workload::Planned;
use lanekeeper_broker::publisher::{
    HeaderValue, OutboxLimits, Outgoing, PublishReceipt, PublishResult, Publisher, PublisherEvent,
    PublisherSettings, ShortText, Submission, SubmissionId,
};

/// Updates that wait between their source and the publisher.
const SUBMISSIONS_MAX: usize = 64;

/// A publisher for so many updates.
pub(super) async fn connect(stage: &Stage, updates: usize) -> Result<Publisher, DemoError> {
    let settings = PublisherSettings {
        connection: stage.broker.clone(),
        instance: "demo".to_owned(),
        exchange: ShortText::new(stage.exchange.as_str()).expect("it is short"),
        limits: OutboxLimits {
            in_flight_max: updates,
            held_max: updates,
            held_bytes_max: usize::MAX,
            give_up_after: None,
            abandoned_max: 0,
        },
    };
    Ok(Publisher::connect(settings).await?)
}

/// Publishes each update when it is due. When this has returned, RabbitMQ has confirmed all of them.
pub(super) async fn all(
    publisher: Publisher,
    updates: &[Planned],
    begun: Instant,
    confirmed: &Cell<u64>,
) -> Result<(), DemoError> {
    let (sender, receiver) = mpsc::channel(SUBMISSIONS_MAX);
    let producing = async move {
        for (submission_id, planned) in (0..).map(SubmissionId).zip(updates) {
            sleep_until(begun + planned.due).await;
            let submission = Submission { submission_id, outgoing: outgoing(planned) };
            if sender.send(submission).await.is_err() {
                break; // the publisher has ended, and says why
            }
        }
    };
    let on_event = |event| {
        if let PublisherEvent::PublishReceipt(PublishReceipt { result: PublishResult::Confirmed, .. }) = event
        {
            confirmed.set(confirmed.get() + 1);
        }
    };
    let ((), ended) = tokio::join!(producing, publisher.run(receiver, on_event, std::future::pending()));
    ended?;
    match updates.len() as u64 - confirmed.get() {
        0 => Ok(()),
        missing => Err(DemoError::NotConfirmed(missing)),
    }
}

fn outgoing(planned: &Planned) -> Outgoing {
    let short = |text: &str| ShortText::new(text).expect("it is short");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Outgoing {
        record_key: planned.record_key.clone(),
        id: short(&planned.id),
        update_type: Some(short("customer.updated")),
        content_type: Some(short("application/json")),
        content_encoding: None,
        published_at: now.map_or(0, |since| since.as_secs()),
        headers: planned.version.map(version_headers).unwrap_or_default(),
        body: planned.body.clone(),
    }
}

fn version_headers(version: i64) -> Vec<(ShortText, HeaderValue)> {
    vec![(ShortText::new("record-version").expect("it is short"), HeaderValue::Integer(version))]
}
