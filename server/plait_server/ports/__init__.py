"""The ports: what the runtime asks of the world, as small protocols with a contract in prose."""
