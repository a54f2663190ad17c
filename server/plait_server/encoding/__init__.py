"""The core's values as plait.v1 messages and back: no decisions, no I/O."""
