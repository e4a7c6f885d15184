//! Writes many entries in one transaction.

use std::collections::BTreeMap;

use sqlx::{Row as _, query};

use super::super::database::{
    Connection, LOCK_PARKED_RECORD, begin, keep_records, keep_resolved, tenure_rows,
};
use super::pauses;
use crate::config::LedgerConfig;
use crate::entry::{Entry, EntryKind, ParkKind, ParkedSeq, Recorded, StoredParkReason};
use crate::fingerprint::Fingerprint;
use crate::parked::OperatorReason;
use crate::rows::{self, RecordRow, ResolvedRow, number};
use crate::stored::StoredUpdate;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::{IdOrigin, RecordKey, UpdateId};

/// How much may be parked: `ledger.parked_max` and `ledger.parked_record_max`.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub parked_max: u64,
    pub parked_record_max: u64,
}

impl Bounds {
    pub fn of(config: &LedgerConfig) -> Self {
        Self { parked_max: config.parked_max, parked_record_max: config.parked_record_max }
    }
}

/// A call of the batcher that commits.
#[derive(Clone, Debug)]
pub enum Write {
    /// An entry.
    Entry(Box<Entry>),
    /// A tenure begins.
    Claim(LayoutNumber, PartitionNumber, TenureNumber),
}

impl Write {
    fn partition_key(&self) -> (i64, i64) {
        let (layout, partition) = match self {
            Self::Entry(entry) => (entry.layout, entry.partition),
            Self::Claim(layout, partition, _) => (*layout, *partition),
        };
        (layout.0.into(), partition.0.into())
    }

    /// The size of its body.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Entry(entry) => match &entry.kind {
                EntryKind::Park { update, .. } => update.body.len(),
                EntryKind::Applied { .. } | EntryKind::Resolved { .. } | EntryKind::Repark { .. } => 0,
            },
            Self::Claim(..) => 0,
        }
    }

    fn tenure(&self) -> Option<i64> {
        match self {
            Self::Entry(entry) => entry.tenure.map(|tenure| number(tenure.0)),
            Self::Claim(_, _, tenure) => Some(number(tenure.0)),
        }
    }
}

/// Writes all of them in one transaction. When it has returned, those answered with `Done` are committed. If it fails, none
/// is; if the connection was lost during the commit, all or none.
pub async fn commit(
    connection: &mut Connection,
    writes: &[Write],
    bounds: Bounds,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let mut transaction = begin(connection).await?;
    let answers = write(&mut transaction, writes, bounds).await?;
    transaction.commit().await?;
    Ok(answers)
}

/// As [`commit`], within a transaction.
pub async fn write(
    connection: &mut Connection,
    writes: &[Write],
    bounds: Bounds,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let highest = fence(connection, writes).await?;
    let fenced = |write: &Write| {
        write.tenure().is_some_and(|tenure| {
            highest.get(&write.partition_key()).is_some_and(|highest| *highest > tenure)
        })
    };
    let mut answers: Vec<Recorded> =
        writes.iter().map(|write| if fenced(write) { Recorded::Fenced } else { Recorded::Done }).collect();
    let mut entries: Vec<(usize, &Entry)> = Vec::with_capacity(writes.len());
    for (index, write) in writes.iter().enumerate() {
        if let (Write::Entry(entry), Recorded::Done) = (write, answers[index]) {
            entries.push((index, entry));
        }
    }
    // All processes lock rows in the same order, so that no two wait for each other. The sort is stable.
    entries.sort_by(|(_, a), (_, b)| a.record_key.cmp(&b.record_key));

    let mut batch = Batch {
        connection,
        now: rows::now_ms(),
        room: None,
        room_of_record: None,
        resolved: Vec::new(),
        records: BTreeMap::new(),
    };
    for (index, entry) in entries {
        answers[index] = batch.entry(entry, bounds).await?;
    }
    let Batch { connection, now, resolved, records, .. } = batch;
    if !resolved.is_empty() {
        keep_resolved(connection, &resolved, now).await?;
    }
    if !records.is_empty() {
        let records: Vec<_> = records.into_iter().collect();
        keep_records(connection, &records, now).await?;
    }
    Ok(answers)
}

