-- Record keys are bytes, since a key may hold any character: convert_from(record_key, 'UTF8') shows them.
-- Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE ledger_record (
    record_key BYTEA PRIMARY KEY,
    version    BIGINT,
    etag       TEXT,
    update_id  TEXT NOT NULL,
    at_ms      BIGINT NOT NULL
);

CREATE TABLE ledger_resolved_update (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    update_id   TEXT NOT NULL UNIQUE,
    record_key  BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    resolution  TEXT NOT NULL,
    status      BIGINT,
    at_ms       BIGINT NOT NULL
);

CREATE TABLE ledger_parked_record (
    record_key BYTEA PRIMARY KEY,
    state      TEXT NOT NULL,
    since_ms   BIGINT NOT NULL,
    layout     BIGINT NOT NULL,
    partition  BIGINT NOT NULL,
    reason     TEXT NOT NULL,
    status     BIGINT,
    detail     TEXT NOT NULL,
    attempts   BIGINT NOT NULL
);

CREATE INDEX ledger_releasing ON ledger_parked_record (since_ms) WHERE state = 'releasing';

CREATE TABLE ledger_parked_update (
    seq          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record_key   BYTEA NOT NULL,
    update_id    TEXT NOT NULL,
    id_published BIGINT NOT NULL,
    fingerprint  BYTEA NOT NULL,
    reason       TEXT NOT NULL,
    status       BIGINT,
    detail       TEXT NOT NULL,
    attempts     BIGINT NOT NULL,
    layout       BIGINT NOT NULL,
    partition    BIGINT NOT NULL,
    tenure       BIGINT,
    parked_ms    BIGINT NOT NULL,
    envelope     TEXT NOT NULL,
    body         BYTEA NOT NULL
);

CREATE INDEX ledger_parked_of_record ON ledger_parked_update (record_key, seq);

CREATE TABLE ledger_discarded (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record_key  BYTEA NOT NULL,
    update_id   TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    reason      TEXT NOT NULL,
    status      BIGINT,
    detail      TEXT NOT NULL,
    parked_ms   BIGINT NOT NULL,
    at_ms       BIGINT NOT NULL,
    who         TEXT NOT NULL,
    why         TEXT NOT NULL
);

CREATE TABLE ledger_tenure (
    layout    BIGINT NOT NULL,
    partition BIGINT NOT NULL,
    number    BIGINT NOT NULL,
    PRIMARY KEY (layout, partition)
);
