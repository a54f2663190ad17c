-- The queries of the SQLite store. Parameters are bound by position, in the order in which their names first appear.

-- describe_structure --
-- List the tables and indexes with their columns.
SELECT item.type, item.name, field.name
FROM sqlite_schema AS item
LEFT JOIN pragma_table_xinfo(item.name) AS field
WHERE item.name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY item.name, field.cid;

-- check_store --
-- Check the structure of the table, and of its indexes.
PRAGMA integrity_check(store);

-- check_executions --
-- Check the structure of the table, and of its indexes.
PRAGMA integrity_check(executions);

-- check_requests --
-- Check the structure of the table, and of its indexes.
PRAGMA integrity_check(requests);

-- check_settings --
-- Check the structure of the table, and of its indexes.
PRAGMA integrity_check(settings);

-- check_content_uses --
-- Check the structure of the table, and of its indexes.
PRAGMA integrity_check(content_uses);

-- check_deletions --
-- Check the structure of the table, and of its indexes.
PRAGMA integrity_check(deletions);

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
INSERT INTO store (id, key, generation, owner, process_id, host, epoch_jump, checksum)
VALUES (1, :key, :generation, :owner, :process_id, :host, :epoch_jump, :checksum)
ON CONFLICT (id) DO NOTHING;

-- find_store --
-- Read the store's row.
SELECT CAST(key AS BLOB), generation, owner, process_id, host, epoch_jump, CAST(checksum AS BLOB)
FROM store
WHERE id = 1;

-- take_store --
-- Become the store's owner.
UPDATE store
SET generation = :generation, owner = :owner, process_id = :process_id, host = :host, epoch_jump = :epoch_jump,
    checksum = :checksum
WHERE id = 1;

-- find_generation --
-- Read which opening holds the store.
SELECT generation FROM store WHERE id = 1;

-- find_last_position --
-- Read the highest position that was ever given.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'executions'), 0);

-- find_execution --
-- Read an execution's row.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
FROM executions
WHERE namespace = :namespace AND execution_id = :execution_id;

-- insert_execution --
-- Make an execution.
INSERT INTO executions (
    position, namespace, execution_id, identity, last_sequence, last_checksum, owner_epoch, owner, is_open,
    due_time_s, audit_count, summary, checksum, state, reason, graph_name, labels, create_time_s, end_time_s, change
)
VALUES (
    :position, :namespace, :execution_id, :identity, :last_sequence, :last_checksum, :owner_epoch, :owner, :is_open,
    :due_time_s, :audit_count, :summary, :checksum, :state, :reason, :graph_name, :labels, :create_time_s, :end_time_s,
    :change
);

-- insert_label --
-- Index an execution by one of its labels.
INSERT INTO labels (namespace, key, value, position)
VALUES (:namespace, :key, :value, :position);

-- update_execution --
-- Move an execution on and replace its row, if it still ends there and may be written.
UPDATE executions
SET last_sequence = :last_sequence, last_checksum = :last_checksum, owner = :owner, is_open = :is_open,
    due_time_s = :due_time_s, audit_count = :audit_count, summary = :summary, checksum = :checksum
WHERE position = :position AND last_sequence = :expected_sequence AND owner_epoch = :owner_epoch
    AND (owner = :owner OR NOT is_open);

-- update_listing --
-- Replace an execution's listing, after `update_execution` or before `update_filled`.
UPDATE executions
SET state = :state, reason = :reason, graph_name = :graph_name, labels = :labels, create_time_s = :create_time_s,
    end_time_s = :end_time_s, change = :change
WHERE position = :position;

-- update_head --
-- Move an execution on and leave its row as it is, if it still ends there and may be written.
UPDATE executions
SET last_sequence = :last_sequence, last_checksum = :last_checksum, audit_count = :audit_count, checksum = :checksum
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

