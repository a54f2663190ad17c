"""Named queries, read from the `.sql` files beside the stores.

A query begins with `-- its_name --` and a one-line comment that describes it; it ends where the next one
begins. Prior art: procrastinate's `sql/__init__.py`.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_FOLDER: Final = "plait_server.adapters.journals"
_QUERY: Final = re.compile(
    r"^-- (?P<name>\w+) --\n-- (?P<description>.+)\n(?P<sql>(?:(?!-- \w+ --$).*\n?)+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement and its description."""

    name: str
    description: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A script that upgrades a store from the previous version."""

    version: int
    """Consecutive; the script stores it."""
    sql: str


@functools.cache
def load_queries(file_name: str) -> Mapping[str, Query]:
    """Read the named queries of a file of this folder, in the order of the file."""
    queries = [
        Query(
            name=match["name"],
            description=match["description"].strip(),
            sql=match["sql"].strip().removesuffix(";"),
        )
        for match in _QUERY.finditer(load_script(file_name))
    ]
    return MappingProxyType({query.name: query for query in queries})


@functools.cache
def load_script(file_name: str) -> str:
    """Read a whole script in this folder."""
    return importlib.resources.files(_FOLDER).joinpath(file_name).read_text(encoding="utf-8")


@functools.cache
def load_migrations() -> Sequence[Migration]:
    """Read the migrations, oldest first; file names begin with the version: `0001_initial.sql`."""
    folder = importlib.resources.files(_FOLDER).joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(
        Migration(version=int(name.partition("_")[0]), sql=folder.joinpath(name).read_text(encoding="utf-8"))
        for name in names
    )
