PRAGMA user_version = 6;

-- `executions_in_order` begins like it.
DROP INDEX executions_listed;

-- Lists and counts read these indexes alone for all that a filter names, and the table only for rows that match.
CREATE INDEX executions_in_order
ON executions (namespace, position, state, graph_name, create_time_s, end_time_s);

CREATE INDEX executions_by_state
ON executions (namespace, state, position, graph_name, create_time_s, end_time_s);

CREATE INDEX executions_by_graph
ON executions (namespace, graph_name, position, state, create_time_s, end_time_s);

CREATE INDEX executions_by_end
ON executions (namespace, end_time_s, position, state, graph_name, create_time_s);

-- For filters that ask whether there is a label.
CREATE INDEX labels_by_key ON labels (namespace, key, position);

-- For watchers of a namespace.
CREATE INDEX executions_changed ON executions (namespace, change);
