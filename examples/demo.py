"""What `./scripts/demo` runs: a server, a worker in two processes, a graph, and a picture at the end.

Everything it does is done with commands that can be typed as well; it shows each of them. With --jaeger it is traced,
and is the caller whose span the execution's is a child of.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from examples.jaeger import Jaeger, free_jaeger
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import format_span_id, format_trace_id

from plait.v1 import execution_pb2
from plait_client import Client, PlaitError
from plait_worker.exporting import otlp_protocol

ROOT: Final = Path(__file__).resolve().parent.parent
GRAPH: Final = "examples/contact-sheet.yaml"
WORKER: Final = "examples.contact_sheet:worker"
EXECUTION_ID: Final = "contact-sheet"
SUBJECTS: Final = ("a river delta at dawn", "aurora over a frozen lake", "autumn leaves in a storm")
START_S: Final = 60.0
"""How long the server and the worker may take to be there; a second is usual."""
JAEGER_START_S: Final = 30.0
SPANS_S: Final = 20.0
"""How long the last spans may take to come: workers send theirs every five seconds."""
ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
STOP_S: Final = 15.0
"""How long they may take to end; then they are killed."""


class DemoFailed(Exception):
    """The demonstration cannot go on; the message says why, and where to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process that runs beside this one."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    """Where it writes what it has to say."""

    def check(self) -> None:
        """Look whether it runs.

        Raises:
            DemoFailed: it has ended.
        """
        if self.process.poll() is not None:
            last = self.log.read_text(encoding="utf-8").strip().splitlines()[-3:]
            text = "\n  ".join([f"the {self.name} ended with code {self.process.returncode}:", *last])
            raise DemoFailed(f"{text}\n  All it said is in {shown(self.log)}")


def main() -> int:
    """Run the demonstration; return the exit code."""
    parser = argparse.ArgumentParser(description="Runs a graph on a server and a worker of its own.")
    parser.add_argument("--processes", type=int, default=2, help="how many processes the worker has [2]")
    parser.add_argument("--directory", type=Path, help="where everything goes [build/demo/ and the time]")
    parser.add_argument("--keep", action="store_true", help="keep server and worker running until Ctrl-C")
    parser.add_argument(
        "--jaeger",
        action="store_true",
        help="trace it, and keep all running until Ctrl-C; the spans go to the collector that "
        "OTEL_EXPORTER_OTLP_ENDPOINT names, else to a Jaeger that scripts/jaeger builds",
    )
    options = parser.parse_args()
    os.chdir(ROOT)
    # So that a demo that is told to end stops what it has started.
    signal.signal(signal.SIGTERM, _end)
    directory: Path = options.directory or Path("build/demo") / datetime.now().astimezone().strftime(
        "%Y-%m-%dT%H-%M-%S"
    )
    try:
        keep: bool = options.keep or options.jaeger
        return run(directory, max(1, options.processes), keep=keep, is_traced=options.jaeger)
    except (DemoFailed, PlaitError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted\n")
        return 130


def run(directory: Path, processes: int, *, keep: bool, is_traced: bool) -> int:
    """Run everything in a folder; return the exit code. Whatever happens, nothing is left running."""
    directory.mkdir(parents=True, exist_ok=True)
    store = directory / "plait.db"
    with ExitStack() as stack:
        jaeger = stack.enter_context(collector(directory)) if is_traced else None
        serve = ["plait", "serve", "--listen", "127.0.0.1:0", "--store", shown(store), "--create"]
        server = stack.enter_context(running("server", serve, directory))
        address = read_address(server)
        worker_id = ["--id", "demo", "--processes", str(processes)]
        worker = ["plait", "worker", WORKER, "--connect", address, *worker_id]
        workers = stack.enter_context(running("worker", worker, directory))
        client = stack.enter_context(Client(address))
        wait_for_workers(client, processes, (server, workers))
        input_ = {
            "title": "Three pictures of wind",
            "subjects": SUBJECTS,
            "directory": str((directory / "pictures").resolve()),
        }
        input_path = directory / "input.json"
        input_path.write_text(json.dumps(input_, indent=2), encoding="utf-8")
        submit = ["plait", "submit", GRAPH, "--input", f"@{shown(input_path)}", "--id", EXECUTION_ID]
        with demo_span() if is_traced else nullcontext("") as trace_id:
            announce([*submit, "--watch", "--server", address])
            print(flush=True)
            code = subprocess.call([*command(submit), "--watch", "--server", address])  # noqa: S603 -- Our own command.
            print()
        if code:
            print(f"The execution did not succeed. The logs: {shown(server.log)} {shown(workers.log)}")
            return code
        execution = client.get(EXECUTION_ID)
        tell(client, execution, processes)
        if is_traced:
            show_trace(jaeger, trace_id, address)
        look_further(store, address, keep=keep)
        if keep:
            who = "Server and worker" if jaeger is None else "Server, worker and Jaeger"
            print(f"\n{who} go on until Ctrl-C.", flush=True)
            # Until Ctrl-C, or the server's end.
            server.process.wait()
    return 0


@contextmanager
def collector(directory: Path) -> Generator[Jaeger | None]:
    """Run a collector, and name it to all that is started later; yield None if the user has one."""
    if any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        yield None
        return
    announce(["scripts/jaeger"])
    built = subprocess.run(["scripts/jaeger"], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S607 -- Our own.
    if built.returncode:
        raise DemoFailed(
            f"there is no Jaeger; name a collector of yours: {ENDPOINT_VARIABLES[0]}=http://HOST:4317"
        )
    binary = built.stdout.strip()
    print(f"  {binary}")
    jaeger = free_jaeger()
    with running("jaeger", jaeger.arguments(binary), directory, is_shown=False) as part:
        end_s = time.monotonic() + JAEGER_START_S
        while not jaeger.is_ready():
            part.check()
            if time.monotonic() > end_s:
                raise DemoFailed(f"Jaeger did not start within {JAEGER_START_S:.0f} s; see {shown(part.log)}")
            time.sleep(0.05)  # It tells nobody when it is ready.
        print(f"  Jaeger takes spans on {jaeger.otlp} and shows them on {jaeger.api}")
        print(f"$ export {ENDPOINT_VARIABLES[0]}={jaeger.endpoint}")
        os.environ[ENDPOINT_VARIABLES[0]] = jaeger.endpoint
        try:
            yield jaeger
        finally:
            # With SIGTERM it takes ten seconds to end, and it has nothing to lose.
            part.process.kill()


@contextmanager
def demo_span() -> Generator[str]:
    """Begin a span of our own, and name it to the commands that run within it by TRACEPARENT; yield its trace id."""
    provider = TracerProvider(resource=Resource.create({"service.name": "demo"}))
    is_http = otlp_protocol(os.environ) == "http/protobuf"
    provider.add_span_processor(SimpleSpanProcessor(HttpExporter() if is_http else GrpcExporter()))
    with provider.get_tracer("demo").start_as_current_span("demo") as span:
        context = span.get_span_context()
        trace_id = format_trace_id(context.trace_id)
        traceparent = f"00-{trace_id}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"
        print(f"$ export TRACEPARENT={traceparent}")
        os.environ["TRACEPARENT"] = traceparent
        yield trace_id
    del os.environ["TRACEPARENT"]
    provider.shutdown()


def show_trace(jaeger: Jaeger | None, trace_id: str, address: str) -> None:
    """Draw the trace, as Jaeger has it, or as the server has it if the collector is the user's; print where it is."""
    if jaeger is None:
        draw = ["plait", "trace", EXECUTION_ID, "--server", address]
        print()
        announce(draw)
        subprocess.run(command(draw), check=False)  # noqa: S603 -- Our own command.
        endpoint = next(filter(None, map(os.environ.get, ENDPOINT_VARIABLES)))
        print(f"\nThe trace: {trace_id}, sent to {endpoint}")
        return
    trace = jaeger.wait_for_trace(trace_id, SPANS_S)
    if trace is None:
        raise DemoFailed(f"no span of the trace {trace_id} came to Jaeger")
    print("\nThe trace, as Jaeger has it:\n")
    for line in trace.lines():
        print(f"  {line}".rstrip())
    print(f"\nAll of it, as JSON: {jaeger.trace_address(trace_id)}")
    print(
        "To see it on Jaeger's pages, which this one lacks, start another one as docs/tracing.md says, then:"
    )
    print(f"  {ENDPOINT_VARIABLES[0]}=http://127.0.0.1:4317 ./scripts/demo --jaeger")


