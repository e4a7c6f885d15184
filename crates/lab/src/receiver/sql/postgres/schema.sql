CREATE TABLE receiver_records (
    record_key     text   PRIMARY KEY,
    version        bigint NOT NULL,    -- grows with every write; the ETag. 0: no value yet
    record_version bigint,             -- the highest record-version applied
    tenure         bigint NOT NULL,    -- the highest lanekeeper-tenure seen
    content_type   text,
    body           bytea  NOT NULL     -- your columns
);
CREATE TABLE receiver_keys (
    record_key      text   NOT NULL,
    idempotency_key text   NOT NULL,
    request_hash    bytea  NOT NULL,   -- SHA-256 of the body
    version         bigint NOT NULL,   -- the answer: 200 with this ETag
    PRIMARY KEY (record_key, idempotency_key)
);
