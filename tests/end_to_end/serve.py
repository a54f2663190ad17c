"""Starts a server of a test: `python -m tests.end_to_end.serve '{"store": "plait.db"}'`.

The command line has no options for the times that tests make short; those of `ServerConfig` are taken as they are.
"""

from __future__ import annotations

import json
import sys

from plait_server.bootstrap import serve
from plait_server.config import ServerConfig


def announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(serve(ServerConfig(**json.loads(sys.argv[1])), announce))