@contextmanager
def running(
    name: str, arguments: Sequence[str], directory: Path, *, is_shown: bool = True
) -> Generator[Part]:
    """Run a command beside this one, and see it ended."""
    log = directory / f"{name}.log"
    if is_shown:
        announce(arguments)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(  # noqa: S603 -- Our own commands.
            command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            # In a group of its own: Ctrl-C comes to the demo, which stops the others in order.
            process_group=0,
        )
    try:
        yield Part(name=name, process=process, log=log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of `plait ...`, run by the Python that runs this."""
    name, *rest = arguments
    return [sys.executable, "-m", "plait_server", *rest] if name == "plait" else [name, *rest]


def announce(arguments: Sequence[str]) -> None:
    """Show a command."""
    print(f"$ {shlex.join(arguments)}", flush=True)


def read_address(server: Part) -> str:
    """Read where the server listens from its first line: `Plait 0.1.0 listens on 127.0.0.1:7480`."""
    line = server.process.stdout.readline() if server.process.stdout is not None else ""
    if not line:
        server.process.wait()
        server.check()
    print(f"  {line.strip()}")
    return line.split()[-1]


def wait_for_workers(client: Client, count: int, parts: Sequence[Part]) -> None:
    """Wait until all processes of the worker are attached: starting Python is not what is shown here."""
    end_s = time.monotonic() + START_S
    while len(list(client.workers())) < count:
        for part in parts:
            part.check()
        if time.monotonic() > end_s:
            raise DemoFailed(f"the worker did not attach within {START_S:.0f} s; see {shown(parts[-1].log)}")
        time.sleep(0.05)
    print(f"  {count} processes attached")


def tell(client: Client, execution: execution_pb2.Execution, processes: int) -> None:
    """Show what came out, and what running side by side has gained."""
    total_s = between_s(execution.create_time, execution.end_time)
    nodes = list(client.nodes(EXECUTION_ID))
    times_s: dict[str, list[float]] = {}
    for node in nodes:
        times_s.setdefault(node.type, []).append(between_s(node.start_time, node.end_time))
    sum_s = sum(time_s for group in times_s.values() for time_s in group)
    pictures_s = times_s["image.generate"]
    cores = available_cores()
    at_once = min(len(pictures_s), cores, processes)
    best_s = (
        min(times_s["text.prompt"]) + shortest_s(pictures_s, at_once) + sum(times_s["image.contact_sheet"])
    )
    rows = (
        ("total time", f"{total_s:6.2f} s", ""),
        ("sum of node times", f"{sum_s:6.2f} s", f"{len(nodes)} nodes"),
        ("speed-up", f"{sum_s / total_s:6.2f}", ""),
        (
            "the cores allow",
            f"{at_once:6.2f}",
            f"the least of {len(pictures_s)} pictures, {cores} cores and {processes} processes",
        ),
        (
            "the graph allows",
            f"{sum_s / best_s:6.2f}",
            f"{len(pictures_s)} pictures, {at_once} at once, then the sheet",
        ),
    )
    for name, figure, note in rows:
        print(f"  {name:18}{figure:10}{note}".rstrip())
    output = client.payload(execution.output)
    path = output.get("path") if isinstance(output, dict) else None
    if not isinstance(path, str) or not Path(path).is_file():
        raise DemoFailed(f"the execution succeeded, and there is no picture at {path}")
    print(f"\nThe picture: {shown(Path(path))}")


def look_further(store: Path, address: str, *, keep: bool) -> None:
    """Show which commands go on from here."""
    plait = "plait" if os.environ.get("VIRTUAL_ENV") else shown(Path(sys.executable).parent / "plait")
    print("\nTo look further:")
    server = f" --server {address}" if keep else ""
    if not keep:
        print(f"  {plait} serve --store {shown(store)}    # then, in another terminal:")
    print(f"  {plait} get {EXECUTION_ID}{server}")
    print(f"  {plait} nodes {EXECUTION_ID}{server}")
    print(f"  {plait} watch {EXECUTION_ID} --json{server}")
    print(f"  {plait} trace {EXECUTION_ID}{server}")
    print(f"  {plait} plan {GRAPH}")


def between_s(start: Timestamp, end: Timestamp) -> float:
    """Return the seconds between two times."""
    return (end.ToNanoseconds() - start.ToNanoseconds()) / 1e9


def shortest_s(times_s: Sequence[float], at_once: int) -> float:
    """Return the shortest time for a few tasks, some at once: every way to share them out is tried."""
    return min(
        max(sum(time_s for time_s, place in zip(times_s, places, strict=True) if place == p) for p in places)
        for places in itertools.product(range(at_once), repeat=len(times_s))
    )


def available_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shown(path: Path) -> str:
    """Write a path as short as it can be typed from here."""
    absolute = path if path.is_absolute() else Path.cwd() / path
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
