"""The rules that a tool can judge without taste: import direction, purity, sizes.

The tables are the architecture: `LAYERS` says what each part of the server may import, `DOORS` names the
modules that may touch asyncio, `LONG_MODULES` and `LONG_FUNCTIONS` the exceptions from the limits of size.
All is read from the syntax tree, nothing is imported; an import inside a function counts as any other.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "server" / "plait_server"
SOURCE_FOLDERS = ("server", "workers/python", "clients/python", "examples", "tests")

ASYNCIO = frozenset({"asyncio", "trio_asyncio"})
CONTRACT = frozenset({"google.protobuf", "plait.v1"})

# What is not here is refused to core until someone has looked whether it reads a clock, makes random numbers,
# touches the world or starts threads.
PURE_STANDARD_LIBRARY = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "base64",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "datetime",  # timedelta and arithmetic; what asks for the time is in IMPURE_CALLS.
        "decimal",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "graphlib",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "json",
        "keyword",
        "math",
        "operator",
        "re",
        "string",
        "struct",
        "types",
        "typing",
        "unicodedata",
    }
)

# `hash` of a string and `id` differ from one process to the next; the others touch the world.
IMPURE_BUILTINS = frozenset(
    {"__import__", "breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"}
)
IMPURE_METHODS = frozenset({"now", "today", "utcnow"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The imports that the modules of one layer may have, beside their own layer."""

    layers: frozenset[str] = frozenset()
    """Other layers of the server."""

    others: frozenset[str] = frozenset()
    """Packages from elsewhere, by dotted prefix; the standard library needs no mention."""

    is_pure: bool = False
    """Whether only PURE_STANDARD_LIBRARY is left of the standard library."""

    sees_all: bool = False
    """Whether it may import whatever it likes."""


def layer(*layers: str, others: frozenset[str] = frozenset()) -> Layer:
    # The errors are the vocabulary of all.
    return Layer(layers=frozenset({*layers, "errors"}), others=others)


LAYERS: Mapping[str, Layer] = {
    "core": Layer(layers=frozenset({"errors"}), is_pure=True),
    "errors": Layer(is_pure=True),
    # Plans say where nodes stand in a picture.
    "encoding": layer("core", "layering", others=CONTRACT | {"plait.journal.v1"}),
    "layering": Layer(is_pure=True),
    # The frames of Attach are messages of the contract: a port hands them on as they are.
    "ports": layer("core", others=CONTRACT),
    "runtime": layer("core", "ports", "encoding", others=frozenset({"trio"})),
    # The sessions of attached workers read and write frames, which are messages of the contract. An output that is a
    # graph is read as a graph file is, whose reader is the client's.
    "adapters": layer(
        *("core", "ports", "encoding"),
        others=CONTRACT
        | {"apsw", "cel_expr_python", "google.rpc", "grpc", "httpx", "opentelemetry", "plait_client", "trio"},
    ),
    "api": layer(
        # Traces are written again for those who ask.
        *("core", "ports", "encoding", "runtime", "telemetry"),
        others=CONTRACT | {"google.rpc", "grpc", "grpc_health", "grpc_reflection", "trio"},
    ),
    "telemetry": layer("core", "ports", others=frozenset({"opentelemetry.proto", "structlog", "trio"})),
    "testing": layer(
        # The simulator runs the whole server, so it puts one together.
        *("core", "encoding", "ports", "runtime", "adapters", "api", "telemetry", "bootstrap", "config"),
        others=CONTRACT | {"opentelemetry.proto", "plait_worker", "trio"},
    ),
    # The package itself holds a docstring.
    "__init__": Layer(),
    # These put the parts together.
    "__main__": Layer(sees_all=True),
    "bench": Layer(sees_all=True),
    "bootstrap": Layer(sees_all=True),
    "cli": Layer(sees_all=True),
    "config": Layer(sees_all=True),
    # What is near a misspelt name is asked of the core, as problems of graphs do.
    "configuration": layer("core"),
}

