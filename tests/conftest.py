"""Options, fixtures and settings of all tests."""

import asyncio
import importlib

import pytest
from hypothesis import settings

# When it is imported, by whatever test, it takes asyncio's policy over. Tests that run asyncio alone are given a
# loop of asyncio's own, as users have it: one of trio-asyncio's runs a loop within a loop when a channel of gRPC is
# collected during a later test.
importlib.import_module("trio_asyncio")
# Deprecated from Python 3.14 on, with all policies; trio-asyncio 0.16 is one.
asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())  # pyright: ignore[reportDeprecated]

# Tests do not depend on speed: a slow machine is no reason to fail an example.
current = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("unhurried", current, deadline=None)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the transcripts anew from what happens now; read the difference before you commit it",
    )


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether transcripts are to be written anew instead of compared."""
    return bool(request.config.getoption("--rewrite"))
