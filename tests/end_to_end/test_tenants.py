"""Nothing of one tenant is told to another: what exists in another namespace is answered as what exists nowhere.

For each method and each text field of its request, ids of another tenant are put in, and ids of the same form that
nothing has. The answers must be equal to the byte but for the ids themselves; of good answers, which have times and
ids of their own, the same fields are set.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Generator, Iterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from plait.v1 import graph_pb2, limit_service_pb2
from plait_client import Access, Client
from plait_client.graph_file import parse_graph
from plait_server.api.roles import ACCESS, Scope
from tests.end_to_end.guarding import DESCRIPTORS, OTHER, OWN, SERVER_WIDE, Guarded, request_of
from tests.end_to_end.processes import Server
from tests.end_to_end.service import CALL_S

GRAPH = parse_graph("name: secret-graph\nnodes: [{id: secret-node, task: {type: t}}]")
NO_IDS = ("namespace", "json", "filter", "order_by")
"""The namespace, and texts in languages of their own."""
ATTACH = "/plait.v1.WorkerHubService/Attach"


class Tenants:
    """A server with two tenants: the ids of one, and a caller who may do everything in the namespace of the other."""

    def __init__(self, server: Server, guarded: Guarded) -> None:
        self.token = guarded.tokens["admin"]
        self.server_wide = guarded.tokens[SERVER_WIDE]
        self._access = Access(token=self.server_wide)
        self._address = server.address
        self.channel = grpc.insecure_channel(server.address)
        self.own = {"execution_id": "own-execution", "node_path": "secret-node", "digest": "0" * 64}
        self._submit(OWN, "own-execution", "own")
        self._submit(OTHER, "secret-execution", "secret-request")
        digest = self._submit(OTHER, "secret-execution-2", "secret-request-2")
        self._over = threading.Event()
        self._names = itertools.count()
        self._attach(self.server_wide)
        path = "/plait.v1.LimitService/SetLimit"
        limit = self.base(path, OTHER)
        limit.name = "secret-key"
        self.call(path, limit.SerializeToString(), self.server_wide)
        self.ids = [
            "secret-execution",
            "secret-request",
            "secret-worker",
            "of-secret-worker",
            "secret-key",
            digest,
        ]
        self.page_tokens = dict(self._page_tokens(self.server_wide))

    def ids_for(self, path: str) -> list[str]:
        """Return what to ask a method for."""
        if path == ATTACH:  # Its streams take longer than calls.
            return ["secret-worker", "of-secret-worker"]
        return [*self.ids, *filter(None, [self.page_tokens.get(path)])]

    def close(self) -> None:
        self._over.set()
        self.channel.close()

    def _submit(self, namespace: str, execution_id: str, request_id: str) -> str:
        """Submit a graph that waits, with a large input; return the digest of the input."""
        with Client(self._address, namespace=namespace, access=self._access) as client:
            text = {"text": namespace * 20_000}
            client.submit(GRAPH, input=text, execution_id=execution_id, request_id=request_id)
            return client.get(execution_id).input.digest

    def _attach(self, token: str) -> None:
        stub = cast("Any", self.channel).stream_stream(ATTACH)
        requests = self._open(request_of(ATTACH, OTHER, "secret-worker"))
        # Kept, or it would be cancelled.
        self._worker = stub(requests, timeout=CALL_S, metadata=[("authorization", f"Bearer {token}")])
        next(self._worker)

    def _open(self, request: bytes) -> Iterator[bytes]:
        """Yield a request, and leave the stream open."""
        yield request
        self._over.wait()

    def _page_tokens(self, token: str) -> Iterator[tuple[str, str]]:
        """Return a token of the other tenant for each list that has more than a page, and for each watch of one."""
        for path, descriptor in DESCRIPTORS.items():
            request = self.base(path, OTHER)
            fields = descriptor.input_type.fields_by_name
            if "page_token" in fields:
                request.page_size = 1
            elif "watch_token" in fields:
                request.include_initial = True
            else:
                continue
            if "execution_id" in fields:
                request.execution_id = ""
            answer: Any = message_factory.GetMessageClass(descriptor.output_type)()
            code, _, content = self.call(path, request.SerializeToString(), token)
            if code is grpc.StatusCode.OK:
                answer.ParseFromString(content)
                yield path, answer.next_page_token if "page_token" in fields else answer.watch_token

    def base(self, path: str, namespace: str) -> Any:  # noqa: ANN401 # a request of any type
        """Return a request that gets as far as may be."""
        descriptor = DESCRIPTORS[path].input_type
        request: Any = message_factory.GetMessageClass(descriptor)()
        request.ParseFromString(request_of(path, namespace, f"own-worker-{next(self._names)}"))
        for name, value in self.own.items():
            if name in descriptor.fields_by_name:
                setattr(request, name, value)
        if isinstance(getattr(request, "graph", None), graph_pb2.Graph):
            request.graph.CopyFrom(GRAPH)
        if path.endswith("WaitExecution"):
            request.wait.FromSeconds(0)
        if path.endswith(("SetLimit", "RemoveLimit")):
            request.kind = limit_service_pb2.LIMIT_KIND_KEY
            request.name = "own-key"
        if path.endswith("SetLimit"):
            request.max_concurrency = 2
        return request

    def call(self, path: str, request: bytes, token: str | None = None) -> tuple[grpc.StatusCode, str, bytes]:
        """Return code, message, and the first answer or the details of the error."""
        stub = cast("Any", self.channel).stream_stream(path)
        metadata = [("authorization", f"Bearer {token or self.token}")]
        requests = self._open(request) if path == ATTACH else iter([request])
        answers = stub(requests, timeout=CALL_S, metadata=metadata)
        try:
            return grpc.StatusCode.OK, "", next(answers)
        except StopIteration:
            return grpc.StatusCode.OK, "", b""
        except grpc.RpcError as error:
            told: Any = error
            details = dict(told.trailing_metadata()).get("grpc-status-details-bin", b"")
            return told.code(), told.details(), details
        finally:
            answers.cancel()


@pytest.fixture(scope="module")
def tenants(guarded: Guarded, guarded_server: Server) -> Generator[Tenants]:
    tenants = Tenants(guarded_server, guarded)
    yield tenants
    tenants.close()


def unlike(text: str) -> tuple[str, str]:
    """Return two texts of the same form that name nothing."""
    if len(text) == 64:
        return text[::-1], text[1:] + text[:1]
    if "secret" in text:
        return text.replace("secret", "absent"), text.replace("secret", "nobody")
    return f"{text[:-9]}AAAA{text[-5:]}", f"{text[:-9]}BBBB{text[-5:]}"


def text_paths(descriptor: Descriptor, depth: int = 4) -> Iterator[tuple[str, ...]]:
    """Return the paths of the text fields of a request that may name something; those in graphs do not."""
    for field in descriptor.fields:
        if field.message_type is None:
            if field.type == FieldDescriptor.TYPE_STRING and field.name not in NO_IDS:
                yield (field.name,)
        elif depth and field.name != "graph" and not field.message_type.GetOptions().map_entry:
            for rest in text_paths(field.message_type, depth - 1):
                yield (field.name, *rest)


def put(message: Any, path: tuple[str, ...], text: str) -> None:  # noqa: ANN401 # a message of any type
    for name in path[:-1]:
        field = message.DESCRIPTOR.fields_by_name[name]
        inner = getattr(message, name)
        message = (inner[0] if len(inner) else inner.add()) if field.is_repeated else inner
    if message.DESCRIPTOR.fields_by_name[path[-1]].is_repeated:
        getattr(message, path[-1]).append(text)
    else:
        setattr(message, path[-1], text)


def shape(message: Message) -> object:
    """Return which fields of an answer are set, and how many elements the repeated ones have."""
    return {field.name: len(value) if field.is_repeated else "set" for field, value in message.ListFields()}


PATHS = [
    path
    for path, descriptor in DESCRIPTORS.items()
    if ACCESS[path].scope not in (Scope.ANYWHERE, Scope.SERVER) and any(text_paths(descriptor.input_type))
]


def test_the_other_tenant_has_what_was_asked_for(tenants: Tenants) -> None:
    """Otherwise the tests above would show nothing."""
    with Client(tenants._address, namespace=OTHER, access=tenants._access) as client:
        assert {each.execution_id for each in client.list()} == {"secret-execution", "secret-execution-2"}
        assert [each.worker_id for each in client.workers()] == ["secret-worker"]
        assert client.payload(client.get("secret-execution").input)
    path = "/plait.v1.LimitService/ListLimits"
    _, _, limits = tenants.call(path, tenants.base(path, OTHER).SerializeToString(), tenants.server_wide)
    assert b"secret-key" in limits
    for name in ("ListExecutions", "ListAuditEntries", "WatchExecutions"):
        assert any(token for path, token in tenants.page_tokens.items() if path.endswith(name)), name


def test_lists_of_another_tenant_are_empty(tenants: Tenants) -> None:
    """None of its ids stands in any answer to a request about one's own namespace, labels of workers included."""
    for path in PATHS:
        _, message, content = tenants.call(path, tenants.base(path, OWN).SerializeToString())
        told = message.encode() + content
        for secret in ("secret-execution", "secret-worker", "secret-request", "secret-key"):
            assert secret.encode() not in told, path


