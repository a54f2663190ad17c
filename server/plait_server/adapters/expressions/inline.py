"""Evaluation in place: for simulations, which a process would make nondeterministic, and for command lines."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import assert_never

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.core.json_text import JsonValue, dump_json
from plait_server.ports.evaluator import ExpressionError, InvalidExpression, Work


class InlineOffload:
    """Runs everything in place and at once, however long it takes; implements the port's Offload and Helper.

    It has no deadline and no bound on memory, so it is only for trusted sources.
    """

    def __init__(self) -> None:
        self._evaluator = CelEvaluator(work_max=math.inf)

    is_over = False
    """Always 0: nothing waits for a turn."""

    @asynccontextmanager
    async def turn(self, namespace: str, execution_id: str) -> AsyncGenerator[InlineOffload]:
        """Hold a turn; see the port. There is no checkpoint in it, and any number may be held."""
        del namespace, execution_id
        yield self

    async def run(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
        """Evaluate or render in place; see the port. There is no checkpoint in it."""
        return perform(self._evaluator, work, source, variables)


def perform(evaluator: CelEvaluator, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
    """Evaluate or render what an Offload was asked for, in place."""
    try:
        match work:
            case Work.EVALUATE:
                return dump_json(evaluator.compile(source).evaluate(variables))
            case Work.RENDER:
                return evaluator.compile_template(source).render(variables)
            case _:
                assert_never(work)
    except InvalidExpression as error:
        raise ExpressionError(str(error)) from None
