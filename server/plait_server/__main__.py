"""`python -m plait_server` is `plait`."""

import sys

from plait_server.cli import main

sys.exit(main())
