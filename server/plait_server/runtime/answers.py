"""Answers the core's questions: `when`s, conditions, rendered inputs, joins' objects, the output.

Everything is answered in place unless a text must first be read from the store (`ContentMissing`) or an
expression is not known to be cheap (`HelperNeeded`); then `questions` handles it. An answer is an input for the
core: if evaluation fails, it holds the problem as text, which fails the node (EXPRESSION).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from plait_server.core.definition.analysis import ERROR_HANDLE
from plait_server.core.definition.graph import Condition, JoinMode, Switch
from plait_server.core.json_text import (
    InvalidJson,
    JsonValue,
    dump_json,
    parse_json,
    splice_array,
    splice_object,
)
from plait_server.core.limits import JOINED_INPUT_BYTES_MAX, KEY_CHARS_MAX, PAYLOAD_BYTES_MAX
from plait_server.core.run.commands import (
    EdgesJudged,
    FindValue,
    Input,
    InputMade,
    JudgeEdges,
    MakeInput,
    MakeOutput,
    OutputMade,
    Question,
    ValueFound,
)
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import (
    Failure,
    bounded_message,
    cut_failure,
    failure_size,
    failure_to_json,
)
from plait_server.core.run.outcome import sinks_with_output
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import EdgeState
from plait_server.ports.evaluator import (
    Evaluator,
    ExpressionError,
    ExpressionFacts,
    InvalidExpression,
    OffloadNeeded,
    Work,
)
from plait_server.runtime.content_store import ContentStore


class HelperNeeded(OffloadNeeded):
    """An evaluation must run in a helper; `remember` its result, then answer the question again."""

    def __init__(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> None:
        self.work, self.source, self.variables = work, source, variables
        super().__init__(source)


class Answers:
    """Answers the questions of one execution."""

    def __init__(self, execution: Execution, evaluator: Evaluator, contents: ContentStore) -> None:
        self._execution = execution
        self._evaluator = evaluator
        self._contents = contents
        self._done: dict[tuple[Work, str], str | ExpressionError] = {}
        """The results from helpers for the current question."""
        self._parsed: dict[str, JsonValue] = {}
        """Inputs and failures that the current question has read: each of 1,000 `when`s may name the same."""

    def answer(self, question: Question) -> Input:
        """Answer a question in place.

        Raises:
            ContentMissing: A text must be loaded first.
            HelperNeeded: An expression must not run in this process.
        """
        self._parsed.clear()
        match question:
            case JudgeEdges():
                verdicts = [
                    bounded_message(each) if isinstance(each, str) else each for each in self._judge(question)
                ]
                return EdgesJudged(question.node_path, question.ticket, tuple(verdicts))
            case MakeInput():
                record = self._execution.record(question.node_path)
                return InputMade(
                    question.node_path, question.ticket, *self._attempt(lambda: self._make_input(record))
                )
            case FindValue():
                record = self._execution.record(question.node_path)
                return ValueFound(
                    question.node_path, question.ticket, *self._attempt(lambda: self._find_value(record))
                )
            case MakeOutput():
                scope = self._execution.scopes[question.scope_path]
                made = self._attempt(lambda: self._make_output(scope))
                return OutputMade(question.scope_path, question.ticket, *made)

    def for_one_question(self) -> Answers:
        """Return a copy that remembers the helpers' results for one question."""
        return Answers(self._execution, self._evaluator, self._contents)

    def remember(self, work: Work, source: str, result: str | ExpressionError) -> None:
        """Store a helper's result."""
        self._done[work, source] = result

    def join_input(self, record: NodeRecord) -> str:
        """Build the input that a node's join passes to it (section 6, J2, J4).

        Raises:
            ContentMissing: A text must be loaded first.
            ExpressionError: The input is larger than 16 MiB.
        """
        scope = record.scope
        # First, because texts that are too large together would evict each other for ever. Failures
        # give way: a join must not fail because of the failures that it collects.
        is_bare = _exceed(self._carried_sizes(scope, record, is_bare=False))
        if is_bare and _exceed(self._carried_sizes(scope, record, is_bare=True)):
            message = (
                f"what the join of {record.path!r} puts together is over the limit of {JOINED_INPUT_BYTES_MAX} bytes; "
                "let its sources return less, or addresses of what they made"
            )
            raise ExpressionError(message)
        text = self._join_text(scope, record, is_bare=is_bare)
        if len(text) > JOINED_INPUT_BYTES_MAX // 4 and len(text.encode()) > JOINED_INPUT_BYTES_MAX:
            message = (
                f"the input of {record.path!r} that its join makes is {len(text.encode())} bytes, over the limit of "
                f"{JOINED_INPUT_BYTES_MAX}; let its sources return less, or addresses of what they made"
            )
            raise ExpressionError(message)
        return text

    # Inside.

    def _attempt(self, make: Callable[[], Payload]) -> tuple[Payload | None, str]:
        try:
            return make(), ""
        except (ExpressionError, InvalidExpression, InvalidJson) as error:
            return None, bounded_message(str(error))

    def _judge(self, question: JudgeEdges) -> Sequence[bool | str]:
        record = self._execution.record(question.node_path)
        scope = record.scope
        output = question.output
        carried = (
            parse_json(self._failure_text(output))
            if isinstance(output, Failure)
            else self._contents.value(output)
        )
        # The node ends with this answer, so its record does not have it yet.
        ended: JsonValue = {"failure" if isinstance(output, Failure) else "output": carried}
        verdicts: list[bool | str] = []
        for place in question.edges:
            edge = scope.edge(scope.adjacency.outgoing[record.index][place])
            try:
                value = self._evaluate(edge.when, scope, record, {"output": carried}, ended)
            except (ExpressionError, InvalidExpression) as error:
                verdicts.append(f"the `when` of the edge {edge.source} -> {edge.target}: {error}")
                continue
            if isinstance(value, bool):
                verdicts.append(value)
            else:
                verdicts.append(
                    f"the `when` of the edge {edge.source} -> {edge.target} must give true or false, "
                    f"and gave {_shown(value)}: {edge.when}"
                )
        return verdicts

    def _find_value(self, record: NodeRecord) -> Payload:
        kind = record.node.kind
        if isinstance(kind, Condition):
            value = self._evaluate(kind.expression, record.scope, record, {})
            if not isinstance(value, bool):
                message = f"a condition must give true or false, and gave {_shown(value)}: {kind.expression}"
                raise ExpressionError(message)
        elif isinstance(kind, Switch):
            value = self._evaluate(kind.expression, record.scope, record, {})
            if not isinstance(value, str):
                message = f"a switch must give a string, and gave {_shown(value)}: {kind.expression}"
                raise ExpressionError(message)
        else:
            value = self._concurrency_key(record)
        return self._contents.keep(dump_json(value))

    def _concurrency_key(self, record: NodeRecord) -> str:
        source = record.node.concurrency_key
        value = self._evaluate(source, record.scope, record, {})
        if isinstance(value, str) and 0 < len(value) <= KEY_CHARS_MAX:
            return value
        given = f"one of {len(value)}" if isinstance(value, str) else _shown(value)
        rule = f"a concurrency key must be a string of 1 to {KEY_CHARS_MAX} characters"
        raise ExpressionError(f"{rule}, and it gave {given}: {source}")

    def _make_input(self, record: NodeRecord) -> Payload:
        if record.node.locked and record.lock is None and record.node.locked_output is not None:
            return self._contents.keep(record.node.locked_output)
        if record.node.input is None or (record.verdict is not None and record.verdict.is_failure):
            return self._contents.keep(self.join_input(record))
        template = self._evaluator.compile_template(record.node.input)
        if template.is_constant:
            return self._contents.keep(record.node.input)
        text = self._said(Work.RENDER, template.source)
        if text is None:
            variables = self._variables(template.facts, record.scope, record)
            if self._evaluator.needs_offload(template, variables):
                raise HelperNeeded(Work.RENDER, template.source, variables)
            text = template.render(variables)
        return self._sized(text, f"the input of {record.path!r}")

    def _make_output(self, scope: Scope) -> Payload:
        source = scope.graph.output
        if source:
            text = dump_json(self._evaluate(source, scope, None, {}))
        else:
            sinks, is_only = sinks_with_output(scope)
            if _exceed(_size(sink.output) for sink in sinks if sink.output is not None):
                message = (
                    f"the outputs of the sinks are over the limit of {JOINED_INPUT_BYTES_MAX} bytes together; "
                    "choose less with the graph's `output`"
                )
                raise ExpressionError(message)
            if is_only:
                text = self._contents.text(sinks[0].output or NULL) if sinks else "null"
            else:
                text = splice_object(
                    (sink.node.id, self._contents.text(sink.output or NULL)) for sink in sinks
                )
        if scope.policy.collect_errors:
            failures = self._execution.totals.failures_in(scope.path)
            is_bare = _exceed(_failure_size(failure, is_bare=False) for failure in failures)
            errors = splice_array(self._failure_text(failure, is_bare=is_bare) for failure in failures)
            text = f'{{"output":{text},"errors":{errors}}}'
        if len(text.encode()) > JOINED_INPUT_BYTES_MAX:
            message = f"the output is larger than {JOINED_INPUT_BYTES_MAX} bytes; choose less with the graph's `output`"
            raise ExpressionError(message)
        return self._contents.keep(text)

    def _sized(self, text: str, what: str) -> Payload:
        size = len(text.encode())
        if size > PAYLOAD_BYTES_MAX:
            message = (
                f"{what} is {size} bytes, over the limit of {PAYLOAD_BYTES_MAX}; pass an address instead"
            )
            raise ExpressionError(message)
        return self._contents.keep(text)

    def _evaluate(
        self,
        source: str,
        scope: Scope,
        record: NodeRecord | None,
        more: Mapping[str, JsonValue],
        ended: JsonValue = None,
    ) -> JsonValue:
        """Evaluate an expression; `ended` is its view of a node that is just ending."""
        said = self._said(Work.EVALUATE, source)
        if said is not None:
            return parse_json(said)
        expression = self._evaluator.compile(source)
        variables = {**self._variables(expression.facts, scope, record, ended), **more}
        if self._evaluator.needs_offload(expression, variables):
            raise HelperNeeded(Work.EVALUATE, source, variables)
        return expression.evaluate(variables)

    def _said(self, work: Work, source: str) -> str | None:
        """Return a helper's result, if there is one; then the variables need not be built again."""
        done = self._done.get((work, source))
        if isinstance(done, ExpressionError):
            raise done
        return done

    def _variables(
        self, facts: ExpressionFacts, scope: Scope, record: NodeRecord | None, ended: JsonValue = None
    ) -> dict[str, JsonValue]:
        """Collect the variables that an expression names, and no others (N5)."""
        execution = self._execution
        variables: dict[str, JsonValue] = {}
        for root in facts.roots:
            if root == "input":
                if record is None:
                    variables["input"] = self._contents.value(self._execution.input_of(scope))
                else:
                    variables["input"] = self._once("", lambda: self.join_input(record))
            elif root == "execution":
                variables["execution"] = {
                    "id": execution.execution_id,
                    "input": self._contents.value(execution.input),
                }
            elif root == "resume":
                variables["resume"] = self._contents.value(execution.resume_data)
        if facts.node_ids:
            seen = {node_id: self._node(node_id, scope) for node_id in facts.node_ids}
            if ended is not None and record is not None and record.node.id in seen:
                seen[record.node.id] = ended
            variables["nodes"] = seen
        return variables

    def _node(self, node_id: str, scope: Scope) -> JsonValue:
        record = scope.find(node_id)
        seen: dict[str, JsonValue] = {}
        if record is not None:
            if record.output is not None:
                seen["output"] = self._contents.value(record.output)
            if record.failure is not None:
                seen["failure"] = self._once(record.path, lambda: self._failure_text(record.failure))
        return seen

    def _once(self, name: str, text: Callable[[], str]) -> JsonValue:
        """Parse a text once per question: a node's failure, by its path, or the input (no path is empty)."""
        if name not in self._parsed:
            self._parsed[name] = parse_json(text())
        return self._parsed[name]

    def _join_text(self, scope: Scope, record: NodeRecord, *, is_bare: bool) -> str:
        if record.total == 0:
            return self._contents.text(self._execution.input_of(scope))
        join = record.node.join
        mode = join.mode if join is not None else JoinMode.ALL
        if mode is JoinMode.COLLECT:
            return self._collected(scope, record, is_bare=is_bare)
        if mode is JoinMode.ANY:
            if not record.active_edges:
                return "null"
            edge = record.active_edges[0]
            winner = json.dumps(scope.source(edge).node.id)
            return f'{{"winner":{winner},"output":{self._carried(scope, edge, is_bare=is_bare)}}}'
        if mode is JoinMode.ALL and record.total == 1:
            return (
                self._carried(scope, record.active_edges[0], is_bare=is_bare)
                if record.active_edges
                else "null"
            )
        return splice_object(
            (scope.source(edge).node.id, self._carried(scope, edge, is_bare=is_bare))
            for edge in record.active_edges
        )

    def _carried_sizes(self, scope: Scope, record: NodeRecord, *, is_bare: bool) -> Iterator[int]:
        is_collect = record.node.join is not None and record.node.join.mode is JoinMode.COLLECT
        for edge in scope.adjacency.incoming[record.index] if is_collect else record.active_edges:
            source = scope.source(edge)
            if scope.edge_states[edge] is EdgeState.BROKEN:
                failure = _breaker(scope, source)
            else:
                failure = source.failure if scope.edge(edge).handle == ERROR_HANDLE else None
            if failure is not None:
                yield _failure_size(failure, is_bare=is_bare)
            elif source.output is not None and scope.edge_states[edge] is EdgeState.ACTIVE:
                yield _size(source.output)

    def _collected(self, scope: Scope, record: NodeRecord, *, is_bare: bool) -> str:
        results: list[str] = []
        success_count = 0
        for edge in scope.adjacency.incoming[record.index]:
            state = scope.edge_states[edge]
            if state in (EdgeState.DEAD, EdgeState.UNRESOLVED):
                continue
            source = scope.source(edge)
            success = state is EdgeState.ACTIVE and scope.edge(edge).handle != ERROR_HANDLE
            if success:
                success_count += 1
                said = f'"data":{self._carried(scope, edge, is_bare=is_bare)}'
            else:
                failure = source.failure if state is EdgeState.ACTIVE else _breaker(scope, source)
                said = f'"error":{self._failure_text(failure, is_bare=is_bare)}'
            branch = json.dumps(scope.branches.full_path(scope.branches.edge_branch[edge]))
            head = f'"source":{json.dumps(source.node.id)},"branch":{branch}'
            results.append(f'{{{head},"success":{"true" if success else "false"},{said}}}')
        failure_count = len(results) - success_count
        listed = splice_array(results)
        return f'{{"results":{listed},"success_count":{success_count},"failure_count":{failure_count}}}'

    def _carried(self, scope: Scope, edge: int, *, is_bare: bool) -> str:
        source = scope.source(edge)
        if scope.edge(edge).handle == ERROR_HANDLE:
            return self._failure_text(source.failure, is_bare=is_bare)
        return self._contents.text(source.output or NULL)

    def _failure_text(self, failure: Failure | None, *, is_bare: bool = False) -> str:
        """Write a failure with its details and causes, or bare, without them; null if there is none."""
        if failure is None:
            return "null"
        if is_bare:
            failure = cut_failure(failure, 0)
        return failure_to_json(failure, self._contents.text, bytes_max=JOINED_INPUT_BYTES_MAX)


