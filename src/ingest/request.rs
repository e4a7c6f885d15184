//! From a request to updates, and from what became of them to an answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::clients::ShownToken;
use super::connections::Activity;
use super::door::Sameness;
use super::metrics::outcome;
use super::parts::{Head, decoded_segment, record_key};
use super::problem::{DoorProblem, DoorProblemCode, ProblemLine};
use super::routes::Served;
use super::senders::SenderName;
use crate::config::IngestConfig;
use crate::wall_time::unix_millis;
use lanekeeper_broker::Decoder;
use lanekeeper_broker::publisher::{Outgoing, ShortText, as_received};
use lanekeeper_core::publish::intake::LineAnswer;
use lanekeeper_core::routes::{Routes, TargetId, TypePattern};
use lanekeeper_core::update::RecordKey;

/// Seconds after which it is worth to send an update again that was not confirmed.
const AGAIN_SECONDS: u64 = 5;

/// What bounds a request.
#[derive(Clone, Debug)]
pub(super) struct RequestLimits {
    pub(super) confirm_timeout: Duration,
    pub(super) require_id: bool,
    pub(super) batch_lines_max: usize,
    pub(super) batch_bytes_max: usize,
    /// As a dispatcher has it, but for the targets, which a door does not know.
    decoder: Decoder,
}

impl RequestLimits {
    pub(super) fn new(config: &IngestConfig, body_bytes_max: usize) -> Self {
        let routes = Routes::new([(TypePattern::Any, TargetId(0))]);
        Self {
            confirm_timeout: config.confirm_timeout,
            require_id: config.require_id,
            batch_lines_max: config.batch_lines_max.get(),
            batch_bytes_max: config.batch_bytes_max,
            decoder: Decoder { routes, require_id: false, body_bytes_max },
        }
    }

    pub(super) fn body_bytes_max(&self) -> usize {
        self.decoder.body_bytes_max
    }

    /// What a dispatcher would dead-letter is refused here.
    pub(super) fn check(&self, outgoing: &Outgoing) -> Result<(), DoorProblem> {
        let unfit = |malformed: lanekeeper_core::policy::Malformed| {
            DoorProblem::new(DoorProblemCode::HeaderUnfit, malformed.to_string())
        };
        as_received(outgoing, &self.decoder).map(|_| ()).map_err(unfit)
    }
}

/// One update, whose record, and perhaps id, is in the path.
pub(super) async fn single(
    served: &Served,
    key: &str,
    id: Option<&str>,
    request: Request<Body>,
) -> Result<Response, DoorProblem> {
    let (parts, body) = request.into_parts();
    let client = authorized(served, &parts)?;
    let head = Head::new(&parts);
    let answer = async {
        let record_key = record_key(decoded_segment(key)?)?;
        let id = id.map(decoded_segment).transpose()?;
        one(served, client, &head, record_key, id, (&parts, body)).await
    };
    answer.await.map_err(|problem| problem.of_sender(name_of(served, client)))
}

async fn one(
    served: &Served,
    client: usize,
    head: &Head<'_>,
    record_key: RecordKey,
    id: Option<String>,
    (parts, body): (&request::Parts, Body),
) -> Result<Response, DoorProblem> {
    allowed(served, client, head.update_type()?.as_deref())?;
    // The head is looked at before the body is read.
    head.update(record_key.clone(), id.clone(), served.limits.require_id, Bytes::new(), now())?;
    let body = served.budget.read(&parts.headers, body, served.limits.body_bytes_max()).await?;
    let outgoing = head.update(record_key, id, served.limits.require_id, body, now())?;
    served.limits.check(&outgoing)?;
    let (key, id) = (outgoing.record_key.clone(), outgoing.id.clone());
    let answers = publish(served, client, vec![outgoing], false).await?;
    of_one(&key, &id, answers[0])
}

/// Several updates, or a `CloudEvent`: the record keys are not in the path.
pub(super) async fn several(served: &Served, request: Request<Body>) -> Result<Response, DoorProblem> {
    let (parts, body) = request.into_parts();
    let client = authorized(served, &parts)?;
    several_of(served, client, (&parts, body))
        .await
        .map_err(|problem| problem.of_sender(name_of(served, client)))
}

async fn several_of(
    served: &Served,
    client: usize,
    (parts, body): (&request::Parts, Body),
) -> Result<Response, DoorProblem> {
    let head = Head::new(parts);
    if head.is_cloud_event() {
        let record_key = head.cloud_event_key()?;
        return one(served, client, &head, record_key, None, (parts, body)).await;
    }
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let batch = super::batch::Batch::of(media_type).ok_or_else(|| {
        let detail = "send application/x-ndjson, application/cloudevents+json or application/cloudevents-batch+json, or one \
                      update to /updates/{record_key}";
        DoorProblem::new(DoorProblemCode::Unsupported, detail)
    })?;
    let bytes_max = match batch {
        super::batch::Batch::Event => served.limits.batch_bytes_max.min(line_bytes_max(served)),
        _ => served.limits.batch_bytes_max,
    };
    let body = served.budget.read(&parts.headers, body, bytes_max).await?;
    let updates = batch.updates(&body, &served.limits, now())?;
    for (index, outgoing) in updates.iter().enumerate() {
        let checked = allowed(served, client, outgoing.update_type.as_ref().map(ShortText::as_str))
            .and_then(|()| served.limits.check(outgoing));
        checked.map_err(|problem| problem.of_line(index + 1))?;
    }
    if updates.is_empty() {
        return Ok((StatusCode::ACCEPTED, axum::Json(json!({ "accepted": 0 }))).into_response());
    }
    if let (super::batch::Batch::Event, [outgoing]) = (&batch, updates.as_slice()) {
        let (key, id) = (outgoing.record_key.clone(), outgoing.id.clone());
        let answers = publish(served, client, updates, false).await?;
        return of_one(&key, &id, answers[0]);
    }
    let answers = publish(served, client, updates, true).await?;
    of_several(&answers)
}

