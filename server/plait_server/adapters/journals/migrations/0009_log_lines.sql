PRAGMA user_version = 9;

-- What handlers logged and reported, kept at most once beside the journal.
CREATE TABLE log_lines (
    execution INTEGER NOT NULL,      -- `executions.position`
    sequence INTEGER NOT NULL,
    time_s REAL NOT NULL,
    level TEXT NOT NULL,
    node_path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    branch TEXT NOT NULL,
    text TEXT NOT NULL,
    size INTEGER NOT NULL,           -- About how many bytes the line takes.
    PRIMARY KEY (execution, sequence)
) STRICT, WITHOUT ROWID;
