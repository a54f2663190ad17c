"""Tests of what log records say of their attempt (B3), and of how a worker's process writes them."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import AttemptFilter, Context, NodeFailure, Worker
from plait_worker.logs import LOG_FIELDS, WorkerFormatter
from tests.spans import ATTEMPT, TRACE, TRACEPARENT, provide_spans, span_id
from tests.workers.scripted_hub import ScriptedHub, assign, recorded, run
from tests.workers.serving import finish, make_worker, serving

LOGGER = logging.getLogger("studio.render")
FIELDS = {
    "namespace": "default",
    "execution": "e",
    "node": "loop[3]/n",
    "branch": "0-002",
    "attempt": 2,
    "trace": TRACE,
    "span": ATTEMPT,
}


class Records(logging.Handler):
    """Keeps the records that pass it."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def fields(self, message: str) -> dict[str, Any]:
        """Return the fields of the only record with a message."""
        (record,) = [record for record in self.all if record.getMessage().startswith(message)]
        return {name: value for name, value in vars(record).items() if name in LOG_FIELDS}


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Generator[Records]:
    """The records that a program gets that set up logging itself."""
    records = Records()
    records.addFilter(AttemptFilter())
    root = logging.getLogger()
    root.addHandler(records)
    caplog.set_level(logging.INFO)
    yield records
    root.removeHandler(records)


def attempt(token: str = "a", **fields: Any) -> hub.ServerMessage:  # noqa: ANN401
    given: dict[str, Any] = {
        "node_path": "loop[3]/n",
        "branch": "0-002",
        "attempt": 2,
        "traceparent": TRACEPARENT,
    } | fields
    return assign(token, token if token.isdigit() else "null", **given)


def run_attempts(worker: Worker, *attempts: hub.ServerMessage) -> None:
    """Have a worker run attempts, all at once, and drain it."""

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(*attempts)
            for _ in attempts:
                while (message := await stream.next()) is not None:
                    kind = message.WhichOneof("message")
                    if kind in {"complete", "fail"}:
                        await stream.send(recorded(getattr(message, str(kind)).token))
                        break
            await finish(worker, stream, task)

    run(test)


# Fields.


@pytest.mark.parametrize("way", ["coroutine", "task", "function", "to_thread"])
def test_what_handlers_log_names_their_attempt(records: Records, way: str) -> None:
    """B3: by any logger, in whatever the attempt runs."""
    worker = make_worker()

    async def log() -> None:
        LOGGER.info("rendering")

    if way == "function":

        @worker.node("t")
        def work_in_thread(context: Context, input: object) -> None:
            LOGGER.info("rendering")
    else:

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            match way:
                case "coroutine":
                    await log()
                case "task":
                    await asyncio.create_task(log())
                case _:
                    await asyncio.to_thread(LOGGER.info, "rendering")

    run_attempts(worker, attempt())
    assert records.fields("rendering") == FIELDS
    # What concerns no attempt has none of them.
    assert records.fields("attached to") == {}


def test_records_of_attempts_in_parallel_do_not_mix(records: Records) -> None:
    worker = make_worker()
    barrier = threading.Barrier(4)

    @worker.node("t")
    def work(context: Context, input: int) -> None:
        barrier.wait()
        LOGGER.info("rendering %d", input)
        barrier.wait()

    run_attempts(worker, *(attempt(str(number), node_path=f"n{number}") for number in range(4)))
    assert [records.fields(f"rendering {number}")["node"] for number in range(4)] == ["n0", "n1", "n2", "n3"]


def test_fields_that_do_not_exist_are_left_out(records: Records) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        LOGGER.info("rendering")

    run_attempts(worker, attempt(traceparent="", branch=""))
    assert records.fields("rendering").keys() == {"namespace", "execution", "node", "attempt"}


