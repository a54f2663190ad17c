"""The version of the SDK."""

from __future__ import annotations

import importlib.metadata


def sdk_version() -> str:
    """Return the installed version; empty if the SDK runs from its sources."""
    try:
        return importlib.metadata.version("plait")
    except importlib.metadata.PackageNotFoundError:
        return ""
