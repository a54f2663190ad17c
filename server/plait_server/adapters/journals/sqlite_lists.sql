-- The parts of the queries that list and count executions. `sqlite_lists` joins them by AND, OR and NOT; every value is
-- bound. `listed` is the table whose index gives the order. The indexes hold all columns that a filter names.

-- in_order --
-- Go through a namespace in the order of creation.
FROM executions AS listed INDEXED BY executions_in_order
WHERE listed.namespace = ?;

-- by_state --
-- Go through the executions in a state in the order of creation.
FROM executions AS listed INDEXED BY executions_by_state
WHERE listed.namespace = ? AND listed.state = ?;

-- by_graph --
-- Go through the executions of a graph in the order of creation.
FROM executions AS listed INDEXED BY executions_by_graph
WHERE listed.namespace = ? AND listed.graph_name = ?;

-- by_end --
-- Go through a namespace in the order of the ends.
FROM executions AS listed INDEXED BY executions_by_end
WHERE listed.namespace = ?;

-- by_label --
-- Go through the executions with a label in the order of creation.
FROM labels AS listed
CROSS JOIN executions INDEXED BY executions_in_order
    ON executions.namespace = listed.namespace AND executions.position = listed.position
WHERE listed.namespace = ? AND listed.key = ? AND listed.value = ?;

-- by_any_label --
-- Go through the executions with a label of a key in the order of creation.
FROM labels AS listed INDEXED BY labels_by_key
CROSS JOIN executions INDEXED BY executions_in_order
    ON executions.namespace = listed.namespace AND executions.position = listed.position
WHERE listed.namespace = ? AND listed.key = ?;

-- count --
-- Count what follows.
SELECT count(*);

-- find --
-- List positions and ends, in microseconds, of what follows as one value: each row of a result would take the interpreter's lock once more.
SELECT json_group_array(json_array(position, end_time_us))
FROM (SELECT listed.position AS position, CAST(round(end_time_s * 1e6) AS INTEGER) AS end_time_us;

-- end_find --
-- End the list.
LIMIT ?);

-- before_position --
-- Go on below a position.
AND listed.position < ?;

-- after_position --
-- Go on above a position.
AND listed.position > ?;

-- before_end --
-- Go on below an end.
AND (listed.end_time_s, listed.position) < (?, ?);

-- after_end --
-- Go on above an end.
AND (listed.end_time_s, listed.position) > (?, ?);

-- newest_first --
-- The order of a list.
ORDER BY listed.position DESC;

-- oldest_first --
-- The order of a list.
ORDER BY listed.position;

-- last_ended_first --
-- The order of a list.
ORDER BY listed.end_time_s DESC, listed.position DESC;

-- first_ended_first --
-- The order of a list.
ORDER BY listed.end_time_s, listed.position;

-- where_state --
-- A condition.
state = ?;

-- where_graph_name --
-- A condition.
graph_name = ?;

-- where_label --
-- A condition.
EXISTS (
    SELECT 1 FROM labels AS other
    WHERE other.namespace = listed.namespace AND other.key = ? AND other.value = ? AND other.position = listed.position
);

-- where_any_label --
-- A condition.
EXISTS (
    SELECT 1 FROM labels AS other INDEXED BY labels_by_key
    WHERE other.namespace = listed.namespace AND other.key = ? AND other.position = listed.position
);

-- where_create_time_equal --
-- A condition.
create_time_s = ?;

-- where_create_time_less --
-- A condition.
create_time_s < ?;

-- where_create_time_at_most --
-- A condition.
create_time_s <= ?;

-- where_create_time_greater --
-- A condition.
create_time_s > ?;

-- where_create_time_at_least --
-- A condition.
create_time_s >= ?;

-- where_end_time_equal --
-- A condition.
(end_time_s > 0 AND end_time_s = ?);

-- where_end_time_less --
-- A condition.
(end_time_s > 0 AND end_time_s < ?);

-- where_end_time_at_most --
-- A condition.
(end_time_s > 0 AND end_time_s <= ?);

-- where_end_time_greater --
-- A condition.
(end_time_s > 0 AND end_time_s > ?);

-- where_end_time_at_least --
-- A condition.
(end_time_s > 0 AND end_time_s >= ?);
