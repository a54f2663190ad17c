-- The queries of the SQLite store. Parameters are bound by position, in the order in which their names first appear.

-- describe_structure --
-- List the tables and indexes with their columns.
SELECT item.type, item.name, field.name
FROM sqlite_schema AS item
LEFT JOIN pragma_table_xinfo(item.name) AS field
WHERE item.name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY item.name, field.cid;

-- begin --
-- Begin a writing transaction.
BEGIN IMMEDIATE;

-- commit --
-- Make the transaction durable.
COMMIT;

-- rollback --
-- Undo the transaction.
ROLLBACK;

-- insert_store --
-- Make the store's row, unless it is there.
INSERT INTO store (id, key, generation, owner, process_id, host)
VALUES (1, :key, 0, '', 0, '')
ON CONFLICT (id) DO NOTHING;

-- take_store --
-- Become the store's owner.
UPDATE store
SET generation = generation + 1, owner = :owner, process_id = :process_id, host = :host
WHERE id = 1
RETURNING generation, key;

-- find_generation --
-- Read which opening holds the store.
SELECT generation FROM store WHERE id = 1;

-- find_last_position --
-- Read the highest position that was ever given.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'executions'), 0);

-- find_head --
-- Read where an execution ends and who may append to it.
SELECT position, last_sequence, CAST(last_checksum AS BLOB), owner_epoch, owner, is_open
FROM executions
WHERE namespace = :namespace AND execution_id = :execution_id;

-- insert_execution --
-- Make an execution.
INSERT INTO executions (
    position, namespace, execution_id, last_sequence, last_checksum, owner_epoch, owner, is_open, due_time_s, summary
)
VALUES (
    :position, :namespace, :execution_id, :last_sequence, :last_checksum, :owner_epoch, :owner, :is_open, :due_time_s,
    :summary
);

-- update_execution --
-- Move an execution on and replace its row, if it still ends there and may be written.
UPDATE executions
SET last_sequence = :last_sequence, last_checksum = :last_checksum, owner = :owner, is_open = :is_open,
    due_time_s = :due_time_s, summary = :summary
WHERE position = :position AND last_sequence = :expected_sequence AND owner_epoch = :owner_epoch
    AND (owner = :owner OR NOT is_open);

-- update_head --
-- Move an execution on and leave its row as it is, if it still ends there and may be written.
UPDATE executions
SET last_sequence = :last_sequence, last_checksum = :last_checksum
WHERE position = :position AND last_sequence = :expected_sequence AND owner_epoch = :owner_epoch
    AND (owner = :owner OR NOT is_open);

-- insert_event --
-- Store an event.
INSERT INTO events (execution, sequence, event, checksum)
VALUES (:execution, :sequence, :event, :checksum);

-- list_events --
-- Read an execution's events from a sequence on.
SELECT sequence, CAST(event AS BLOB), CAST(checksum AS BLOB)
FROM events
WHERE execution = :execution AND sequence >= :sequence
ORDER BY sequence;

-- insert_content --
-- Keep a content, unless it is kept.
INSERT INTO contents (namespace, digest, content)
VALUES (:namespace, :digest, :content)
ON CONFLICT (namespace, digest) DO NOTHING;

-- find_content --
-- Read a content.
SELECT CAST(content AS BLOB) FROM contents WHERE namespace = :namespace AND digest = :digest;

-- insert_request --
-- Record what a request id stands for.
INSERT INTO requests (namespace, method, request_id, fingerprint, execution_id)
VALUES (:namespace, :method, :request_id, :fingerprint, :execution_id);

-- find_request --
-- Read what a request id stands for.
SELECT CAST(fingerprint AS BLOB), execution_id
FROM requests
WHERE namespace = :namespace AND method = :method AND request_id = :request_id;

-- insert_audit --
-- Add an audit record.
INSERT INTO audit (execution, time_s, kind, node_path, attempt, worker_id, detail)
VALUES (:execution, :time_s, :kind, :node_path, :attempt, :worker_id, :detail);

-- list_audit --
-- Read an execution's audit records, oldest first.
SELECT time_s, kind, node_path, attempt, worker_id, detail
FROM audit
WHERE execution = (
    SELECT position FROM executions WHERE namespace = :namespace AND execution_id = :execution_id
)
ORDER BY arrival
LIMIT :limit;

-- find_row --
-- Read an execution's row.
SELECT execution_id, position, last_sequence, owner_epoch, CAST(summary AS BLOB), is_open, due_time_s
FROM executions
WHERE namespace = :namespace AND execution_id = :execution_id;

-- list_rows --
-- Read rows of a namespace below a position, newest first.
SELECT execution_id, position, last_sequence, owner_epoch, CAST(summary AS BLOB), is_open, due_time_s
FROM executions
WHERE namespace = :namespace AND position < :before
ORDER BY position DESC
LIMIT :limit;

-- claim --
-- Take over the oldest open executions of former openings; the order of the answer is open.
UPDATE executions
SET owner = :owner, owner_epoch = owner_epoch + 1
WHERE position IN (
    -- Left to itself, SQLite walks through all ended executions to save the sorting.
    SELECT position
    FROM executions INDEXED BY executions_open
    WHERE is_open AND owner < :owner
    ORDER BY position
    LIMIT :limit
)
RETURNING position, namespace, execution_id, owner_epoch, last_sequence, CAST(summary AS BLOB), is_open, due_time_s;

-- list_due --
-- Read the open executions of an owner whose due time has come, earliest first.
SELECT position, namespace, execution_id, owner_epoch, last_sequence, CAST(summary AS BLOB), is_open, due_time_s
FROM executions
WHERE is_open AND owner = :owner AND due_time_s <= :now_s
ORDER BY due_time_s, position
LIMIT :limit;