# The modules that may touch asyncio, each with its reason.
DOORS: Mapping[str, str] = {
    "runtime/asyncio_bridge.py": "it is the crossing between trio and asyncio",
    "runtime/burst_loop.py": "it is the asyncio loop of the crossing",
    "api/grpc_server.py": "grpc.aio lives on an asyncio loop",
    "api/frame_reader.py": "it reads ahead on the loop of grpc.aio",
    "bench/echo.py": "the ceiling is grpc.aio on plain asyncio",
    "bench/client.py": "the load must cost less than the server that it measures",
    "bench/watchers.py": "as bench/client.py",
    "bench/restarts.py": "as bench/client.py",
    "bench/backlogs.py": "as bench/client.py",
    "bench/plain_worker.py": "as bench/client.py",
    "bench/worker.py": "its handlers run on the SDK's asyncio loop",
}

# The SDKs stand on the base dependencies alone: whoever installs them gets neither the server nor trio.
SDKS: Mapping[str, frozenset[str]] = {
    # OpenTelemetry's API is used if it is there, its SDK if tracing is asked for; both do without.
    "workers/python/plait_worker": CONTRACT | {"grpc", "opentelemetry", "plait_worker"},
    # PyYAML and google.rpc come with an extra; the client does without them, and says so where it cannot.
    # OpenTelemetry is asked for the current span if the program has imported it.
    "clients/python/plait_client": CONTRACT | {"google.rpc", "grpc", "opentelemetry", "plait_client", "yaml"},
}

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

# path -> (limit, reason). An exception that is no longer needed fails the test, as does one without a reason.
LONG_MODULES: Mapping[str, tuple[int, str]] = {
    "tests/core/driver.py": (
        600,
        "one driver of the machine, whose invariants all tests of the core lean on",
    ),
    "clients/python/plait_client/client.py": (
        700,
        "one class with a method for each RPC: its users look in one place",
    ),
    "clients/python/plait_client/async_client.py": (700, "as client.py, whose methods it has"),
}
# path::qualified name -> (limit, reason).
LONG_FUNCTIONS: Mapping[str, tuple[int, str]] = {}


# The server's layers.


def test_every_part_of_the_server_is_in_the_table() -> None:
    assert {layer_of(path) for path in server_modules()} <= LAYERS.keys()


def test_a_layer_imports_only_what_the_table_grants() -> None:
    offences = [
        f"{shown(path)}:{found.line} imports {found.name}"
        for path in server_modules()
        for found in imports(parse(path), package_of(path))
        if not is_granted(path.relative_to(SERVER).as_posix(), found.name)
    ]
    assert offences == []


def test_a_definition_knows_nothing_of_its_runs() -> None:
    offences = [
        f"{shown(path)}:{found.line} imports {found.name}"
        for path in sorted((SERVER / "core" / "definition").rglob("*.py"))
        for found in imports(parse(path), package_of(path))
        if has_prefix(found.name, frozenset({"plait_server.core.run"}))
    ]
    assert offences == []


def test_core_calls_nothing_impure() -> None:
    offences = [
        f"{shown(path)}:{call.lineno} calls {ast.unparse(call.func)}"
        for path in server_modules()
        if LAYERS[layer_of(path)].is_pure
        for call in impure_calls(parse(path))
    ]
    assert offences == []


# The rest of the project.


@pytest.mark.parametrize("folder", SDKS)
def test_an_sdk_stands_on_the_base_dependencies(folder: str) -> None:
    offences = [
        f"{shown(path)}:{found.line} imports {found.name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in imports(parse(path), folder.rpartition("/")[2])
        if not is_standard_library(found.name) and not has_prefix(found.name, SDKS[folder])
    ]
    assert offences == []


def test_nothing_is_mocked() -> None:
    offences = [
        f"{shown(path)}:{found.line} imports {found.name}"
        for path in all_modules()
        for found in imports(parse(path), "")
        if has_prefix(found.name, frozenset({"mock", "pytest_mock", "unittest.mock"}))
    ]
    assert offences == []


def test_tests_do_not_sleep() -> None:
    offences = [
        f"{shown(path)}:{node.lineno} sleeps"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if "rigs" not in path.parts  # They measure, and are run by hand.
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep")
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in names_of(node))
    ]
    assert offences == []


def test_modules_are_not_long() -> None:
    lines = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in all_modules()}
    assert over_limit(lines, MODULE_LINES_MAX, LONG_MODULES) == []


def test_functions_fit_a_screen() -> None:
    lines = {
        f"{shown(path)}::{name}": count
        for path in all_modules()
        for name, count in function_lines(parse(path))
    }
    assert over_limit(lines, FUNCTION_LINES_MAX, LONG_FUNCTIONS) == []


