//! `parked list`, `parked show` and `parked export`.

use std::io::{self, Write};
use std::num::NonZeroU32;

use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::process::say_error;
pub(super) use crate::printable::printable as shown;
use crate::wall_time::format_seconds;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, Ledger, Operations, ParkedRecord, ParkedUpdate, StoredParkReason};

/// Records per query.
const RECORDS_PER_QUERY: u32 = 500;

/// Updates per query; each can be as large as `updates.body_bytes_max`.
const UPDATES_PER_QUERY: u32 = 16;

/// Characters of a body that are printed as text.
const BODY_SHOWN_MAX: usize = 2000;

/// Lists the parked records, or one of them.
pub(super) async fn list(
    ledger: &AnyLedger,
    record: Option<&RecordKey>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let line = |record: &ParkedRecord, out: &mut dyn Write| {
        if as_json { writeln!(out, "{}", record_json(record)) } else { row(record, out) }
    };
    if let Some(record_key) = record {
        let Some(record) = ledger.parked_record(record_key).await? else { return Ok(not_parked(record_key)) };
        headings(as_json, out)?;
        line(&record, out)?;
        return Ok(Exit::Done);
    }
    let mut headed = false;
    each_record(ledger, |record| {
        if !std::mem::replace(&mut headed, true) {
            headings(as_json, out)?;
        }
        line(record, out)
    })
    .await?;
    if !headed && !as_json {
        writeln!(out, "Nothing is parked.")?;
    }
    Ok(Exit::Done)
}

fn headings(as_json: bool, out: &mut impl Write) -> io::Result<()> {
    if as_json {
        return Ok(());
    }
    writeln!(
        out,
        "{:<24} {:>7} {:<9} {:<20} {:<20} {:<9} {:>6} DETAIL",
        "RECORD", "UPDATES", "STATE", "SINCE", "HEAD", "REASON", "STATUS"
    )
}

fn row(record: &ParkedRecord, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let StoredParkReason { kind, status, detail, .. } = &record.reason;
    writeln!(
        out,
        "{:<24} {:>7} {:<9} {:<20} {:<20} {:<9} {:>6} {}",
        shown(record.record_key.as_str()),
        record.updates,
        record.state.name(),
        time(record.since_ms),
        shown(&record.head_id),
        kind.name(),
        status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        shown(detail),
    )
}

fn record_json(record: &ParkedRecord) -> Json {
    json!({
        "record_key": record.record_key.as_str(),
        "updates": record.updates,
        "head": record.head_id,
        "type": record.head_type,
        "state": record.state.name(),
        "since": time(record.since_ms),
        "reason": record.reason.kind.name(),
        "status": record.reason.status,
        "detail": record.reason.detail,
        "attempts": record.reason.attempts,
        "partition": record.partition.0,
        "layout": record.layout.0,
        "paused": record.paused,
    })
}

/// Shows the oldest `limit` parked updates of a record.
pub(super) async fn show(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    limit: NonZeroU32,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let Some(record) = ledger.parked_record(record_key).await? else { return Ok(not_parked(record_key)) };
    if !as_json {
        headings(as_json, out)?;
        row(&record, out)?;
    }
    let (mut left, mut after) = (limit.get(), None);
    while left > 0 {
        let updates = ledger.parked_updates(record_key, after, left.min(UPDATES_PER_QUERY)).await?;
        let Some(last) = updates.last() else { return Ok(Exit::Done) };
        after = Some(last.seq);
        for update in &updates {
            if as_json { writeln!(out, "{}", update_json(update))? } else { update_text(update, out)? }
        }
        left = left.saturating_sub(u32::try_from(updates.len()).unwrap_or(u32::MAX));
    }
    if !as_json && record.updates > u64::from(limit.get()) {
        writeln!(out, "\n… and {} more (see --limit)", record.updates - u64::from(limit.get()))?;
    }
    Ok(Exit::Done)
}

fn update_text(parked: &ParkedUpdate, out: &mut impl Write) -> io::Result<()> {
    let ParkedUpdate { seq, update, reason, parked_ms } = parked;
    writeln!(out, "\nupdate {} (number {} in the order of parking)", shown(update.id.as_str()), seq.0)?;
    let status = reason.status.map(|status| format!(", status {status}")).unwrap_or_default();
    writeln!(
        out,
        "  parked    {}: {}{status}, attempts {}",
        time(*parked_ms),
        reason.kind.name(),
        reason.attempts
    )?;
    let mut line = |name: &str, value: Option<String>| match value {
        Some(value) if !value.is_empty() => writeln!(out, "  {name:<9} {}", shown(&value)),
        _ => Ok(()),
    };
    line("detail", Some(reason.detail.clone()))?;
    line("type", update.update_type.clone())?;
    line("version", update.version.map(|version| version.to_string()))?;
    line("if-match", update.if_match.clone())?;
    line("published", update.published_at.map(format_seconds))?;
    line("content", update.content_type.clone())?;
    for (name, value) in &update.headers {
        line("header", Some(format!("{name}: {value}")))?;
    }
    let size = update.body.len();
    match std::str::from_utf8(&update.body) {
        Ok(text) => {
            let begin: String = text.chars().take(BODY_SHOWN_MAX).collect();
            let cut = if begin.len() < size {
                format!(" … ({size} bytes; --json prints all)")
            } else {
                String::new()
            };
            writeln!(out, "  body      {}{cut}", shown(&begin))
        }
        Err(_) => writeln!(out, "  body      {size} bytes, not text (--json prints them in base64)"),
    }
}

