-- Records and targets that people have paused, since when (milliseconds since 1970-01-01 UTC), by whom and why.

CREATE TABLE ledger_paused_record (
    record_key BYTEA PRIMARY KEY,
    since_ms   BIGINT NOT NULL,
    who        TEXT NOT NULL,
    why        TEXT NOT NULL
);

CREATE TABLE ledger_paused_target (
    name     TEXT PRIMARY KEY,
    since_ms BIGINT NOT NULL,
    who      TEXT NOT NULL,
    why      TEXT NOT NULL
);