-- find_event --
-- Read an event, and the checksum of the one before it.
SELECT sequence, CASE WHEN sequence = :sequence THEN CAST(event AS BLOB) END, CAST(checksum AS BLOB)
FROM events
WHERE execution = :execution AND sequence BETWEEN :sequence - 1 AND :sequence
ORDER BY sequence;

-- insert_scope_entry --
-- Index events of a nested scope.
INSERT INTO scope_entries (execution, scope_path, last_sequence, sequences, checksum)
VALUES (:execution, :scope_path, :last_sequence, :sequences, :checksum);

-- list_scope_entries --
-- Read the index of a nested scope, for events after a sequence.
SELECT last_sequence, CAST(sequences AS BLOB), CAST(checksum AS BLOB)
FROM scope_entries
WHERE execution = :execution AND scope_path = :scope_path AND last_sequence > :after
ORDER BY last_sequence;

-- insert_content --
-- Keep a content, unless it is kept.
INSERT INTO contents (namespace, digest, key_checksum, content)
VALUES (:namespace, :digest, :key_checksum, :content)
ON CONFLICT (namespace, digest) DO NOTHING;

-- find_content --
-- Read a content.
SELECT CAST(key_checksum AS BLOB), CAST(content AS BLOB)
FROM contents
WHERE namespace = :namespace AND digest = :digest;

-- insert_use --
-- Note that an execution uses a content.
INSERT INTO content_uses (content, execution)
SELECT rowid, :execution FROM contents WHERE namespace = :namespace AND digest = :digest
ON CONFLICT (content, execution) DO NOTHING;

-- insert_request --
-- Record what a request id stands for.
INSERT INTO requests (namespace, method, request_id, fingerprint, execution_id, checksum, forget_time_s)
VALUES (:namespace, :method, :request_id, :fingerprint, :execution_id, :checksum, :forget_time_s);

-- find_request --
-- Read what a request id stands for.
SELECT namespace, method, request_id, CAST(fingerprint AS BLOB), execution_id, CAST(checksum AS BLOB)
FROM requests
WHERE namespace = :namespace AND method = :method AND request_id = :request_id;

-- insert_audit --
-- Add an audit record.
INSERT INTO audit (
    arrival, execution, number, time_s, kind, node_path, attempt, worker_id, detail, checksum, namespace
)
VALUES (
    :arrival, :execution, :number, :time_s, :kind, :node_path, :attempt, :worker_id, :detail, :checksum, :namespace
);

-- insert_action --
-- Record who did what.
INSERT INTO actions (
    arrival, namespace, execution_id, time_s, principal, is_verified, method, target, detail, is_refused, checksum
)
VALUES (
    :arrival, :namespace, :execution_id, :time_s, :principal, :is_verified, :method, :target, :detail, :is_refused,
    :checksum
);

-- find_last_arrival --
-- Read the highest number of an audit record or an action.
SELECT max(coalesce((SELECT max(arrival) FROM audit), 0), coalesce((SELECT max(arrival) FROM actions), 0));

-- list_actions --
-- Read the actions of a namespace below a number, newest first.
SELECT arrival, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), time_s, CAST(principal AS BLOB), is_verified,
    CAST(method AS BLOB), CAST(target AS BLOB), CAST(detail AS BLOB), is_refused, CAST(checksum AS BLOB)
FROM actions
WHERE namespace = :namespace AND arrival < :before
ORDER BY arrival DESC
LIMIT :limit;

-- list_actions_of_execution --
-- Read the actions about an execution below a number, newest first.
SELECT arrival, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), time_s, CAST(principal AS BLOB), is_verified,
    CAST(method AS BLOB), CAST(target AS BLOB), CAST(detail AS BLOB), is_refused, CAST(checksum AS BLOB)
FROM actions
WHERE namespace = :namespace AND execution_id = :execution_id AND arrival < :before
ORDER BY arrival DESC
LIMIT :limit;

