-- The queries that read a store that may be damaged anywhere: one row at a time, for the next may be unreadable.

-- find_last_execution --
-- Read the number of the newest execution.
SELECT max(position) FROM executions;

-- find_highest_change --
-- Read the highest change number in a row, which may be damaged.
SELECT max(change) FROM executions NOT INDEXED;

-- find_last_event --
-- Read the number of the newest event.
SELECT max(arrival) FROM events;

-- find_event --
-- Read an event by its number.
SELECT execution, sequence, CAST(event AS BLOB), CAST(checksum AS BLOB) FROM events WHERE arrival = :number;

-- list_all_scope_entries --
-- Read the index by scope of an execution.
SELECT CAST(scope_path AS BLOB), last_sequence, CAST(sequences AS BLOB), CAST(checksum AS BLOB)
FROM scope_entries
WHERE execution = :execution
ORDER BY scope_path, last_sequence;

-- find_last_content --
-- Read the number of the newest content.
SELECT max(rowid) FROM contents;

-- find_content --
-- Read a content by its number.
SELECT CAST(namespace AS BLOB), CAST(digest AS BLOB), CAST(key_checksum AS BLOB), CAST(content AS BLOB)
FROM contents
WHERE rowid = :number;

-- list_requests --
-- Read the records of all requests.
SELECT namespace, method, request_id, CAST(fingerprint AS BLOB), execution_id, CAST(checksum AS BLOB)
FROM requests
ORDER BY namespace, method, request_id;

-- list_requests_backwards --
-- Read the records of all requests from the other end.
SELECT namespace, method, request_id, CAST(fingerprint AS BLOB), execution_id, CAST(checksum AS BLOB)
FROM requests
ORDER BY namespace DESC, method DESC, request_id DESC;

-- list_deletions --
-- Read which executions were deleted.
SELECT execution, CAST(checksum AS BLOB) FROM deletions ORDER BY execution;

-- list_used --
-- Read the digests of the contents that an execution uses.
SELECT CAST(digest AS BLOB)
FROM content_uses JOIN contents ON contents.rowid = content_uses.content
WHERE execution = :execution;

-- insert_lost_uses --
-- Keep the contents that no execution is known to use.
INSERT INTO content_uses (content, execution)
SELECT rowid, 0 FROM contents WHERE NOT EXISTS (SELECT 1 FROM content_uses WHERE content_uses.content = contents.rowid);

-- list_arrivals --
-- Read where the audit records of an execution stand in the lists.
SELECT number, arrival, CAST(namespace AS BLOB) FROM audit WHERE execution = :execution ORDER BY number;

-- find_last_action --
-- Read the number of the newest action.
SELECT max(arrival) FROM actions;

-- find_action --
-- Read an action by its number.
SELECT arrival, CAST(namespace AS BLOB), CAST(execution_id AS BLOB), time_s, CAST(principal AS BLOB), is_verified,
    CAST(method AS BLOB), CAST(target AS BLOB), CAST(detail AS BLOB), is_refused, CAST(checksum AS BLOB)
FROM actions
WHERE arrival = :number;

-- check_all --
-- Check the structure of everything.
PRAGMA integrity_check(1000);
