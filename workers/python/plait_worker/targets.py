"""Finding a worker by its name, as `package.module:worker`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Final

from plait_worker.worker import Worker

DEBUG_VARIABLE: Final = "PLAIT_DEBUG"
"""Set in the environment, it has tracebacks shown; as for the command line `plait`."""
_SHOWN_CHARS_MAX: Final = 300


class BadTarget(Exception):
    """A target does not name a worker; the message explains why in one line."""


def load_worker(target: str) -> Worker:
    """Import a module and take the worker from it. The current directory is searched first.

    What the module itself raises while it is imported passes through: its traceback is what helps.

    Raises:
        BadTarget: if the target is malformed, there is no such module or attribute, it is no worker, or the
            worker serves no node type.
    """
    module_name, separator, attribute_path = target.partition(":")
    if not separator or not module_name or not attribute_path:
        raise BadTarget(f"{target!r} does not name a worker: write package.module:worker")
    if "/" in module_name or module_name.endswith(".py"):
        raise BadTarget(
            f"{target!r} names a file: write its module, as {_module_of(module_name)}:{attribute_path}"
        )
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is found and misses another one is the module's own matter.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise BadTarget(f"there is no module {error.name}, neither in {directory} nor installed") from error
    for name in attribute_path.split("."):
        if not hasattr(found, name):
            raise BadTarget(f"{module_name} has no {attribute_path}{_candidates(module_name)}")
        found = getattr(found, name)
    if not isinstance(found, Worker):
        kind = type(found).__name__
        raise BadTarget(f"{target} is a {kind}, not a plait_worker.Worker{_candidates(module_name)}")
    if not found.types:
        raise BadTarget(f"{target} serves no node types: register functions with @worker.node(...)")
    return found


def _module_of(path: str) -> str:
    return path.removeprefix("./").removesuffix(".py").strip("/").replace("/", ".")


def _candidates(module_name: str) -> str:
    """Name the workers that a module has."""
    workers = [name for name, value in vars(sys.modules[module_name]).items() if isinstance(value, Worker)]
    return f"; it has {', '.join(f'{module_name}:{name}' for name in workers[:5])}" if workers else ""


def explain_import(target: str, error: BaseException) -> str:
    """Return two lines that explain why a module cannot be imported: what it raised, and where."""
    said = " ".join(str(error).split())[:_SHOWN_CHARS_MAX]
    text = f"{target} cannot be imported: {type(error).__name__}: {said}"
    if os.environ.get(DEBUG_VARIABLE) == "1":
        return f"{text}\n{''.join(traceback.format_exception(error))}"
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
    else:
        place = traceback.extract_tb(error.__traceback__)[-1]
        file, line = place.filename, place.lineno
    return f"{text}\n  raised in {file}, line {line}; {DEBUG_VARIABLE}=1 shows the traceback"