# The rules bite: each on a sample.


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/run/machine.py", "import time"),
        ("core/run/machine.py", "import trio"),
        ("core/run/machine.py", "def f():\n    from plait.v1 import graph_pb2"),
        ("core/run/machine.py", "from plait_server import runtime"),
        ("core/run/machine.py", "from ...runtime import executor"),
        ("encoding/events.py", "from google.rpc import status_pb2"),
        ("ports/journal.py", "import plait_server.adapters.memory"),
        ("runtime/executor.py", "import asyncio"),
        ("runtime/executor.py", "import trio_asyncio.util"),
        ("adapters/memory.py", "from plait_server.runtime.steps import Step"),
        ("api/graph_service.py", "from plait_server import adapters"),
    ],
)
def test_an_import_outward_is_found(path: str, source: str) -> None:
    package = "plait_server." + path.rpartition("/")[0].replace("/", ".")
    assert not all(is_granted(path, found.name) for found in imports(ast.parse(source), package))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "core/run/machine.py",
            "from collections.abc import Iterator\nfrom plait_server.core.definition.graph import Node",
        ),
        ("core/run/machine.py", "from .states import NodeState"),
        ("encoding/events.py", "from google.protobuf import json_format\nfrom plait.v1 import event_pb2"),
        ("runtime/asyncio_bridge.py", "import asyncio\nimport trio_asyncio"),
        ("api/grpc_server.py", "import grpc.aio\nfrom plait_server.errors import InvalidGraph"),
        ("bootstrap.py", "import asyncio\nimport plait_server.adapters.memory"),
    ],
)
def test_an_import_inward_is_granted(path: str, source: str) -> None:
    package = ("plait_server." + path.rpartition("/")[0].replace("/", ".")).rstrip(".")
    assert all(is_granted(path, found.name) for found in imports(ast.parse(source), package))


@pytest.mark.parametrize("source", ["datetime.now(UTC)", "date.today()", "hash(x)", "open('f')", "print(1)"])
def test_an_impure_call_is_found(source: str) -> None:
    assert list(impure_calls(ast.parse(source)))


# Reading the sources.


@dataclass(frozen=True, slots=True)
class Import:
    """One name that an import statement makes use of."""

    name: str
    """Absolute and dotted; of `from a.b import c` it is a.b.c, whether c is a module or not."""

    line: int
    """Its path and line."""


def all_modules() -> list[Path]:
    return [path for folder in SOURCE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def server_modules() -> list[Path]:
    return sorted(SERVER.rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


def package_of(path: Path) -> str:
    return ".".join(path.parent.relative_to(SERVER.parent).parts)


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names]


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno) for name in names_of(node))
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) + 1 - node.level]) if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            yield from (Import(f"{start}.{name}", node.lineno) for name in names_of(node))


def has_prefix(name: str, prefixes: frozenset[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def is_standard_library(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def is_granted(path: str, name: str) -> bool:
    """Whether the module of the server at `path` may import `name`."""
    own = path.partition("/")[0].removesuffix(".py")
    rule = LAYERS[own]
    if rule.sees_all:
        return True
    if has_prefix(name, ASYNCIO):
        return path in DOORS
    if has_prefix(name, frozenset({"plait_server"})):
        return name.split(".")[1] in {own, *rule.layers}
    if is_standard_library(name):
        return not rule.is_pure or has_prefix(name, PURE_STANDARD_LIBRARY)
    return has_prefix(name, rule.others)


def impure_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                yield node
            case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_METHODS:
                yield node
            case _:
                pass


def function_lines(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Each function's name and lines, its docstring not counted: that is read apart."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) is not None else None
            documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
            yield prefix + node.name, (node.end_lineno or 0) - node.lineno + 1 - documented
        name = getattr(node, "name", None)
        yield from function_lines(node, f"{prefix}{name}." if isinstance(name, str) else prefix)


def over_limit(lines: Mapping[str, int], limit: int, exceptions: Mapping[str, tuple[int, str]]) -> list[str]:
    long = {name: count for name, count in lines.items() if count > limit}
    return [
        *(
            f"{name}: {count} lines, {exceptions.get(name, (limit, ''))[0]} allowed"
            for name, count in long.items()
            if count > exceptions.get(name, (limit, ""))[0]
        ),
        *(f"{name}: needs no exception" for name in exceptions if name not in long),
        *(f"{name}: the exception has no reason" for name, (_, reason) in exceptions.items() if not reason),
    ]
