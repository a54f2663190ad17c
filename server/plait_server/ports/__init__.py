"""The ports: what the runtime needs from outside, as small protocols with a contract in prose."""
