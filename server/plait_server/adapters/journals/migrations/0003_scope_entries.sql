-- Executions from before have no nested scopes.
PRAGMA user_version = 3;

-- Which events are about which nested scope; made anew of the events by a salvage. A row a scope that has ended, or for
-- each few hundred of its events: a row an event would change a page for each of them where many scopes are open.
CREATE TABLE scope_entries (
    execution INTEGER NOT NULL,      -- `executions.position`
    scope_path TEXT NOT NULL,
    last_sequence INTEGER NOT NULL,  -- Of these events.
    sequences BLOB NOT NULL,         -- For each event how far before the last it is, 4 bytes.
    checksum BLOB NOT NULL,
    PRIMARY KEY (execution, scope_path, last_sequence)
) STRICT, WITHOUT ROWID;
