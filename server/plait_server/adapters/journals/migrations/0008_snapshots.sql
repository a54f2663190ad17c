PRAGMA user_version = 8;

-- The state of open executions after an event: a cache, checked against the events, and dropped when they have ended.
CREATE TABLE snapshots (
    arrival INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,      -- `executions.position`
    sequence INTEGER NOT NULL,       -- The event after which it was taken.
    number INTEGER NOT NULL,         -- 0 is its head, written last.
    content BLOB NOT NULL,
    checksum BLOB NOT NULL           -- Over number and content, and over the checksum of the event.
) STRICT;

CREATE UNIQUE INDEX snapshots_by_number ON snapshots (execution, sequence, number);