-- list_namespace_audit --
-- Read the audit records of a namespace's executions below a number, newest first.
SELECT arrival, CAST(execution_id AS BLOB), CAST(identity AS BLOB), number, time_s, CAST(kind AS BLOB),
    CAST(node_path AS BLOB), attempt, CAST(worker_id AS BLOB), CAST(detail AS BLOB), CAST(audit.checksum AS BLOB)
FROM audit LEFT JOIN executions ON position = execution AND executions.namespace = audit.namespace
WHERE audit.namespace = :namespace AND arrival < :before
    AND NOT EXISTS (SELECT 1 FROM deletions WHERE deletions.execution = audit.execution)
ORDER BY arrival DESC
LIMIT :limit;

-- list_execution_audit --
-- Read the audit records of an execution below a number, newest first.
SELECT arrival, CAST(execution_id AS BLOB), CAST(identity AS BLOB), audit.number, time_s, CAST(kind AS BLOB),
    CAST(node_path AS BLOB), attempt, CAST(worker_id AS BLOB), CAST(detail AS BLOB), CAST(audit.checksum AS BLOB)
FROM executions JOIN audit ON execution = position
WHERE executions.namespace = :namespace AND execution_id = :execution_id AND arrival < :before
ORDER BY number DESC
LIMIT :limit;

-- list_settings --
-- Read all settings.
SELECT namespace, name, CAST(value AS BLOB), CAST(checksum AS BLOB) FROM settings ORDER BY namespace, name;

-- count_settings --
-- Count the settings.
SELECT count(*) FROM settings;