/// The highest tenure of each partition that is written to, including the tenures of `writes`. PostgreSQL lets nobody change
/// them until the transaction ends.
async fn fence(
    connection: &mut Connection,
    writes: &[Write],
) -> Result<BTreeMap<(i64, i64), i64>, sqlx::Error> {
    let mut ours: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for write in writes {
        if let Some(tenure) = write.tenure() {
            let highest = ours.entry(write.partition_key()).or_insert(tenure);
            *highest = tenure.max(*highest);
        }
    }
    if ours.is_empty() {
        return Ok(ours);
    }
    let partition_keys: Vec<(i64, i64)> = ours.keys().copied().collect();
    let known = tenures(connection, &partition_keys).await?;
    let newer: Vec<_> = ours
        .iter()
        .filter(|(partition_key, tenure)| known.get(partition_key).is_none_or(|known| known < tenure))
        .collect();
    if newer.is_empty() {
        return Ok(known);
    }
    for ((layout, partition), tenure) in newer {
        query(
            "INSERT INTO ledger_tenure (layout, partition, number) VALUES ($1, $2, $3)
             ON CONFLICT (layout, partition) DO UPDATE SET number = excluded.number
             WHERE ledger_tenure.number < excluded.number",
        )
        .bind(layout)
        .bind(partition)
        .bind(tenure)
        .execute(&mut *connection)
        .await?;
    }
    // Another process may have written a higher one.
    tenures(connection, &partition_keys).await
}

/// The highest tenures of partitions, including those of `partition_keys`.
async fn tenures(
    connection: &mut Connection,
    partition_keys: &[(i64, i64)],
) -> Result<BTreeMap<(i64, i64), i64>, sqlx::Error> {
    let found = tenure_rows(connection, partition_keys).await?;
    found
        .iter()
        .map(|row| Ok(((row.try_get("layout")?, row.try_get("partition")?), row.try_get("number")?)))
        .collect()
}

/// The state of one transaction.
struct Batch<'a> {
    connection: &'a mut Connection,
    now: i64,
    /// How many more updates may be parked; `None`: not counted yet.
    room: Option<u64>,
    /// The same of the record that was parked last: entries come record by record.
    room_of_record: Option<(&'a RecordKey, u64)>,
    resolved: Vec<ResolvedRow<'a>>,
    records: BTreeMap<&'a RecordKey, RecordRow<'a>>,
}

impl<'a> Batch<'a> {
    async fn entry(&mut self, entry: &'a Entry, bounds: Bounds) -> Result<Recorded, sqlx::Error> {
        let record_key = &entry.record_key;
        match &entry.kind {
            EntryKind::Applied { id, fingerprint, version, status, etag, parked } => {
                self.resolve(record_key, id, *fingerprint, "applied", Some(*status));
                let row = self.records.entry(record_key).or_insert(RecordRow {
                    version: None,
                    etag: None,
                    update_id: id.as_str(),
                });
                row.version = row.version.max(*version);
                row.etag = etag.as_deref();
                row.update_id = id.as_str();
                self.leave(record_key, *parked).await?;
                Ok(Recorded::Done)
            }
            EntryKind::Resolved { id, fingerprint, resolution, parked } => {
                self.resolve(record_key, id, *fingerprint, resolution.name(), None);
                self.leave(record_key, *parked).await?;
                Ok(Recorded::Done)
            }
            EntryKind::Park { update, reason, only_behind } => {
                self.park(entry, update, reason, *only_behind, bounds).await
            }
            EntryKind::Repark { seq, reason } if reason.kind == ParkKind::Behind => {
                self.lock_parked_record(record_key).await?;
                let Some(reason) = self.reason_if_paused(record_key).await? else {
                    return Ok(Recorded::NotParked);
                };
                self.repark(record_key, *seq, &reason).await?;
                Ok(Recorded::Done)
            }
            EntryKind::Repark { seq, reason } => {
                self.repark(record_key, *seq, reason).await?;
                Ok(Recorded::Done)
            }
        }
    }

