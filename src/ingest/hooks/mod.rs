//! Webhooks of others: verified, and made into updates by what the config says of their parts.

mod verify;

use std::collections::HashMap;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tracing::warn;

use super::parts::{Head, record_key, short, text, unfit, update_id};
use super::problem::{DoorProblem, DoorProblemCode};
use super::request::{at_work, now, of_one, publish_within};
use super::routes::Served;
use super::senders::SenderName;
use crate::config::{HookConfig, HookValue, IngestConfig, Pointer};
use crate::wall_time::unix_millis;
use lanekeeper_broker::publisher::{HeaderValue, Outgoing};

/// The hooks of `[[ingest.hook]]`.
#[derive(Debug)]
pub(super) struct Hooks {
    by_name: HashMap<String, usize>,
    configs: Vec<HookConfig>,
}

impl Hooks {
    pub(super) fn new(config: &IngestConfig) -> Self {
        let names = config.hooks.iter().enumerate().map(|(index, hook)| (hook.name.clone(), index));
        Self { by_name: names.collect(), configs: config.hooks.clone() }
    }
}

/// Takes a webhook.
pub(super) async fn receive(
    served: &Served,
    name: &str,
    request: Request<Body>,
) -> Result<Response, DoorProblem> {
    let (parts, body) = request.into_parts();
    let Some(index) = served.hooks.by_name.get(name).copied() else {
        return Err(DoorProblem::new(
            DoorProblemCode::NotFound,
            "there is no hook of this name in [[ingest.hook]]",
        ));
    };
    let sender = SenderName::Hook(name.to_owned());
    let answer = receive_of(served, (index, &sender), (&parts, body)).await;
    answer.map_err(|problem| problem.of_sender(sender))
}

async fn receive_of(
    served: &Served,
    (index, sender): (usize, &SenderName),
    (parts, body): (&request::Parts, Body),
) -> Result<Response, DoorProblem> {
    let hook = &served.hooks.configs[index];
    let refused = |detail: &'static str, is_signed: bool| {
        served.metrics.signature_failed(&hook.name);
        // Whoever scans the net signs nothing, and is no reason to act.
        if is_signed {
            served.statistics.wrongly_signed(sender);
        }
        let problem = served.guesses.refuse(parts, DoorProblem::new(DoorProblemCode::Unauthorized, detail));
        // Not each of those who try many is worth a line.
        if problem.code() == DoorProblemCode::Unauthorized {
            warn!(hook = hook.name, detail, "webhook refused: its signature is not good");
        }
        problem.caused_by(detail)
    };
    if !verify::is_signed(hook, &parts.headers) {
        return Err(refused("the request has no signature", false));
    }
    let body = served.hook_budget.read(&parts.headers, body, served.limits.body_bytes_max()).await?;
    verify::verify(hook, &parts.headers, &body, now()).map_err(|detail| refused(detail, true))?;
    served.statistics.signed(sender, unix_millis(SystemTime::now()));
    at_work(parts);
    let Some(outgoing) = update(hook, &parts.headers, Head::new(parts).content()?, body)? else {
        return Ok(answer(hook, StatusCode::OK, json!({ "state": "ignored" })));
    };
    served.limits.check(&outgoing)?;
    let (key, id) = (outgoing.record_key.clone(), outgoing.id.clone());
    let client = (served.senders.hooks[index], sender, hook.confirm_timeout);
    let answers = publish_within(served, client, vec![outgoing], false).await?;
    let accepted = of_one(&key, &id, answers[0])?;
    Ok(match hook.answer {
        202 => accepted,
        status => {
            answer(hook, StatusCode::from_u16(status).expect("the config's check has seen it"), json!({}))
        }
    })
}

/// Some senders take only one status for success.
fn answer(hook: &HookConfig, status: StatusCode, body: Json) -> Response {
    match hook.answer {
        204 => StatusCode::NO_CONTENT.into_response(),
        _ => (status, axum::Json(body)).into_response(),
    }
}

type Content =
    (Option<lanekeeper_broker::publisher::ShortText>, Option<lanekeeper_broker::publisher::ShortText>);

/// The update that a webhook is; `None`: its type is ignored.
fn update(
    hook: &HookConfig,
    headers: &HeaderMap,
    (content_type, content_encoding): Content,
    body: Bytes,
) -> Result<Option<Outgoing>, DoorProblem> {
    let json: Json = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body is no JSON, which this hook needs: {error}");
        DoorProblem::new(DoorProblemCode::BadEvent, detail)
    })?;
    let update_type = match &hook.update_type {
        Some(value) => part(value, headers, &json)?,
        None => None,
    };
    if update_type.as_ref().is_some_and(|update_type| hook.ignore_types.contains(update_type)) {
        return Ok(None);
    }
    let key = hook.record_key.iter().find_map(|pointer| at(pointer, &json)).ok_or_else(|| {
        let places: Vec<&str> = hook.record_key.iter().map(Pointer::as_str).collect();
        let detail = format!("there is neither text nor an integer at {} of the body", places.join(", "));
        DoorProblem::new(DoorProblemCode::NoKey, detail)
    })?;
    let id = part(&hook.id, headers, &json)?.ok_or_else(|| {
        DoorProblem::new(DoorProblemCode::NoId, "the webhook has no id where the hook's config says")
    })?;
    let mut passed = Vec::new();
    if let Some(pointer) = &hook.version {
        let version = json.pointer(pointer.as_str()).and_then(Json::as_i64).ok_or_else(|| {
            unfit(format!(
                "there is no integer of 64 bits at {} of the body, where the version is",
                pointer.as_str()
            ))
        })?;
        passed.push((short("record-version", "record-version".to_owned())?, HeaderValue::Integer(version)));
    }
    let update_type =
        update_type.map(|update_type| short("the type", format!("{}{update_type}", hook.type_prefix)));
    Ok(Some(Outgoing {
        record_key: record_key(format!("{}{key}", hook.key_prefix))?,
        id: update_id(format!("{}{id}", hook.id_prefix))?,
        update_type: update_type.transpose()?,
        content_type,
        content_encoding,
        published_at: now(),
        headers: passed,
        body,
    }))
}

fn part(value: &HookValue, headers: &HeaderMap, json: &Json) -> Result<Option<String>, DoorProblem> {
    match value {
        HookValue::Body(pointer) => Ok(at(pointer, json)),
        HookValue::Header(name) => Ok(text(name, headers)?.filter(|text| !text.is_empty())),
        HookValue::Literal(literal) => Ok(Some(literal.clone())),
    }
}

/// Text or an integer. A number with a fraction or too many digits for 64 bits would not be the same for all who read it.
fn at(pointer: &Pointer, json: &Json) -> Option<String> {
    match json.pointer(pointer.as_str())? {
        Json::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Json::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}
