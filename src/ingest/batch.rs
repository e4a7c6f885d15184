//! Several updates in one body.

use super::cloud_events;
use super::problem::{DoorProblem, DoorProblemCode};
use super::request::RequestLimits;
use lanekeeper_broker::publisher::Outgoing;
use lanekeeper_broker::publisher::json_line::{self, MissingIds, line_bytes_max};
use lanekeeper_broker::publisher::line_reader::{InputLine, LineReader};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a body has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Lines, as `lanekeeper publish` reads them.
    Lines,
    /// One `CloudEvent`.
    Event,
    /// A list of them.
    Events,
}

impl Batch {
    /// By its media type.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        match media_type.to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/jsonl" => Some(Self::Lines),
            "application/cloudevents+json" => Some(Self::Event),
            "application/cloudevents-batch+json" => Some(Self::Events),
            _ => None,
        }
    }

    /// The updates, in their order.
    pub(super) fn updates(
        self,
        body: &[u8],
        limits: &RequestLimits,
        now: u64,
    ) -> Result<Vec<Outgoing>, DoorProblem> {
        let updates = match self {
            Self::Lines => lines(body, limits, now)?,
            Self::Event => vec![cloud_events::update(body, now)?],
            Self::Events => cloud_events::updates(body, limits.batch_lines_max, now)?,
        };
        if updates.len() > limits.batch_lines_max {
            return Err(too_many(limits.batch_lines_max));
        }
        Ok(updates)
    }
}

pub(super) fn too_many(lines_max: usize) -> DoorProblem {
    let detail = format!("the request has more than ingest.batch_lines_max = {lines_max} updates: split it");
    DoorProblem::new(DoorProblemCode::BodyTooLarge, detail)
}

fn lines(body: &[u8], limits: &RequestLimits, now: u64) -> Result<Vec<Outgoing>, DoorProblem> {
    let ids = if limits.require_id { MissingIds::Refused } else { MissingIds::Made };
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let bytes_max = line_bytes_max(limits.body_bytes_max());
    let mut reader = LineReader::new(body, bytes_max);
    let mut updates = Vec::new();
    for number in 1.. {
        let line = reader.next_line().expect("a slice can be read");
        let parsed = match line {
            None => break,
            Some(InputLine::TooLong { bytes }) => Err(json_line::BadLine::LineTooLong { bytes, bytes_max }),
            Some(InputLine::Whole(line)) if line.iter().all(u8::is_ascii_whitespace) => continue,
            Some(InputLine::Whole(line)) => json_line::parse_with(ids, line, limits.body_bytes_max(), now),
        };
        let update = parsed.map_err(|bad| {
            let code = if matches!(bad, json_line::BadLine::NoId) {
                DoorProblemCode::NoId
            } else {
                DoorProblemCode::BadLine
            };
            DoorProblem::new(code, bad.to_string()).of_line(number)
        })?;
        updates.push(update);
        if updates.len() > limits.batch_lines_max {
            return Err(too_many(limits.batch_lines_max));
        }
    }
    Ok(updates)
}