    fn resolve(
        &mut self,
        record_key: &'a RecordKey,
        id: &'a UpdateId,
        fingerprint: Fingerprint,
        resolution: &'static str,
        status: Option<u16>,
    ) {
        // An id that was made for a delivery cannot come again.
        if id.origin() == IdOrigin::Publisher {
            let update_id = id.as_str();
            self.resolved.push(ResolvedRow { update_id, record_key, fingerprint, resolution, status });
        }
    }

    async fn leave(&mut self, record_key: &RecordKey, parked: Option<ParkedSeq>) -> Result<(), sqlx::Error> {
        let Some(ParkedSeq(seq)) = parked else { return Ok(()) };
        self.lock_parked_record(record_key).await?;
        query("DELETE FROM ledger_parked_update WHERE seq = $1 AND record_key = $2")
            .bind(seq)
            .bind(rows::key(record_key))
            .execute(&mut *self.connection)
            .await?;
        unpark_if_empty(self.connection, record_key).await
    }

    async fn park(
        &mut self,
        entry: &'a Entry,
        update: &StoredUpdate,
        reason: &StoredParkReason,
        only_behind: bool,
        bounds: Bounds,
    ) -> Result<Recorded, sqlx::Error> {
        let record_key = &entry.record_key;
        let key = rows::key(record_key);
        let is_parked = self.lock_parked_record(&entry.record_key).await?;
        let mut reason = reason;
        let of_pause;
        if only_behind && !is_parked {
            let Some(paused) = self.reason_if_paused(record_key).await? else {
                return Ok(Recorded::NotParked);
            };
            of_pause = paused;
            reason = &of_pause;
        }
        let fingerprint = update.fingerprint();
        let written = query(
            "SELECT 1 AS one FROM ledger_parked_update
             WHERE record_key = $1 AND update_id = $2 AND fingerprint = $3
             UNION ALL
             SELECT 1 FROM ledger_resolved_update
             WHERE record_key = $1 AND update_id = $2 AND fingerprint = $3
             UNION ALL
             SELECT 1 FROM ledger_resolved_shared_id
             WHERE record_key = $1 AND update_id = $2 AND fingerprint = $3",
        )
        .bind(key)
        .bind(update.id.as_str())
        .bind(&fingerprint.0[..])
        .fetch_optional(&mut *self.connection)
        .await?;
        if written.is_some() {
            return Ok(Recorded::Done);
        }
        let room = match self.room {
            Some(room) => room,
            None => bounds.parked_max.saturating_sub(parked_updates(self.connection).await?),
        };
        if room == 0 {
            self.room = Some(0);
            return Ok(Recorded::Full);
        }
        let room_of_record = match self.room_of_record {
            Some((of, room)) if of == record_key => room,
            _ => {
                let parked = parked_updates_of(self.connection, record_key, bounds.parked_record_max).await?;
                bounds.parked_record_max.saturating_sub(parked)
            }
        };
        self.room_of_record = Some((record_key, room_of_record.saturating_sub(1)));
        if room_of_record == 0 {
            return Ok(Recorded::RecordFull);
        }
        self.room = Some(room - 1);
        // The record first: this locks its row in PostgreSQL, as does whoever deletes updates of the record.
        if !only_behind || !is_parked {
            self.park_record(entry, reason).await?;
        }
        query(
            "INSERT INTO ledger_parked_update (record_key, update_id, id_published, fingerprint, reason, status,
                 detail, attempts, layout, partition, tenure, parked_ms, envelope, body)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(key)
        .bind(update.id.as_str())
        .bind(i64::from(update.id.origin() == IdOrigin::Publisher))
        .bind(&fingerprint.0[..])
        .bind(reason.kind.name())
        .bind(reason.status.map(i64::from))
        .bind(rows::text(&reason.detail))
        .bind(i64::from(reason.attempts))
        .bind(i64::from(entry.layout.0))
        .bind(i64::from(entry.partition.0))
        .bind(entry.tenure.map(|tenure| number(tenure.0)))
        .bind(self.now)
        .bind(update.envelope())
        .bind(&update.body[..])
        .execute(&mut *self.connection)
        .await?;
        Ok(Recorded::Done)
    }

