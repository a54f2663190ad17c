"""The version of the SDK."""

from __future__ import annotations

import importlib.metadata


def sdk_version() -> str:
    """Return the version that is installed; empty when the SDK is run from its sources."""
    try:
        return importlib.metadata.version("plait")
    except importlib.metadata.PackageNotFoundError:
        return ""
