"""Runs a Jaeger for the demonstration, and draws a trace that it has."""

from __future__ import annotations

import json
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

POLL_S: Final = 0.1
LABEL_CHARS: Final = 46
BAR_CHARS_MIN: Final = 20
BAR_CHARS_MAX: Final = 60
TOOK_CHARS: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Jaeger:
    """The addresses of a Jaeger that stores traces in memory."""

    otlp: str
    """Where it accepts spans by gRPC."""
    api: str
    """Where its query API is."""
    others: Mapping[str, str]
    """Option -> address, of its other ports."""

    @property
    def endpoint(self) -> str:
        """The value for OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{self.otlp}"

    def arguments(self, binary: str) -> list[str]:
        """Return the command that starts it."""
        addresses = {"collector.otlp.grpc": self.otlp, "query.http-server": self.api, **self.others}
        return [binary, *(f"--{name}.host-port={address}" for name, address in addresses.items())]

    def is_ready(self) -> bool:
        """Return whether it accepts spans."""
        try:
            with urllib.request.urlopen(f"http://{self.others['admin.http']}/"):
                return True
        except OSError:
            return False

    def trace_address(self, trace_id: str) -> str:
        """Return where a trace is shown as JSON."""
        return f"http://{self.api}/api/traces/{trace_id}"

    def read_trace(self, trace_id: str) -> Trace | None:
        """Read the spans of a trace that have arrived; None if none has."""
        try:
            with urllib.request.urlopen(self.trace_address(trace_id)) as answer:  # noqa: S310 -- Our own Jaeger.
                (trace,) = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
            return None
        return Trace(trace["spans"])

    def wait_for_trace(self, trace_id: str, timeout_s: float) -> Trace | None:
        """Wait until the trace of an execution is complete; return what has arrived when the time is up."""
        end_s = time.monotonic() + timeout_s
        while True:
            trace = self.read_trace(trace_id)
            if (trace is not None and trace.is_whole()) or time.monotonic() > end_s:
                return trace
            time.sleep(POLL_S)  # Jaeger's API has no call that waits.


class Trace:
    """The spans of a trace, as Jaeger's API shows them."""

    def __init__(self, spans: Sequence[Mapping[str, Any]]) -> None:
        self._spans = sorted(spans, key=lambda span: (span["startTime"], _label(span)))
        ids = {span["spanID"] for span in spans}
        self._children: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for span in self._spans:
            parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
            self._children[parents[0] if parents and parents[0] in ids else ""].append(span)

    def is_whole(self) -> bool:
        """Return whether the execution's span has arrived, and the worker's span of each attempt."""
        names = {span["operationName"] for span in self._spans}
        attempts = [span for span in self._spans if span["operationName"].startswith("attempt ")]
        roots = self._children[""]
        return (
            "execution" in names
            and all(self._children[span["spanID"]] for span in attempts)
            and [span["operationName"] for span in roots] == ["demo"]
        )

    def lines(self) -> Iterator[str]:
        """Draw the trace as a tree, with a bar and the duration of each span."""
        start_us = min(span["startTime"] for span in self._spans)
        total_us = max(span["startTime"] + span["duration"] for span in self._spans) - start_us
        columns = shutil.get_terminal_size().columns - LABEL_CHARS - TOOK_CHARS - 4
        bar_chars = min(max(columns, BAR_CHARS_MIN), BAR_CHARS_MAX)
        waiting = [(0, span) for span in reversed(self._children[""])]
        while waiting:
            depth, span = waiting.pop()
            label = "  " * depth + _label(span)
            begin = (span["startTime"] - start_us) * bar_chars // max(total_us, 1)
            chars = max(1, round(span["duration"] * bar_chars / max(total_us, 1)))
            bar = (" " * min(begin, bar_chars - 1) + "█" * chars)[:bar_chars]
            took = f"{span['duration'] / 1000:,.1f} ms"
            yield f"{label[:LABEL_CHARS]:{LABEL_CHARS}} {bar:{bar_chars}} {took:>{TOOK_CHARS}}"
            waiting += [(depth + 1, child) for child in reversed(self._children[span["spanID"]])]


def free_jaeger() -> Jaeger:
    """Choose addresses for a Jaeger: its usual ports where they are free."""
    usual = {
        "collector.otlp.grpc": 4317,
        "query.http-server": 16686,
        "collector.otlp.http": 4318,
        "collector.grpc-server": 14250,
        "collector.http-server": 14268,
        "query.grpc-server": 16685,
        "admin.http": 14269,
    }
    found = {name: f"127.0.0.1:{_free_port(port)}" for name, port in usual.items()}
    return Jaeger(otlp=found.pop("collector.otlp.grpc"), api=found.pop("query.http-server"), others=found)


def _free_port(usual: int) -> int:
    for port in (usual, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as listener:
                number: int = listener.getsockname()[1]
                return number
        except OSError:
            continue
    raise OSError("there is no free port")


def _label(span: Mapping[str, Any]) -> str:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    name: str = span["operationName"]
    match name.partition(" ")[0]:
        case "execution":
            return f"{name} {tags.get('plait.graph.name', '')}"
        case "branch":
            return f"{name} {tags.get('plait.branch.id', '')}"
        case "node":
            return f"{name}: {tags.get('plait.node.id', '')}"
        case "attempt":
            return f"{name}: {tags.get('plait.attempt.number', '')} at {tags.get('plait.worker.id', '')}"
        case _:
            return name
