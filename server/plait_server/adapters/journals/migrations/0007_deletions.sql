PRAGMA user_version = 7;

ALTER TABLE requests ADD COLUMN forget_time_s REAL;

CREATE INDEX requests_of_execution ON requests (namespace, execution_id);
CREATE INDEX requests_to_forget ON requests (forget_time_s) WHERE forget_time_s IS NOT NULL;

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

-- Which execution uses them is not known, so they are kept.
INSERT INTO content_uses (content, execution) SELECT rowid, 0 FROM contents;