@pytest.mark.parametrize("path", sorted(PATHS, key=lambda path: "Delete" in str(path)), ids=str)
def test_ids_of_another_tenant_are_answered_as_ids_of_nothing(tenants: Tenants, path: str) -> None:
    """FAILURES, security: byte-identical for what exists elsewhere and what does not exist."""
    descriptor = DESCRIPTORS[path]
    output = message_factory.GetMessageClass(descriptor.output_type)
    for field in text_paths(descriptor.input_type):
        for namespace in (OWN, OTHER):
            for real in tenants.ids_for(path):
                answers: list[Any] = []
                base = tenants.base(path, namespace)
                before, after = unlike(real)
                # The first call may change something that the others find changed.
                for text in (before, real, after):
                    request: Any = copy.deepcopy(base)
                    put(request, field, text)
                    if field[-1] == "worker_id":  # An instance belongs to one worker.
                        request.messages[0].hello.instance_id = f"of-{text}-{real}"
                    code, message, content = tenants.call(path, request.SerializeToString())
                    if code is grpc.StatusCode.OK:
                        answer = output()
                        answer.ParseFromString(content)
                        answers.append(shape(answer))
                    else:
                        content = content.replace(text.encode(), b"ID")
                        answers.append((code, message.replace(text, "ID"), content))
                assert answers[1] in (answers[0], answers[2]), (field, real, answers)