def test_span_is_the_current_one(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = provide_spans(monkeypatch)
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        LOGGER.info("outer")
        with trace.get_tracer(__name__).start_as_current_span("inner"):
            LOGGER.info("inner")

    run_attempts(worker, attempt())
    assert records.fields("outer") == FIELDS | {"span": span_id(spans.named("handle t"))}
    assert records.fields("inner") == FIELDS | {"span": span_id(spans.named("inner"))}


def test_extra_of_the_same_names_is_the_handler_s(records: Records) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        LOGGER.info("rendering", extra={"node": "gpu-7", "attempt": None, "execution_id": 1})

    run_attempts(worker, attempt())
    assert records.fields("rendering") == FIELDS | {"node": "gpu-7", "attempt": None}


@pytest.mark.parametrize("is_async", [True, False])
def test_worker_s_own_lines_name_their_attempt(records: Records, is_async: bool) -> None:
    worker = make_worker()

    def fail() -> None:
        raise NodeFailure("UNAVAILABLE", "no\n\x1b[31mrenderer")

    if is_async:

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            fail()
    else:

        @worker.node("t")
        def work_in_thread(context: Context, input: object) -> None:
            fail()

    run_attempts(worker, attempt())
    assert records.fields("attempt failed") == FIELDS
    (message,) = [record.getMessage() for record in records.all if "attempt failed" in record.getMessage()]
    assert message == r"attempt failed: loop[3]/n of e, attempt 2: UNAVAILABLE: no \x1b[31mrenderer"


# Text.


def formatted(message: str, **fields: object) -> str:
    error = sys.exc_info()
    record = logging.LogRecord("studio", logging.ERROR, "", 0, message, None, error if error[0] else None)
    vars(record).update(fields)
    return WorkerFormatter().format(record)


def test_text_ends_with_the_fields_in_their_order() -> None:
    assert formatted("at work", **dict(reversed(FIELDS.items()))).endswith(
        f" ERROR {os.getpid()} studio: at work namespace=default execution=e node=loop[3]/n branch=0-002"
        f" attempt=2 trace={TRACE} span={ATTEMPT}"
    )


def test_line_breaks_and_control_characters_are_escaped() -> None:
    text = formatted("a\nb\r\x1b[2J\x9b\u2028\u202e\tü", node="n\n")
    assert text.endswith(r"studio: a\nb\r\x1b[2J\x9b\u2028\u202e\tü node=n\n")
    assert len(text.splitlines()) == 1


def test_lines_of_a_traceback_are_indented() -> None:
    try:
        raise ValueError("a\n2026-01-01 00:00:00,000 INFO forged\x1b")
    except ValueError:
        first, *others = formatted("failed", execution="e").splitlines()
    assert first.endswith("failed execution=e")
    assert all(line.startswith("    ") for line in others)
    assert others[-1] == "    2026-01-01 00:00:00,000 INFO forged\\x1b"


# Processes.

SOURCE = """
import logging
import os

from plait_worker import AttemptFilter, Context, Worker

if "OWN" in os.environ:
    handler = logging.StreamHandler()
    handler.addFilter(AttemptFilter())
    logging.basicConfig(format="%(name)s|%(levelname)s|%(message)s|%(node)s", handlers=[handler])
    logging.getLogger("studio").setLevel(logging.INFO)
worker = Worker(worker_id="render")


@worker.node("t")
def work(context: Context, input: object) -> None:
    logging.getLogger("studio").info("rendering")
"""


def work_in_a_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a worker process run an attempt; return the lines of its stderr."""
    (folder / "logging_worker.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    errors: list[str] = []

    async def test() -> None:
        async with ScriptedHub() as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "plait_worker", "logging_worker:worker", "--connect", server.address),
                stderr=subprocess.PIPE,
            )
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(attempt())
            await stream.expect("complete")
            await stream.send(recorded("a"))
            process.send_signal(signal.SIGTERM)
            await stream.expect_end(skipping=("drain",))
            _, said = await process.communicate()
            errors.extend(said.decode().splitlines())

    run(test)
    return errors


def test_process_writes_what_handlers_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = work_in_a_process(tmp_path, monkeypatch)
    (line,) = [line for line in errors if "rendering" in line]
    assert " INFO " in line
    assert (
        f" studio: rendering namespace=default execution=e node=loop[3]/n branch=0-002 attempt=2 trace={TRACE} span="
        in line
    )
    assert sum("attached to" in line for line in errors) == 1


def test_process_leaves_logging_to_a_module_that_sets_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN", "1")
    errors = work_in_a_process(tmp_path, monkeypatch)
    # The first and the last line are the parent's.
    assert [line for line in errors if "|" in line] == ["studio|INFO|rendering|loop[3]/n"]
    assert not any("attached to" in line for line in errors)
