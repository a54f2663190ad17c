"""Reads requests that carry graphs; used in place and by the helper processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found] # the stubs lack it

from plait.v1 import execution_service_pb2, graph_pb2, graph_service_pb2, payload_pb2
from plait_server.core.definition.graph import Analysis, Graph
from plait_server.core.definition.problems import Problem
from plait_server.core.definition.validation import ExpressionNames, Validation, validate
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import PAYLOAD_BYTES_MAX
from plait_server.encoding.element_bounds import TooManyElements, check_bounds
from plait_server.encoding.fingerprint import fingerprint_of
from plait_server.encoding.graph_answers import plan_response, validation_response
from plait_server.encoding.graph_codec import analysis_to_bytes, graph_from_proto
from plait_server.errors import FieldViolation, InvalidGraph, InvalidRequest
from plait_server.ports.evaluator import Evaluator, InvalidExpression
from plait_server.ports.graph_requests import CheckedGraph, GraphRequest, Want

TYPES: Final[Mapping[Want, type[Message]]] = {
    Want.SUBMIT: execution_service_pb2.SubmitGraphRequest,
    Want.VALIDATE: graph_service_pb2.ValidateGraphRequest,
    Want.PLAN: graph_service_pb2.PlanGraphRequest,
}

_NUMBERS_SHOWN_MAX: Final = 10


def check_graph(message: graph_pb2.Graph, evaluator: Evaluator) -> tuple[Graph, Validation]:
    """Read and check a graph; the validation has all of its problems."""

    def check(source: str, *, template: bool) -> ExpressionNames | str:
        try:
            facts = (evaluator.compile_template(source) if template else evaluator.compile(source)).facts
        except InvalidExpression as error:
            return str(error)
        return ExpressionNames(roots=facts.roots, node_ids=facts.node_ids)

    problems = _unknown_fields(message)
    graph = graph_from_proto(message, problems)
    return graph, validate(graph, check, problems)


def _unknown_fields(graph: graph_pb2.Graph) -> list[Problem]:
    """Find the unknown fields of a graph: ignoring them would change what its author meant."""
    known = graph_pb2.Graph()
    known.CopyFrom(graph)
    known.DiscardUnknownFields()  # type: ignore[attr-defined] # the stubs lack it
    problems: list[Problem] = []
    rest: list[tuple[str, Message, Message]] = [("graph", graph, known)]
    while rest:
        path, part, known_part = rest.pop()
        if part.ByteSize() == known_part.ByteSize():
            continue
        numbers = sorted({field.field_number for field in UnknownFieldSet(part)})
        if numbers:
            problems.append(Problem(field=path, message=_unknown_message(numbers)))
        rest += reversed(list(_parts(path, part, known_part)))
    return problems


def _unknown_message(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_NUMBERS_SHOWN_MAX])
    if len(numbers) > _NUMBERS_SHOWN_MAX:
        shown += f" and {len(numbers) - _NUMBERS_SHOWN_MAX:,} more"
    fields = "field" if len(numbers) == 1 else "fields"
    return (
        f"this server does not know its {fields} {shown}; "
        f"is the server older than the client? upgrade the server, or remove the {fields}"
    )


def _parts(path: str, part: Message, known_part: Message) -> Iterator[tuple[str, Message, Message]]:
    """Yield the path of each message in a message, the message itself, and its copy without unknown fields."""
    for field, known in known_part.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        whole = getattr(part, field.name)
        if field.is_repeated:
            for at, pair in enumerate(zip(whole, known, strict=True)):
                yield f"{path}.{field.name}[{at}]", *pair
        else:
            yield f"{path}.{field.name}", whole, known


def read_bytes(want: Want, content: bytes, evaluator: Evaluator) -> GraphRequest:
    """Read an encoded request; its elements are counted before it is parsed.

    Raises:
        InvalidRequest: The bytes are not such a message, or have too many elements.
    """
    type_ = TYPES[want]
    try:
        check_bounds(type_, content)
        message = type_.FromString(content)
    except TooManyElements as error:
        raise refusal_of([FieldViolation(field=error.field, message=error.message)]) from None
    except DecodeError as error:
        text = f"is not a valid {type_.DESCRIPTOR.full_name}; is its client up to date?"
        raise InvalidRequest([FieldViolation(field="request", message=text)]) from error
    return read_message(want, message, evaluator)


def refusal_of(violations: Sequence[FieldViolation]) -> InvalidRequest:
    """Return the error for a request that was not parsed: INVALID_GRAPH if its graph has too many elements."""
    if violations[0].field.startswith("graph"):
        return InvalidGraph(violations, len(violations))
    return InvalidRequest(violations)


def read_message(want: Want, message: Message, evaluator: Evaluator) -> GraphRequest:
    """Read a parsed request, without changing it."""
    match message:
        case execution_service_pb2.SubmitGraphRequest():
            return _read_submission(message, evaluator)
        case graph_service_pb2.ValidateGraphRequest() | graph_service_pb2.PlanGraphRequest():
            return _read_question(want, message, evaluator)
        case _:
            raise TypeError(want, type(message))


def checked_graph(message: graph_pb2.Graph, graph: Graph, analysis: Analysis) -> CheckedGraph:
    """Return a valid graph in the form in which the store keeps it."""
    content = message.SerializeToString(deterministic=True)
    analysis_content = analysis_to_bytes(analysis)
    return CheckedGraph(
        content=content,
        digest=hashlib.sha256(content).hexdigest(),
        analysis_content=analysis_content,
        analysis_digest=hashlib.sha256(analysis_content).hexdigest(),
        values=(graph, analysis),
    )


def _read_submission(message: execution_service_pb2.SubmitGraphRequest, evaluator: Evaluator) -> GraphRequest:
    fingerprint = fingerprint_of(message, without=("wait",)) if message.request_id else b""
    problem = _problem_of_input(message.input)
    given = {field.name: value for field, value in message.ListFields() if field.name != "graph"}
    head = execution_service_pb2.SubmitGraphRequest(**given)
    if not message.HasField("graph"):
        return GraphRequest(head=head, has_graph=False, fingerprint=fingerprint, input_problem=problem)
    graph, validation = check_graph(message.graph, evaluator)
    checked = None
    if validation.analysis is not None:
        checked = checked_graph(message.graph, graph, validation.analysis)
    return GraphRequest(
        head=head,
        has_graph=True,
        fingerprint=fingerprint,
        input_problem=problem,
        violations=violations_of(validation),
        violation_count=validation.problem_count,
        graph=checked,
    )


def _read_question(
    want: Want,
    message: graph_service_pb2.ValidateGraphRequest | graph_service_pb2.PlanGraphRequest,
    evaluator: Evaluator,
) -> GraphRequest:
    head = TYPES[want](namespace=message.namespace)
    if not message.HasField("graph"):
        return GraphRequest(head=head, has_graph=False, fingerprint=b"")
    graph, validation = check_graph(message.graph, evaluator)
    answer = b""
    if want is Want.VALIDATE:
        answer = validation_response(validation).SerializeToString()
    elif validation.is_valid:
        answer = plan_response(graph, validation).SerializeToString()
    return GraphRequest(
        head=head,
        has_graph=True,
        fingerprint=b"",
        violations=violations_of(validation),
        violation_count=validation.problem_count,
        answer=answer,
    )


def violations_of(validation: Validation) -> tuple[FieldViolation, ...]:
    """Return the problems that validation kept."""
    return tuple(
        [FieldViolation(field=problem.field, message=problem.message) for problem in validation.problems]
    )


def _problem_of_input(payload: payload_pb2.Payload) -> str:
    if payload.WhichOneof("content") != "json" or len(payload.json) > PAYLOAD_BYTES_MAX:
        return ""  # For an input that is too large only its size is reported.
    try:
        check_json(payload.json, max_bytes=PAYLOAD_BYTES_MAX)
    except InvalidJson as error:
        return str(error)
    return ""
