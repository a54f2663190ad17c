"""The questions of one execution that cannot be answered in place.

A question that lacks a text waits for a reader, one that needs a helper for an evaluator. There are only a few of
these tasks, however many questions there are. A waiting question holds no variables: they are collected when it is
the execution's turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from plait_server.core.run.commands import Input, Question
from plait_server.ports.evaluator import ExpressionError, Helper, Offload
from plait_server.runtime.answers import Answers, HelperNeeded, problem_with
from plait_server.runtime.content_store import ContentMissing, ContentStore

READERS_MAX: Final = 4
"""Questions of an execution whose texts are read at once."""
EVALUATORS_MAX: Final = 2
"""Turns at helpers that an execution waits for at once: the number of helpers."""
STEPS_MAX: Final = 1_000
"""The most texts and evaluations of one question; it only bounds a loop."""


class _Open:
    """A question, and the results for its answer so far."""

    __slots__ = ("answers", "question", "steps")

    def __init__(self, question: Question, answers: Answers) -> None:
        self.question = question
        self.answers = answers
        self.steps = 0


class Questions:
    """Answers the questions of one execution. Its tasks live in the executor's nursery.

    Args:
        key: Namespace and execution id, for turns.
        offload: Runs expensive evaluations.
        contents: Loads texts.
        answers: Answers questions once nothing is missing.
        on_answer: Called with each answer.
    """

    def __init__(
        self,
        key: tuple[str, str],
        offload: Offload,
        contents: ContentStore,
        answers: Answers,
        on_answer: Callable[[Input], None],
    ) -> None:
        self._key = key
        self._offload = offload
        self._contents = contents
        self._answers = answers
        self._on_answer = on_answer
        self._in_work = 0
        self._unread: deque[_Open] = deque()
        self._costly: deque[_Open] = deque()
        self._readers: dict[trio.CancelScope, None] = {}
        self._evaluators: dict[trio.CancelScope, None] = {}

    def __repr__(self) -> str:
        return f"<Questions {len(self)} open, {len(self._costly)} wait for a helper>"

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._unread) + len(self._costly) + self._in_work

    def ask(self, question: Question, nursery: trio.Nursery, *, needs_helper: bool) -> None:
        """Queue a question to be answered later."""
        entry = _Open(question, self._answers.for_one_question())
        if needs_helper:
            self._add_costly(entry, nursery)
            return
        self._unread.append(entry)
        if len(self._readers) < READERS_MAX:
            scope = trio.CancelScope()
            self._readers[scope] = None
            nursery.start_soon(self._read, scope, nursery)

    def drop(self) -> None:
        """Drop all questions, because no answer is wanted any more."""
        self._unread.clear()
        self._costly.clear()
        for scope in (*self._readers, *self._evaluators):
            scope.cancel()

    # Inside.

    async def _read(self, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        try:
            with scope:
                while self._unread:
                    entry = self._unread.popleft()
                    self._in_work += 1
                    try:
                        if await self._try(entry) is not None:
                            self._add_costly(entry, nursery)
                    finally:
                        self._in_work -= 1
        finally:
            del self._readers[scope]

    def _add_costly(self, entry: _Open, nursery: trio.Nursery) -> None:
        self._costly.append(entry)
        if len(self._evaluators) < EVALUATORS_MAX:
            scope = trio.CancelScope()
            self._evaluators[scope] = None
            nursery.start_soon(self._evaluate, scope)

    async def _evaluate(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while self._costly:
                    async with self._offload.turn(*self._key) as helper:
                        # At least one evaluation, or the turn would be wasted.
                        is_first = True
                        while self._costly and (is_first or not helper.is_over):
                            is_first = False
                            entry = self._costly.popleft()
                            self._in_work += 1
                            try:
                                await self._go_on(entry, helper)
                            finally:
                                self._in_work -= 1
        finally:
            del self._evaluators[scope]

    async def _go_on(self, entry: _Open, helper: Helper) -> None:
        """Run one evaluation of a question."""
        needed = await self._try(entry)
        if needed is None:
            return
        try:
            result: str | ExpressionError = await helper.run(needed.work, needed.source, needed.variables)
        except ExpressionError as error:
            result = error
        entry.answers.remember(needed.work, needed.source, result)
        # That may have been the last missing result.
        needed = await self._try(entry)
        if needed is not None:
            self._costly.appendleft(entry)

    async def _try(self, entry: _Open) -> HelperNeeded | None:
        """Answer a question if no evaluation is missing; load texts as needed.

        Raises:
            EventDamaged: The store has lost a text.
            JournalUnavailable: The store does not answer.
        """
        while entry.steps < STEPS_MAX:
            entry.steps += 1
            try:
                self._on_answer(entry.answers.answer(entry.question))
            except ContentMissing as missing:
                await self._contents.load(missing.digest)
            except HelperNeeded as needed:
                return needed
            else:
                return None
        problem = f"it takes more than {STEPS_MAX:,} evaluations and texts; name fewer"
        self._on_answer(problem_with(entry.question, problem))
        return None