-- write_setting --
-- Set a setting.
INSERT INTO settings (namespace, name, value, checksum)
VALUES (:namespace, :name, :value, :checksum)
ON CONFLICT (namespace, name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum;

-- remove_setting --
-- Remove a setting.
DELETE FROM settings WHERE namespace = :namespace AND name = :name;

-- list_audit --
-- Read an execution's audit records, oldest first.
SELECT number, time_s, CAST(kind AS BLOB), CAST(node_path AS BLOB), attempt, CAST(worker_id AS BLOB),
    CAST(detail AS BLOB), CAST(checksum AS BLOB)
FROM audit
WHERE execution = :execution
ORDER BY number
LIMIT :limit;

-- find_by_position --
-- Read the row of an execution by its number.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
FROM executions
WHERE position = :position;

-- list_changed --
-- Read rows of a namespace whose listing changed after a change, by their newest change.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
FROM executions INDEXED BY executions_changed
WHERE namespace = :namespace AND change > :after
ORDER BY change
LIMIT :limit;

-- list_tombstones --
-- Read the deletions of a namespace after a change, oldest first.
SELECT change, CAST(execution_id AS BLOB), time_s, CAST(checksum AS BLOB)
FROM tombstones
WHERE namespace = :namespace AND change > :after
ORDER BY change
LIMIT :limit;

-- list_expired --
-- Read the executions of a namespace that ended before a time, the earliest ended first.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
FROM executions INDEXED BY executions_by_end
WHERE namespace = :namespace AND end_time_s > 0 AND end_time_s < :before AND NOT is_open
ORDER BY end_time_s, position
LIMIT :limit;

-- list_namespaces --
-- Read the namespaces that have executions.
WITH RECURSIVE each (found) AS (
    SELECT min(namespace) FROM executions
    UNION ALL
    SELECT (SELECT min(namespace) FROM executions WHERE namespace > found) FROM each WHERE found IS NOT NULL
)
SELECT found FROM each WHERE found IS NOT NULL;

-- delete_execution --
-- Delete the row of an execution.
DELETE FROM executions WHERE position = :position;

-- delete_label --
-- Delete a label of an execution from the index.
DELETE FROM labels WHERE namespace = :namespace AND key = :key AND value = :value AND position = :position;

-- outlive_requests --
-- Let the records of an execution's requests be forgotten at a time.
UPDATE requests SET forget_time_s = :forget_time_s WHERE namespace = :namespace AND execution_id = :execution_id;

-- forget_requests --
-- Delete records of requests whose time has come.
DELETE FROM requests
WHERE (namespace, method, request_id) IN (
    SELECT namespace, method, request_id FROM requests WHERE forget_time_s <= :now_s LIMIT :limit
);

-- forget_actions --
-- Delete the oldest actions, if they are from before a time.
DELETE FROM actions
WHERE arrival IN (SELECT arrival FROM actions WHERE arrival > 0 ORDER BY arrival LIMIT :limit) AND time_s < :before_s;

-- insert_deletion --
-- Note that an execution is to be deleted.
INSERT INTO deletions (execution, checksum) VALUES (:execution, :checksum);

-- find_deletion --
-- Read the first execution that is to be deleted.
SELECT execution, CAST(checksum AS BLOB) FROM deletions WHERE execution > 0 ORDER BY execution LIMIT 1;

-- end_deletion --
-- Note that nothing of an execution is left.
DELETE FROM deletions WHERE execution = :execution;

-- insert_log_line --
-- Keep a line of a handler.
INSERT INTO log_lines (execution, sequence, time_s, level, node_path, attempt, branch, text, size)
VALUES (:execution, :sequence, :time_s, :level, :node_path, :attempt, :branch, :text, :size)
ON CONFLICT (execution, sequence) DO NOTHING;

-- measure_log_lines --
-- Read how many lines of an execution are kept.
SELECT coalesce(max(sequence), 0), count(*), coalesce(sum(size), 0) FROM log_lines WHERE execution = :execution;

-- list_log_lines --
-- Read the lines of an execution after a sequence.
SELECT sequence, time_s, CAST(level AS BLOB), CAST(node_path AS BLOB), attempt, CAST(branch AS BLOB),
    CAST(text AS BLOB)
FROM log_lines
WHERE execution = :execution AND sequence > :after
ORDER BY sequence
LIMIT :limit;

-- drop_log_lines --
-- Delete the oldest lines of an execution.
DELETE FROM log_lines
WHERE execution = :execution
    AND sequence IN (SELECT sequence FROM log_lines WHERE execution = :execution ORDER BY sequence LIMIT :limit);

-- write_snapshot --
-- Write a part of a snapshot.
INSERT INTO snapshots (execution, sequence, number, content, checksum)
VALUES (:execution, :sequence, :number, :content, :checksum)
ON CONFLICT (execution, sequence, number) DO UPDATE SET content = excluded.content, checksum = excluded.checksum;

-- find_snapshot --
-- Read of which sequence the newest complete snapshot of an execution is.
SELECT sequence FROM snapshots WHERE execution = :execution AND number = 0 ORDER BY sequence DESC LIMIT 1;

-- read_snapshot --
-- Read a part of a snapshot.
SELECT CAST(content AS BLOB), CAST(checksum AS BLOB)
FROM snapshots
WHERE execution = :execution AND sequence = :sequence AND number = :number;

-- find_event_checksum --
-- Read the checksum of an event.
SELECT CAST(checksum AS BLOB) FROM events WHERE execution = :execution AND sequence = :sequence;

-- list_old_snapshots --
-- Read the numbers of parts of an execution's other snapshots.
SELECT arrival FROM snapshots WHERE execution = :execution AND sequence <> :keep LIMIT :limit;

-- delete_snapshot --
-- Delete a part of a snapshot.
DELETE FROM snapshots WHERE arrival = :arrival;

-- list_doomed_snapshots --
-- Read the numbers and sizes of some parts of an execution's snapshots.
SELECT arrival, length(content) FROM snapshots WHERE execution = :execution LIMIT :limit;

-- list_doomed_events --
-- Read the numbers and sizes of some events of an execution.
SELECT arrival, length(event) FROM events WHERE execution = :execution LIMIT :limit;

-- delete_event --
-- Delete an event.
DELETE FROM events WHERE arrival = :arrival;

-- delete_scope_entries --
-- Delete some of an execution's index by scope.
DELETE FROM scope_entries
WHERE execution = :execution AND (scope_path, last_sequence) IN (
    SELECT scope_path, last_sequence FROM scope_entries WHERE execution = :execution LIMIT :limit
);

-- delete_audit --
-- Delete some audit records of an execution.
DELETE FROM audit WHERE arrival IN (SELECT arrival FROM audit WHERE execution = :execution LIMIT :limit);

-- list_uses --
-- Read some contents that an execution uses, their sizes, and whether another execution uses them.
SELECT used.content, length(contents.content), EXISTS (
    SELECT 1 FROM content_uses AS other WHERE other.content = used.content AND other.execution <> :execution
)
FROM content_uses AS used LEFT JOIN contents ON contents.rowid = used.content
WHERE used.execution = :execution
LIMIT :limit;

-- delete_use --
-- Note that an execution does not use a content any more.
DELETE FROM content_uses WHERE content = :content AND execution = :execution;

-- delete_content --
-- Delete a content.
DELETE FROM contents WHERE rowid = :content;

-- insert_tombstone --
-- Record a deletion for watchers.
INSERT INTO tombstones (change, namespace, execution_id, time_s, checksum)
VALUES (:change, :namespace, :execution_id, :time_s, :checksum);

-- find_floor --
-- Read the newest change up to which tombstones may be missing: that of the row without a namespace.
SELECT change, CAST(execution_id AS BLOB), time_s, CAST(checksum AS BLOB)
FROM tombstones
WHERE namespace = ''
ORDER BY change DESC
LIMIT 1;

-- list_first_tombstones --
-- Read the oldest deletions, and the floor.
SELECT change, namespace, time_s FROM tombstones WHERE change > 0 ORDER BY change LIMIT :limit;

-- drop_tombstones --
-- Drop the tombstones up to a change.
DELETE FROM tombstones WHERE change <= :floor;

-- find_last_change --
-- Read the highest change number that was ever given.
WITH RECURSIVE each (found) AS (
    SELECT min(namespace) FROM executions
    UNION ALL
    SELECT (SELECT min(namespace) FROM executions WHERE namespace > found) FROM each WHERE found IS NOT NULL
)
SELECT max(
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'tombstones'), 0),
    coalesce((SELECT max((SELECT max(change) FROM executions WHERE namespace = found)) FROM each), 0)
);

