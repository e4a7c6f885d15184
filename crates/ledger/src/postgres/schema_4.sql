-- What people changed: who, when (milliseconds since 1970-01-01 UTC), why, and how much it was. `subject` is a target, or says
-- in words which records were meant; a change of one record has its key instead.

CREATE TABLE ledger_change (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms      BIGINT NOT NULL,
    who        TEXT NOT NULL,
    why        TEXT NOT NULL,
    kind       TEXT NOT NULL,
    record_key BYTEA,
    subject    TEXT,
    records    BIGINT NOT NULL,
    updates    BIGINT NOT NULL
);

CREATE INDEX ledger_change_of_record ON ledger_change (record_key, seq) WHERE record_key IS NOT NULL;

-- For searches.
CREATE INDEX ledger_parked_since ON ledger_parked_record (since_ms, record_key);
CREATE INDEX ledger_parked_id ON ledger_parked_update (update_id);
CREATE INDEX ledger_discarded_id ON ledger_discarded (update_id);
