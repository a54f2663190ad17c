"""Finds what an expression reads: the paths into its variables that are fixed by its text.

`input.items.map(i, i.price * nodes.tax.output.rate)` reads `input.items` and `nodes.tax.output.rate`. Only
the values at these paths are passed to the library, so a large variable costs little if little of it is read.
The paths also show which nodes an expression depends on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from plait_server.adapters.expressions.library import VARIABLES
from plait_server.adapters.expressions.syntax import (
    Comprehension,
    Constant,
    FunctionCall,
    Identifier,
    MapLiteral,
    Node,
    Selection,
    children,
)
from plait_server.ports.evaluator import ExpressionFacts, InvalidExpression

Path: TypeAlias = tuple[str | int, ...]
"""A variable's name, then keys of objects and indexes of lists."""

_PLAIN_CHARS_MAX: Final = 200
_PLAIN_STEP: Final = re.compile(
    r"""\.([A-Za-z_][A-Za-z0-9_]*+)|\["([\x20\x21\x23-\x5b\x5d-\x7e]*+)"\]|\[(0|[1-9][0-9]{0,8})\]"""
)
_PLAIN_PATH: Final = re.compile(
    rf"(?P<root>{'|'.join(VARIABLES)})(?P<steps>(?:{_PLAIN_STEP.pattern}){{0,24}})"
)
"""The most steps of a path: far fewer than the library accepts."""
_KEYWORDS: Final = frozenset({"in", "true", "false", "null"})
_TYPES: Final = frozenset(
    {
        *("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"),
        *("google.protobuf.Duration", "google.protobuf.Timestamp"),
    }
)
"""Names that are not variables but may be used, as in `type(x) == string`."""
_EXECUTION_FIELDS: Final = ("id", "input")
_NODE_FIELDS: Final = ("output", "failure")
_NODES_REMEDY: Final = (
    "`nodes` can only be used as nodes.<id>.output or nodes.<id>.failure with a fixed id; to choose among "
    'nodes by a value, put them into a map: {"a": nodes.a.output, "b": nodes.b.output}[key]'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One place where an expression reads a variable."""

    path: Path
    """The path that is read."""
    is_test: bool
    """Whether only the presence of the last key is tested, by `has`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that an expression reads, and those parts of its structure that matter for its cost."""

    facts: ExpressionFacts
    """The facts for the port."""
    reads: tuple[Read, ...]
    """In the order of the text."""
    functions: frozenset[str]
    """The functions and operators that are called."""


def parse_plain_path(source: str) -> Node | None:
    """Return the tree of an expression that is only a path, without the library; else None.

    Unusual paths are left to the library, too. Most expressions are plain, and a graph may have many.
    """
    if len(source) > _PLAIN_CHARS_MAX:
        return None
    plain = _PLAIN_PATH.fullmatch(source.strip())
    if plain is None:
        return None
    node: Node = Identifier(name=plain["root"])
    for step in _PLAIN_STEP.finditer(plain["steps"]):
        field, key, index = step.groups()
        if field in _KEYWORDS:
            return None
        if field:
            node = Selection(operand=node, field=field, is_test=False)
        else:
            constant = Constant(value=int(index) if index else key)
            node = FunctionCall(function="_[_]", arguments=(node, constant))
    return node


def read_of(node: Node, scope: Sequence[str] = ()) -> Read | None:
    """Return the read that a whole node represents; None if it is anything else.

    Args:
        node: The node.
        scope: The names that loops have bound there.
    """
    is_test = isinstance(node, Selection) and node.is_test
    keys: list[str | int] = []
    while True:
        match node:
            case Selection(operand=operand, field=field, is_test=test) if not test or not keys:
                keys.append(field)
                node = operand
            case FunctionCall(
                function="_[_]", arguments=(operand, Constant(value=str() | int() as key, is_unsigned=False))
            ) if not isinstance(key, bool):
                keys.append(key)
                node = operand
            case Identifier(name=name) if name.lstrip(".") in VARIABLES and name not in scope:
                return Read(path=(name.lstrip("."), *reversed(keys)), is_test=is_test)
            case _:
                return None


def find_reading(tree: Node) -> Reading:
    """Find what an expression reads.

    Raises:
        InvalidExpression: The expression uses a name that it may not use.
    """
    reads: list[Read] = []
    functions: dict[str, None] = {}
    loops = _walk(tree, (), reads, functions)
    for read in reads:
        _check_path(read.path)
    nodes = (str(read.path[1]) for read in reads if read.path[0] == "nodes")
    facts = ExpressionFacts(
        roots=tuple(dict.fromkeys(str(read.path[0]) for read in reads)),
        node_ids=tuple(dict.fromkeys(nodes)),
        comprehension=loops,
    )
    return Reading(facts=facts, reads=tuple(reads), functions=frozenset(functions))


def _walk(node: Node, scope: tuple[str, ...], reads: list[Read], functions: dict[str, None]) -> bool:
    read = read_of(node, scope)
    if read is not None:
        reads.append(read)
        return False
    match node:
        case Identifier(name=name):
            if name not in scope and name not in _TYPES:
                raise InvalidExpression(f"the name {name!r} cannot be used; {known_variables()}")
            return False
        case MapLiteral(message=message) if message:
            raise InvalidExpression(f"messages such as {message} cannot be built; write a map literal")
        case Comprehension():
            if node.variable in VARIABLES:
                raise InvalidExpression(
                    f"the loop's variable {node.variable!r} would hide the variable of that name; "
                    "choose another name"
                )
            _walk(node.source, scope, reads, functions)
            _walk(node.initial, scope, reads, functions)
            inside = (*scope, node.variable, node.accumulator)
            for part in (node.condition, node.step, node.result):
                _walk(part, inside, reads, functions)
            return True
        case FunctionCall(function=function):
            functions[function] = None
        case _:
            pass
    loops = [_walk(child, scope, reads, functions) for child in children(node)]
    return any(loops)


def _check_path(path: Path) -> None:
    match path:
        case ("nodes", str() as node_id, str() as member, *_):
            if member not in _NODE_FIELDS:
                raise InvalidExpression(
                    f"nodes.{node_id} has only output and failure, not {member!r}; for a node whose id is "
                    f'{node_id}.{member} write nodes["{node_id}.{member}"].output'
                )
        case ("nodes", *_):
            raise InvalidExpression(_NODES_REMEDY)
        case ("execution", str() as member, *_) if member not in _EXECUTION_FIELDS:
            raise InvalidExpression(f"execution has only id and input, not {member!r}")
        case _:
            pass


def known_variables() -> str:
    """Return a sentence that lists the variables."""
    return "expressions know input, execution, nodes, resume and, in the `when` of an edge, output"


def path_text(path: Path) -> str:
    """Return a path as it would be written in an expression."""
    text = str(path[0])
    for key in path[1:]:
        if isinstance(key, str) and key.isidentifier() and key.isascii():
            text += f".{key}"
        else:
            quoted = f'"{key}"' if isinstance(key, str) else str(key)
            text += f"[{quoted}]"
    return text
