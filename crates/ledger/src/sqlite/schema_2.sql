-- The exchange that the ledger belongs to: at most one row.
CREATE TABLE ledger_topology (
    identity TEXT NOT NULL,
    cluster  TEXT,
    vhost    TEXT NOT NULL,
    exchange TEXT NOT NULL
);

-- One for each start of a dispatcher; the last one is in the layout document too.
CREATE TABLE ledger_mark (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    mark TEXT NOT NULL
);
