"""Lists of executions: what they filter and order by, and the filters' language."""
