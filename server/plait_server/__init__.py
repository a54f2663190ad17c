"""Plait's server: executes workflow graphs in parallel, and never loses what it acknowledged."""
