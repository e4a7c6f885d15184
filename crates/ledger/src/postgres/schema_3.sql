-- Ids of resolved updates that another record had used before: `ledger_resolved_update` has an id once. A program of before
-- does not look here, and takes such an id for one that is used again.

CREATE TABLE ledger_resolved_shared_id (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    update_id   TEXT NOT NULL,
    record_key  BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    resolution  TEXT NOT NULL,
    status      BIGINT,
    at_ms       BIGINT NOT NULL,
    UNIQUE (update_id, record_key)
);
