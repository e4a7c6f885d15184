CREATE TABLE receiver_records (
    record_key     TEXT    NOT NULL PRIMARY KEY,
    version        INTEGER NOT NULL,   -- grows with every write; the ETag. 0: no value yet
    record_version INTEGER,            -- the highest record-version applied
    tenure         INTEGER NOT NULL,   -- the highest lanekeeper-tenure seen
    content_type   TEXT,
    body           BLOB    NOT NULL    -- your columns
) STRICT;
CREATE TABLE receiver_keys (
    record_key      TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    request_hash    BLOB    NOT NULL,  -- SHA-256 of the body
    version         INTEGER NOT NULL,  -- the answer: 200 with this ETag
    PRIMARY KEY (record_key, idempotency_key)
) STRICT, WITHOUT ROWID;