/// An update as `parked show --json` prints it.
#[derive(serde::Serialize)]
struct ShownUpdate<'a> {
    seq: i64,
    since: String,
    reason: &'static str,
    status: Option<u16>,
    detail: &'a str,
    attempts: u32,
    update: &'a RawValue,
}

/// The update as `export` prints it, with the reason for which it is parked. Its body stays as it is: it can hold numbers that
/// no program can read.
fn update_json(parked: &ParkedUpdate) -> String {
    let line = RawValue::from_string(parked.update.json_line()).expect("it is a JSON line");
    let shown = ShownUpdate {
        seq: parked.seq.0,
        since: time(parked.parked_ms),
        reason: parked.reason.kind.name(),
        status: parked.reason.status,
        detail: &parked.reason.detail,
        attempts: parked.reason.attempts,
        update: &line,
    };
    serde_json::to_string(&shown).expect("strings and numbers are JSON")
}

/// Prints parked updates as JSON lines for `publish`, record by record, each in order.
pub(super) async fn export(
    ledger: &AnyLedger,
    records: &[RecordKey],
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let mut keys = records.to_vec();
    if keys.is_empty() {
        each_record(ledger, |record| {
            keys.push(record.record_key.clone());
            Ok(())
        })
        .await?;
    }
    let mut exit = Exit::Done;
    for record_key in &keys {
        let (mut after, mut encoded) = (None, false);
        loop {
            let updates = ledger.parked_updates(record_key, after, UPDATES_PER_QUERY).await?;
            let Some(last) = updates.last() else { break };
            after = Some(last.seq);
            for parked in &updates {
                encoded |= parked.update.content_encoding.is_some();
                writeln!(out, "{}", parked.update.json_line())?;
            }
        }
        if after.is_none() && !records.is_empty() {
            exit = not_parked(record_key);
        }
        if encoded {
            say_error(format_args!(
                "warning: updates of {} have a content_encoding, which JSON lines cannot carry",
                shown(record_key.as_str())
            ));
        }
    }
    Ok(exit)
}

/// Calls `visit` with every parked record, in the order of their keys.
async fn each_record(
    ledger: &AnyLedger,
    mut visit: impl FnMut(&ParkedRecord) -> io::Result<()>,
) -> Result<(), CommandError> {
    let mut after = None;
    loop {
        let page = ledger.parked_records(after.as_ref(), RECORDS_PER_QUERY).await?;
        for record in &page {
            visit(record)?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.record_key),
            None => return Ok(()),
        }
    }
}

/// Prints that the record is not parked.
pub(in crate::cli) fn not_parked(record_key: &RecordKey) -> Exit {
    say_error(format_args!("error: {} has no parked updates", shown(record_key.as_str())));
    Exit::Other
}

/// A time of the ledger.
pub(in crate::cli) fn time(ms: i64) -> String {
    format_seconds(u64::try_from(ms).unwrap_or_default() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::message::ParkedSeq;
    use lanekeeper_core::update::UpdateId;
    use lanekeeper_ledger::StoredUpdate;

    #[test]
    fn a_body_is_shown_as_it_is_whatever_numbers_are_in_it() {
        for body in ["{\"x\":1e999}", "-1e-9999", "123456789012345678901234567890", "{\"x\":1,\"x\":2}"] {
            let update = StoredUpdate {
                record_key: RecordKey::new("a").unwrap(),
                id: UpdateId::published("u1"),
                update_type: None,
                content_type: None,
                content_encoding: None,
                if_match: None,
                version: None,
                published_at: None,
                headers: Vec::new(),
                body: body.as_bytes().to_vec().into(),
            };
            let reason = StoredParkReason::behind();
            let parked = ParkedUpdate { seq: ParkedSeq(7), update, reason, parked_ms: 1000 };
            let line = update_json(&parked);
            let expected = format!("\"update\":{{\"key\":\"a\",\"id\":\"u1\",\"body\":{body}}}}}");
            assert!(line.starts_with("{\"seq\":7,") && line.ends_with(&expected), "{line}");
        }
    }
}
