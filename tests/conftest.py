"""What every test may ask for."""

import pytest
from hypothesis import settings

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
