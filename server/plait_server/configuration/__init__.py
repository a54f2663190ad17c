"""Reads a dataclass of options from flags, environment variables and a TOML file, and describes it."""
