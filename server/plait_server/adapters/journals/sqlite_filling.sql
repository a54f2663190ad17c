-- The queries that fill the listings of a store from before there were any.

-- list_unfilled --
-- Read rows without a listing above a position, oldest first.
SELECT position, CAST(namespace AS BLOB), CAST(identity AS BLOB), last_sequence, CAST(last_checksum AS BLOB),
    owner_epoch, owner, is_open, due_time_s, audit_count, CAST(summary AS BLOB), CAST(checksum AS BLOB)
FROM executions
WHERE position > :after AND change = 0
ORDER BY position
LIMIT :limit;

-- fill_listing --
-- Fill the listing of a row, whose checksum covers it from then on.
UPDATE executions
SET state = :state, reason = :reason, graph_name = :graph_name, labels = :labels, create_time_s = :create_time_s,
    end_time_s = :end_time_s, change = :change, checksum = :checksum
WHERE position = :position;