def problem_with(question: Question, problem: str) -> Input:
    """Return the answer to a question that cannot be answered."""
    match question:
        case JudgeEdges():
            return EdgesJudged(question.node_path, question.ticket, (problem,) * len(question.edges))
        case MakeInput():
            return InputMade(question.node_path, question.ticket, None, problem)
        case FindValue():
            return ValueFound(question.node_path, question.ticket, None, problem)
        case MakeOutput():
            return OutputMade(question.scope_path, question.ticket, None, problem)


def _exceed(sizes: Iterable[int]) -> bool:
    """Return whether the total size is more than a join may hold, stopping as soon as that is known."""
    return any(total > JOINED_INPUT_BYTES_MAX for total in accumulate(sizes))


def _failure_size(failure: Failure, *, is_bare: bool) -> int:
    return failure_size(cut_failure(failure, 0) if is_bare else failure, bytes_max=JOINED_INPUT_BYTES_MAX)


def _size(payload: Payload) -> int:
    return payload.size_bytes if payload.digest else len(payload.json)


def _breaker(scope: Scope, source: NodeRecord) -> Failure | None:
    """Return the earliest failure that broke an edge of this source (J4)."""
    return scope.failures[source.origin] if source.origin >= 0 else None


def _shown(value: JsonValue) -> str:
    text = dump_json(value)
    return text if len(text) <= 60 else text[:57] + "..."  # enough to recognize it
