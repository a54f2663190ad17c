"""The evaluator port: expressions and templates, the names they use, and where they are evaluated.

The contract:

1. An expression is the text of one CEL expression. A template is a JSON document in which strings may hold
   `{{ CEL }}`. A string that is exactly one `{{ expression }}` stands for the expression's value with its
   JSON type; in any other, the value of each expression is inserted: strings unchanged, other values as
   compact JSON text. Keys of objects are not templated. `{{` itself is written `{{ "{{" }}`.
2. Variables are `input`, `execution` (`execution.id`, `execution.input`), `resume`, `output` (only where the caller
   gives it: in a `when`) and `nodes`, of which only `nodes.<id>.output` and `nodes.<id>.failure` with a fixed
   id can be named (`nodes["a-b"].output` if the id is not a CEL identifier). The facts list the names that an
   expression uses; validation checks whether they are allowed there.
3. `compile` and `compile_template` are pure: the same text always has equal facts. They refuse whatever
   is not known to be bounded, before any foreign code reads it. Their results are cached and may be shared.
4. Evaluation is deterministic (except for the order in which a loop visits the keys of an object) and does
   not change the variables; the value may share parts with them. An absent output or failure is
   one that the variables do not have under `nodes[id]`; an id that is missing altogether counts as a node
   without either.
5. Integers within int64 are CEL's int, other numbers double; the value of a plain path (`input.a.b[0]`) is
   passed on unchanged, whatever its size.
6. An evaluation that is not known to be cheap does not run in this process: `evaluate` and `render` raise
   `OffloadNeeded` without evaluating anything, and the caller uses an `Offload`. `needs_offload` predicts this.
7. Every failure to evaluate is an `ExpressionError` whose text is for the author of the graph. Nothing else
   is raised.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from plait_server.core.json_text import JsonValue


class InvalidExpression(Exception):
    """The expression or template is refused, whatever the variables are. The text tells how to fix it."""


class ExpressionError(Exception):
    """The expression cannot be evaluated with these variables. The text tells where, why and how to fix it."""


class OffloadNeeded(Exception):
    """The evaluation is not known to be cheap; run it through an Offload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionFacts:
    """The facts known about an expression or template before it is evaluated."""

    roots: tuple[str, ...] = ()
    """The variables it uses, each once, in the order of their first appearance."""
    node_ids: tuple[str, ...] = ()
    """The nodes it uses, each once, in the order of their first appearance."""
    comprehension: bool = False
    """Whether it loops: uses `map`, `filter`, `all`, `exists` or `exists_one`."""


class Expression(Protocol):
    """A compiled CEL expression."""

    @property
    def source(self) -> str:
        """The text it was compiled from."""
        ...

    @property
    def facts(self) -> ExpressionFacts:
        """The names it uses."""
        ...

    def evaluate(self, variables: Mapping[str, JsonValue]) -> JsonValue:
        """Return the value.

        Raises:
            ExpressionError: There is no value with these variables.
            OffloadNeeded: It must run through an Offload; nothing was evaluated.
        """
        ...


class Template(Protocol):
    """A compiled JSON document with expressions in its strings."""

    @property
    def source(self) -> str:
        """The text it was compiled from."""
        ...

    @property
    def facts(self) -> ExpressionFacts:
        """The names used by all its expressions together."""
        ...

    @property
    def is_constant(self) -> bool:
        """Whether it has no expressions; then `render` returns the source."""
        ...

    def render(self, variables: Mapping[str, JsonValue]) -> str:
        """Return the JSON text of the document with every expression replaced, and the rest unchanged.

        Raises:
            ExpressionError: An expression has no value, or the text would be too long or nest too deep.
            OffloadNeeded: It must run through an Offload; nothing was rendered.
        """
        ...


class Evaluator(Protocol):
    """Compiles expressions, and decides which evaluations are cheap."""

    def compile(self, source: str) -> Expression:
        """Compile one expression.

        Raises:
            InvalidExpression: The text is not CEL, uses unknown names or exceeds a limit.
        """
        ...

    def compile_template(self, json_text: str) -> Template:
        """Compile a JSON document.

        Raises:
            InvalidExpression: The text is not JSON, or one of its expressions is refused.
        """
        ...

    def needs_offload(self, compiled: Expression | Template, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether `evaluate` or `render` with these variables would raise OffloadNeeded."""
        ...


class Work(enum.Enum):
    """What an Offload is to do with a source."""

    EVALUATE = "evaluate"
    """Evaluate an expression."""
    RENDER = "render"
    """Render a template."""


class Helper(Protocol):
    """Where evaluations run that may take long; held for one turn, for one execution."""

    @property
    def is_over(self) -> bool:
        """Whether others wait for their turn for long enough; then leave when the evaluation at hand is done."""
        ...

    async def run(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
        """Evaluate or render, and give the JSON text of the value or document.

        Has a deadline. If the caller is cancelled, the work is ended before this returns. One at a time.

        Raises:
            ExpressionError: It failed, or was ended at a bound, which the text names.
        """
        ...


class Offload(Protocol):
    """Runs what may take long where it can be killed; in a simulation, in place."""

    def turn(self, namespace: str, execution_id: str) -> AbstractAsyncContextManager[Helper]:
        """Hold a helper, once it is this execution's turn: fair by namespace, then by execution.

        The queue has no bound of its own: wait for few turns of one execution at once, and hold nothing large
        meanwhile.
        """
        ...