-- list_claimable --
-- Read the oldest open executions of former openings above a position.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
-- Left to itself, SQLite walks through all ended executions to save the sorting.
FROM executions INDEXED BY executions_open
WHERE is_open AND owner < :owner AND position > :after
ORDER BY position
LIMIT :limit;

-- claim --
-- Take an execution over.
UPDATE executions
SET owner = :owner, owner_epoch = :owner_epoch, checksum = :checksum
WHERE position = :position;

-- list_due --
-- Read the open executions of an owner whose due time has come, earliest first.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
FROM executions
WHERE is_open AND owner = :owner AND due_time_s <= :now_s
ORDER BY due_time_s, position
LIMIT :limit;

-- verify_executions --
-- Read the rows above a position, oldest first.
SELECT position, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), CAST(identity AS BLOB), last_sequence,
    CAST(last_checksum AS BLOB), owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB),
    state, CAST(reason AS BLOB), CAST(graph_name AS BLOB), CAST(labels AS BLOB), create_time_s, end_time_s, change,
    CAST(checksum AS BLOB)
FROM executions
WHERE position > :after
ORDER BY position
LIMIT :limit;

-- verify_requests --
-- Read the records of requests behind a key.
SELECT namespace, method, request_id, CAST(fingerprint AS BLOB), execution_id, CAST(checksum AS BLOB)
FROM requests
WHERE (namespace, method, request_id) > (:namespace, :method, :request_id)
ORDER BY namespace, method, request_id
LIMIT :limit;

-- verify_contents --
-- Read the keys of contents above a number.
SELECT rowid, namespace, digest, CAST(key_checksum AS BLOB)
FROM contents
WHERE rowid > :after
ORDER BY rowid
LIMIT :limit;
