-- The schema as it is after all migrations: for the reader, and for the check at opening. A change is written
-- twice, here and as a new file in migrations/; a test compares the two.

-- What the store is, and who holds it: one row.
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL,               -- The secret that attempt tokens are signed with.
    generation INTEGER NOT NULL,     -- Grows by one with each opening; what `executions.owner` names.
    owner TEXT NOT NULL,             -- Of the newest opening, as are the two below.
    process_id INTEGER NOT NULL,
    host TEXT NOT NULL,
    epoch_jump INTEGER NOT NULL,     -- What the next opening adds to every execution's epoch; not 0 in a copy.
    checksum BLOB NOT NULL
) STRICT;

-- An execution: where its events end, who may append to them, and what lists and the recovery need. `checksum` is of
-- the whole row; `identity` tells whether the key is whole when the checksum does not fit. The columns from `state` on
-- are its listing; `end_time_s` is 0 until it has ended, `labels` a JSON object, `change` the number of the newest change
-- of the listing.
CREATE TABLE executions (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    last_sequence INTEGER NOT NULL,
    last_checksum BLOB NOT NULL,
    owner_epoch INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    due_time_s REAL,
    summary BLOB NOT NULL,
    audit_count INTEGER NOT NULL,
    identity BLOB NOT NULL,          -- Of namespace and id; what the first event is chained to.
    checksum BLOB NOT NULL, state INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', graph_name TEXT NOT NULL DEFAULT '', labels TEXT NOT NULL DEFAULT '{}', create_time_s REAL NOT NULL DEFAULT 0, end_time_s REAL NOT NULL DEFAULT 0, change INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, execution_id)
) STRICT;

-- Lists and counts read these indexes alone for all that a filter names, and the table only for rows that match.
CREATE INDEX executions_in_order
ON executions (namespace, position, state, graph_name, create_time_s, end_time_s);

CREATE INDEX executions_by_state
ON executions (namespace, state, position, graph_name, create_time_s, end_time_s);

CREATE INDEX executions_by_graph
ON executions (namespace, graph_name, position, state, create_time_s, end_time_s);

CREATE INDEX executions_by_end
ON executions (namespace, end_time_s, position, state, graph_name, create_time_s);

-- For watchers of a namespace.
CREATE INDEX executions_changed ON executions (namespace, change);

-- Claims (owners of former openings are smaller) and due times.
CREATE INDEX executions_open ON executions (owner, due_time_s) WHERE is_open;

-- The labels of executions, for filters; `executions.labels` is what counts.
CREATE TABLE labels (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    position INTEGER NOT NULL,       -- `executions.position`
    PRIMARY KEY (namespace, key, value, position)
) STRICT, WITHOUT ROWID;

-- For filters that ask whether there is a label.
CREATE INDEX labels_by_key ON labels (namespace, key, position);

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

-- The events, in the order of their arrival. Clustered by execution instead, a commit of many executions would
-- dirty a page of 4 KiB for each of them: two to three times the time.
CREATE TABLE events (
    arrival INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,      -- `executions.position`
    sequence INTEGER NOT NULL,
    event BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_of_execution ON events (execution, sequence);

-- What mutations with a request id answered. `forget_time_s` is set when what they made is deleted.
CREATE TABLE requests (
    namespace TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    execution_id TEXT NOT NULL,
    checksum BLOB NOT NULL, forget_time_s REAL,
    PRIMARY KEY (namespace, method, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_of_execution ON requests (namespace, execution_id);
CREATE INDEX requests_to_forget ON requests (forget_time_s) WHERE forget_time_s IS NOT NULL;

-- Graphs and payloads that are kept once by digest.
CREATE TABLE contents (
    namespace TEXT NOT NULL,
    digest TEXT NOT NULL,            -- SHA-256 in lower-case hexadecimal.
    key_checksum BLOB NOT NULL,      -- Of namespace and digest.
    content BLOB NOT NULL,
    PRIMARY KEY (namespace, digest)
) STRICT;

-- What changed nothing and must not be forgotten. `arrival` is counted together with that of `actions`.
CREATE TABLE audit (
    arrival INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,      -- `executions.position`
    number INTEGER NOT NULL,         -- 1, 2, 3 without gaps to `executions.audit_count`.
    time_s REAL NOT NULL,
    kind TEXT NOT NULL,
    node_path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    worker_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    checksum BLOB NOT NULL
, namespace TEXT NOT NULL DEFAULT '') STRICT;

CREATE UNIQUE INDEX audit_of_execution ON audit (execution, number);

-- Lists: `arrival` follows by itself.
CREATE INDEX audit_listed ON audit (namespace);

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

-- What was set through the API: limits, and settings of namespaces. Read once, at the start.
CREATE TABLE settings (
    namespace TEXT NOT NULL,         -- Empty for the server's own.
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

-- Who did what. `arrival` is counted together with that of `audit`.
CREATE TABLE actions (
    arrival INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    execution_id TEXT NOT NULL,      -- Empty if it is not about one execution.
    time_s REAL NOT NULL,
    principal TEXT NOT NULL,
    is_verified INTEGER NOT NULL,
    method TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL,
    is_refused INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

-- Lists: `arrival` follows by itself.
CREATE INDEX actions_listed ON actions (namespace);
CREATE INDEX actions_of_execution ON actions (namespace, execution_id);

-- Which executions use which contents. A content without a use is deleted together with the last execution that used it.
CREATE TABLE content_uses (
    content INTEGER NOT NULL,        -- `contents.rowid`, which only VACUUM would change; no store is ever vacuumed.
    execution INTEGER NOT NULL,      -- `executions.position`; 0 for the contents of stores from before there were uses.
    PRIMARY KEY (content, execution)
) STRICT, WITHOUT ROWID;

CREATE INDEX content_uses_of_execution ON content_uses (execution);

-- Executions that were deleted, and of which there may still be something in the other tables.
CREATE TABLE deletions (
    execution INTEGER PRIMARY KEY,   -- `executions.position`
    checksum BLOB NOT NULL
) STRICT;

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
