"""The command line: `plait`."""

from plait_server.cli.entry import main

__all__ = ["main"]
