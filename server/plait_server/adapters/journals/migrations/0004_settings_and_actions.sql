PRAGMA user_version = 4;

-- The audit is listed by namespace.
ALTER TABLE audit ADD COLUMN namespace TEXT NOT NULL DEFAULT '';
UPDATE audit
SET namespace = coalesce((SELECT owner.namespace FROM executions AS owner WHERE owner.position = audit.execution), '');

-- Lists: `arrival` follows by itself.
CREATE INDEX audit_listed ON audit (namespace);

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
