"""How an execution runs: states, events, commands, joins, failures, scopes, and the machine that decides."""
