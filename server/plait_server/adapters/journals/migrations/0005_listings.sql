-- The columns are filled from the summaries after this, before the indexes of the next migration.
PRAGMA user_version = 5;

ALTER TABLE executions ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE executions ADD COLUMN graph_name TEXT NOT NULL DEFAULT '';
ALTER TABLE executions ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE executions ADD COLUMN create_time_s REAL NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN end_time_s REAL NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN change INTEGER NOT NULL DEFAULT 0;

-- The labels of executions, for filters; `executions.labels` is what counts.
CREATE TABLE labels (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    position INTEGER NOT NULL,       -- `executions.position`
    PRIMARY KEY (namespace, key, value, position)
) STRICT, WITHOUT ROWID;

-- Executions that were deleted, for those who watch a namespace: `change` is of the deletion. What is dropped of them
-- leaves its highest change in a row without a namespace.
CREATE TABLE tombstones (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    time_s REAL NOT NULL,            -- Wall time of the deletion, seconds since 1970.
    checksum BLOB NOT NULL
) STRICT;

CREATE INDEX tombstones_listed ON tombstones (namespace, change);