fn line_bytes_max(served: &Served) -> usize {
    lanekeeper_broker::publisher::json_line::line_bytes_max(served.limits.body_bytes_max())
}

fn authorized(served: &Served, parts: &request::Parts) -> Result<usize, DoorProblem> {
    let unauthorized =
        DoorProblem::new(DoorProblemCode::Unauthorized, "show the token of a client of [[ingest.client]]");
    match served.clients.find(&parts.headers) {
        ShownToken::Of(client) => {
            at_work(parts);
            Ok(client)
        }
        ShownToken::Wrong => Err(served.guesses.refuse(parts, unauthorized)),
        ShownToken::None => Err(unauthorized),
    }
}

/// We know who sends: no further connection takes the place of this one.
pub(super) fn at_work(parts: &request::Parts) {
    if let Some(activity) = parts.extensions.get::<Activity>() {
        activity.begin();
    }
}

fn allowed(served: &Served, client: usize, update_type: Option<&str>) -> Result<(), DoorProblem> {
    if served.clients.may_send(client, update_type) {
        return Ok(());
    }
    let detail = match update_type {
        Some(update_type) => format!("this client may not send updates of type {update_type:?}"),
        None => "this client may not send updates without a type: set lanekeeper-type".to_owned(),
    };
    Err(DoorProblem::new(DoorProblemCode::TypeNotAllowed, detail))
}

/// Publishes all of them, or none, and waits until each is confirmed or withdrawn.
async fn publish(
    served: &Served,
    client: usize,
    updates: Vec<Outgoing>,
    is_batch: bool,
) -> Result<Vec<LineAnswer>, DoorProblem> {
    let (name, timeout) = (name_of(served, client), served.limits.confirm_timeout);
    publish_within(served, (served.senders.clients[client], &name, timeout), updates, is_batch).await
}

fn name_of(served: &Served, client: usize) -> SenderName {
    SenderName::Client(served.clients.name(client).to_owned())
}

/// As `publish`, for the sender with this number, name and time.
pub(super) async fn publish_within(
    served: &Served,
    (sender, name, confirm_timeout): (usize, &SenderName, Duration),
    updates: Vec<Outgoing>,
    is_batch: bool,
) -> Result<Vec<LineAnswer>, DoorProblem> {
    let begun = Instant::now();
    let sameness = match name {
        SenderName::Client(_) => Sameness::IdAndBody,
        SenderName::Hook(_) => Sameness::Id,
    };
    let waiting = served.door.take(sender, updates, confirm_timeout, sameness);
    let waiting = waiting.map_err(|reason| DoorProblem::not_taken(reason, is_batch))?;
    let answers = waiting.answer().await;
    served.metrics.updates(name.as_str(), &answers);
    served.statistics.answered(name, &answers, unix_millis(SystemTime::now()));
    if answers.iter().all(|answer| *answer == LineAnswer::Accepted) {
        served.metrics.confirmed(begun.elapsed());
    }
    Ok(answers)
}

pub(super) fn of_one(key: &RecordKey, id: &ShortText, answer: LineAnswer) -> Result<Response, DoorProblem> {
    match answer {
        LineAnswer::Accepted | LineAnswer::Known => {
            let body =
                json!({ "record_key": key.as_str(), "update_id": id.as_str(), "state": outcome(answer) });
            Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
        }
        LineAnswer::NotAccepted | LineAnswer::Unknown => Err(failed(answer == LineAnswer::Unknown)),
    }
}

fn of_several(answers: &[LineAnswer]) -> Result<Response, DoorProblem> {
    let is_done = |answer: &LineAnswer| matches!(answer, LineAnswer::Accepted | LineAnswer::Known);
    if answers.iter().all(is_done) {
        let count = |kind| answers.iter().filter(|answer| **answer == kind).count();
        let body = json!({ "accepted": count(LineAnswer::Accepted), "known": count(LineAnswer::Known) });
        return Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response());
    }
    // If a part is there, nobody may take the whole for refused.
    let may_be_there = answers.iter().any(|answer| *answer != LineAnswer::NotAccepted);
    let lines = answers.iter().enumerate().map(|(index, answer)| ProblemLine {
        line: index + 1,
        state: Some(outcome(*answer)),
        detail: None,
    });
    Err(failed(may_be_there).lines(lines.collect()))
}

fn failed(may_be_there: bool) -> DoorProblem {
    let (code, detail) = if may_be_there {
        let detail =
            "it was published, and the broker has not confirmed it in time: send it again with the same id";
        (DoorProblemCode::OutcomeUnknown, detail)
    } else {
        let detail = "the broker has not taken it in time, and will not get it: send it again";
        (DoorProblemCode::NotAccepted, detail)
    };
    DoorProblem::new(code, detail).retry_after(AGAIN_SECONDS)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
