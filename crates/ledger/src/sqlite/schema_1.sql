-- Record keys are bytes, since a key may hold any character: CAST(record_key AS TEXT) shows them.
-- Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE ledger_record (
    record_key BLOB PRIMARY KEY,
    version    INTEGER,
    etag       TEXT,
    update_id  TEXT NOT NULL,
    at_ms      INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE ledger_resolved_update (
    seq         INTEGER PRIMARY KEY,
    update_id   TEXT NOT NULL UNIQUE,
    record_key  BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    resolution  TEXT NOT NULL,
    status      INTEGER,
    at_ms       INTEGER NOT NULL
);

CREATE TABLE ledger_parked_record (
    record_key BLOB PRIMARY KEY,
    state      TEXT NOT NULL,
    since_ms   INTEGER NOT NULL,
    layout     INTEGER NOT NULL,
    partition  INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    status     INTEGER,
    detail     TEXT NOT NULL,
    attempts   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX ledger_releasing ON ledger_parked_record (since_ms) WHERE state = 'releasing';

CREATE TABLE ledger_parked_update (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    record_key   BLOB NOT NULL,
    update_id    TEXT NOT NULL,
    id_published INTEGER NOT NULL,
    fingerprint  BLOB NOT NULL,
    reason       TEXT NOT NULL,
    status       INTEGER,
    detail       TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    layout       INTEGER NOT NULL,
    partition    INTEGER NOT NULL,
    tenure       INTEGER,
    parked_ms    INTEGER NOT NULL,
    envelope     TEXT NOT NULL,
    body         BLOB NOT NULL
);

CREATE INDEX ledger_parked_of_record ON ledger_parked_update (record_key, seq);

CREATE TABLE ledger_discarded (
    seq         INTEGER PRIMARY KEY,
    record_key  BLOB NOT NULL,
    update_id   TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    reason      TEXT NOT NULL,
    status      INTEGER,
    detail      TEXT NOT NULL,
    parked_ms   INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    who         TEXT NOT NULL,
    why         TEXT NOT NULL
);

CREATE TABLE ledger_tenure (
    layout    INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    PRIMARY KEY (layout, partition)
) WITHOUT ROWID;
