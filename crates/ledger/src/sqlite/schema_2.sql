-- The exchange that the ledger belongs to: at most one row. A dispatcher writes every few seconds that it uses the ledger
-- (seconds since 1970 by the database's clock), and NULL when it stops.
CREATE TABLE ledger_topology (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL,
    cluster  TEXT,
    vhost    TEXT NOT NULL,
    exchange TEXT NOT NULL,
    used_s   INTEGER
);

-- One for each start of a dispatcher; the last one is in the layout document too.
CREATE TABLE ledger_mark (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    mark TEXT NOT NULL
);