    /// Why the record is parked if a person has paused it; `None`: nobody has. Its row of parked records is locked.
    async fn reason_if_paused(
        &mut self,
        record_key: &RecordKey,
    ) -> Result<Option<StoredParkReason>, sqlx::Error> {
        let pause = pauses::lock_pause(self.connection, record_key).await?;
        let reason = |operator_reason: OperatorReason| StoredParkReason {
            detail: pauses::detail(&operator_reason),
            ..StoredParkReason::behind()
        };
        Ok(pause.map(reason))
    }

    /// Parks the record. If it is parked or released already, it stays as it is, and the update is only appended.
    async fn park_record(&mut self, entry: &Entry, reason: &StoredParkReason) -> Result<(), sqlx::Error> {
        query(
            "INSERT INTO ledger_parked_record
                 (record_key, state, since_ms, layout, partition, reason, status, detail, attempts)
             VALUES ($1, 'parked', $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (record_key) DO UPDATE SET layout = excluded.layout, partition = excluded.partition",
        )
        .bind(rows::key(&entry.record_key))
        .bind(self.now)
        .bind(i64::from(entry.layout.0))
        .bind(i64::from(entry.partition.0))
        .bind(reason.kind.name())
        .bind(reason.status.map(i64::from))
        .bind(rows::text(&reason.detail))
        .bind(i64::from(reason.attempts))
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn repark(
        &mut self,
        record_key: &RecordKey,
        seq: ParkedSeq,
        reason: &StoredParkReason,
    ) -> Result<(), sqlx::Error> {
        query(
            "UPDATE ledger_parked_record
             SET state = 'parked', since_ms = $2, reason = $3, status = $4, detail = $5, attempts = $6
             WHERE record_key = $1
                 AND EXISTS (SELECT 1 FROM ledger_parked_update WHERE seq = $7 AND record_key = $1)",
        )
        .bind(rows::key(record_key))
        .bind(self.now)
        .bind(reason.kind.name())
        .bind(reason.status.map(i64::from))
        .bind(rows::text(&reason.detail))
        .bind(i64::from(reason.attempts))
        .bind(seq.0)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Whether the record is parked. Nobody changes that until the transaction ends.
    async fn lock_parked_record(&mut self, record_key: &RecordKey) -> Result<bool, sqlx::Error> {
        lock_parked_record(self.connection, record_key).await.map(|state| state.is_some())
    }
}

/// The state of a parked record; `None`: it is not parked. Nobody changes that until the transaction ends.
pub async fn lock_parked_record(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<String>, sqlx::Error> {
    let row = query(LOCK_PARKED_RECORD).bind(rows::key(record_key)).fetch_optional(connection).await?;
    row.map(|row| row.try_get("state")).transpose()
}

/// Without parked updates, the record is no longer parked.
pub async fn unpark_if_empty(connection: &mut Connection, record_key: &RecordKey) -> Result<(), sqlx::Error> {
    query(
        "DELETE FROM ledger_parked_record WHERE record_key = $1
         AND NOT EXISTS (SELECT 1 FROM ledger_parked_update WHERE record_key = $1)",
    )
    .bind(rows::key(record_key))
    .execute(connection)
    .await?;
    Ok(())
}

/// How many updates of a record are parked; at most `max` are counted.
async fn parked_updates_of(
    connection: &mut Connection,
    record_key: &RecordKey,
    max: u64,
) -> Result<u64, sqlx::Error> {
    let row = query(
        "SELECT count(*) AS number FROM
             (SELECT seq FROM ledger_parked_update WHERE record_key = $1 ORDER BY seq LIMIT $2) AS of_record",
    )
    .bind(rows::key(record_key))
    .bind(number(max))
    .fetch_one(connection)
    .await?;
    row.try_get::<i64, _>("number").map(rows::count)
}

/// How many updates of all records are parked.
pub async fn parked_updates(connection: &mut Connection) -> Result<u64, sqlx::Error> {
    let row = query("SELECT count(*) AS number FROM ledger_parked_update").fetch_one(connection).await?;
    row.try_get::<i64, _>("number").map(rows::count)
}
