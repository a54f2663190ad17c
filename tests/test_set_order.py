"""Core and runtime never iterate over a set: its order differs between processes, and replay with it.

Read from the syntax tree, so it sees what annotations and plain assignments tell: literals, calls of `set`,
names and attributes declared as sets. A set that a function returns unannounced is left to review.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDERED_LAYERS = ("core", "runtime")


@pytest.mark.parametrize("name", ORDERED_LAYERS)
def test_a_layer_that_is_replayed_never_iterates_over_a_set(name: str) -> None:
    offences = [
        f"{path.relative_to(ROOT)}:{line} iterates over a set"
        for path in sorted((ROOT / "server/plait_server" / name).rglob("*.py"))
        for line in iterations_over_sets(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert offences == []


@pytest.mark.parametrize(
    "source",
    [
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "for i, x in enumerate(frozenset(y)): pass",
        "[x for x in {a for a in y}]",
        "print(*set(y))",
        "for x in set(y) - set(z): pass",
        "def f(y: set[str]):\n    return list(y)",
        "def f(y):\n    seen = set()\n    for x in seen: pass",
        "def f():\n    seen: set[str] | None = None\n    for x in seen: pass",
        "class A:\n    ready: frozenset[str]\n    def f(self):\n        return [x for x in self.ready]",
        "class A:\n    def f(self):\n        self.ready = set()\n        yield from self.ready",
    ],
)
def test_an_iteration_over_a_set_is_found(source: str) -> None:
    assert list(iterations_over_sets(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "for x in sorted({1, 2}): pass",
        "for x in {1: 2}: pass",
        "def f(y: set[str]):\n    return 'a' in y, len(y), any(x in y for x in z)",
        "def f():\n    y = set()\ndef g(y):\n    return list(y)",
    ],
)
def test_what_keeps_an_order_is_left_alone(source: str) -> None:
    assert not list(iterations_over_sets(ast.parse(source)))


@dataclass(slots=True)
class SetNames:
    """The names that hold sets, as far as annotations and plain assignments tell."""

    variables: set[str] = field(default_factory=set[str])
    """Of the function at hand."""

    attributes: set[str] = field(default_factory=set[str])
    """Of any class of the module."""

    def holds(self, node: ast.expr | None) -> bool:
        """Whether the expression is a set for all that the syntax tells."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), left=left, right=right):
                return self.holds(left) or self.holds(right)
            case ast.Name(id=name):
                return name in self.variables
            case ast.Attribute(attr=name):
                return name in self.attributes
            case _:
                return False


def iterations_over_sets(tree: ast.Module) -> Iterator[int]:
    """Yield the lines where something takes its order from a set; `sorted` and membership do not."""
    attributes = {name for node in ast.walk(tree) for name in set_attributes(node)}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in (tree, *functions):
        known = SetNames(attributes=attributes)
        nodes = list(walk_scope(scope))
        for node in nodes:
            known.variables.update(set_variables(node))
        yield from sorted(
            node.lineno for node in nodes if any(known.holds(source) for source in ordered_by(node))
        )


def walk_scope(scope: ast.AST) -> Iterator[ast.expr | ast.stmt | ast.arg]:
    """Walk what belongs to the scope and to no function within it."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.expr | ast.stmt | ast.arg):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from walk_scope(node)


def is_set_annotation(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Subscript(value=value):
            return is_set_annotation(value)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return is_set_annotation(left) or is_set_annotation(right)
        case ast.Name(id=name):
            return name in {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}
        case _:
            return False


def set_variables(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.arg(arg=name) if is_set_annotation(node.annotation):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)) if is_set_annotation(node.annotation):
            yield name
        case ast.Assign(targets=[ast.Name(id=name)]) if SetNames().holds(node.value):
            yield name
        case _:
            return


def set_attributes(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.AnnAssign(target=ast.Attribute(attr=name)) if is_set_annotation(node.annotation):
            yield name
        case ast.Assign(targets=[ast.Attribute(attr=name)]) if SetNames().holds(node.value):
            yield name
        case ast.ClassDef():
            yield from (name for statement in node.body for name in set_variables(statement))
        case _:
            return


def ordered_by(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose order becomes visible through this node."""
    match node:
        case ast.For(iter=source) | ast.AsyncFor(iter=source) | ast.YieldFrom(value=source):
            yield from unwrapped(source)
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            yield from (source for part in node.generators for source in unwrapped(part.iter))
        case ast.Starred(value=source):
            yield source
        case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "enumerate" | "deque"), args=[source, *_]):
            yield source
        case _:
            return


def unwrapped(source: ast.expr) -> Iterator[ast.expr]:
    yield source
    match source:
        case ast.Call(func=ast.Name(id="map" | "zip")):
            yield from source.args
        case _:
            return
