"""Reads the graphs for sub-graph nodes whose graph is the output of an upstream node (L4, N7)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import trio

from plait_server.core.definition.graph import Subgraph
from plait_server.core.run.commands import FindGraph, GraphFound, Input
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import EXPRESSION, Failure
from plait_server.core.run.invalid_graph import invalid_graph
from plait_server.ports.graph_requests import GraphRequests
from plait_server.runtime.building import Definitions
from plait_server.runtime.content_store import ContentMissing, ContentStore

FINDERS_MAX: Final = 2
"""The outputs of one execution that are read as graphs at once; the rest waits here, leaving readers for others."""


class GraphFinder:
    """Answers FindGraph for one execution. Its tasks live in the executor's nursery."""

    def __init__(
        self,
        requests: GraphRequests,
        definitions: Definitions,
        namespace: str,
        execution: Execution,
        contents: ContentStore,
        on_answer: Callable[[Input], None],
    ) -> None:
        self._requests = requests
        self._definitions = definitions
        self._namespace = namespace
        self._execution = execution
        self._contents = contents
        self._on_answer = on_answer
        self._waiting: deque[FindGraph] = deque()
        self._finders: dict[trio.CancelScope, None] = {}

    def __repr__(self) -> str:
        return f"<GraphFinder {len(self)} open>"

    def __len__(self) -> int:
        """Return how many questions are open."""
        return len(self._waiting) + len(self._finders)

    def ask(self, question: FindGraph, nursery: trio.Nursery) -> None:
        """Queue a question to be answered later."""
        self._waiting.append(question)
        if len(self._finders) < FINDERS_MAX:
            scope = trio.CancelScope()
            self._finders[scope] = None
            nursery.start_soon(self._work, scope)

    def drop(self) -> None:
        """Drop all questions, because no answer is wanted any more."""
        self._waiting.clear()
        for scope in self._finders:
            scope.cancel()

    async def _work(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while self._waiting:
                    question = self._waiting.popleft()
                    answer = await self._find(question)
                    if answer is not None:
                        self._on_answer(answer)
        finally:
            del self._finders[scope]

    async def _find(self, question: FindGraph) -> GraphFound | None:
        record = self._execution.find(question.node_path)
        if record is None or not isinstance(record.node.kind, Subgraph):
            return None  # Its scope was closed in the meantime.
        output_of = record.node.kind.output_of
        source = record.scope.find(output_of)
        if source is None or source.output is None:
            message = f"nodes.{output_of}.output is absent, but the graph has to come from it"
            failure = Failure(code=EXPRESSION, message=message, node_path=record.path)
            return GraphFound(question.node_path, question.ticket, None, failure=failure)
        text = ""
        while not text:
            try:
                text = self._contents.text(source.output)
            except ContentMissing as missing:
                await self._contents.load(missing.digest)
        read = await self._requests.read_text(self._namespace, text)
        if read.graph is None:
            failure = invalid_graph(output_of, read.violations, read.violation_count)
            failure = replace(failure, node_path=record.path)
            return GraphFound(question.node_path, question.ticket, None, failure=failure)
        definition = await self._definitions.of(read.graph)
        self._contents.unsaved[read.graph.digest] = read.graph.content
        self._contents.unsaved[read.graph.analysis_digest] = read.graph.analysis_content
        return GraphFound(
            question.node_path, question.ticket, definition, read.graph.digest, read.graph.analysis_digest
        )
