"""Starting and stopping `plait serve`: what a person who runs it meets, each time with the cause and the remedy."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from plait_server.cli.exit_codes import ExitCode
from tests.end_to_end.attaching import Attached
from tests.end_to_end.processes import HANG_S, ROOT, Process, Server, Worker
from tests.end_to_end.service import CALL_S, Service, outcome, refusal_of
from tests.end_to_end.stage import Stage


def serve_in_vain(*arguments: str, code: ExitCode = ExitCode.FAILED) -> subprocess.CompletedProcess[str]:
    """Start a server that cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", "plait_server", "serve", "--create", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "it must not say that it listens"
    return done


@contextlib.contextmanager
def plait_serve(log: Path, *arguments: str) -> Generator[tuple[Process, str]]:
    """Run `plait serve`; return the process and its address."""
    with Process(log, "plait_server", "serve", "--create", *arguments) as process:
        line = process.first_line()
        assert line.startswith("Plait "), process.stderr()
        yield process, line.split()[-1]


def test_second_server_on_a_store_refuses_to_start(tmp_path: Path, log: Path) -> None:
    """FAILURES 10: with a word on the cause and the remedy; the first goes on."""
    store = str(tmp_path / "plait.db")
    with plait_serve(log, "--listen", "127.0.0.1:0", "--store", store) as (_, address):
        done = serve_in_vain("--listen", "127.0.0.1:0", "--store", store)
        assert "store" in done.stderr
        assert store in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        with Service(address) as service:
            assert outcome(service.run("nodes: [{id: a, transform: }]")) == "SUCCEEDED"
    with plait_serve(log, "--listen", "127.0.0.1:0", "--store", store):
        pass  # The lock went with its process.


def test_store_of_a_killed_server_opens_at_once(tmp_path: Path, log: Path) -> None:
    store = str(tmp_path / "plait.db")
    with plait_serve(log, "--listen", "127.0.0.1:0", "--store", store) as (process, _):
        process.kill()
    with (
        plait_serve(log, "--listen", "127.0.0.1:0", "--store", store) as (_, address),
        Service(address) as service,
    ):
        assert service.is_serving()


def test_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve_in_vain("--listen", address, "--store", str(tmp_path / "plait.db"))
    assert address in done.stderr
    assert "in use" in done.stderr
    assert "--listen" in done.stderr


def test_two_servers_on_one_port_are_refused(server: Server, tmp_path: Path) -> None:
    """With SO_REUSEPORT the second would take half of the calls."""
    done = serve_in_vain("--listen", server.address, "--store", str(tmp_path / "plait.db"))
    assert "in use" in done.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"])
def test_address_of_others_needs_insecure(address: str, tmp_path: Path) -> None:
    store = tmp_path / "plait.db"
    done = serve_in_vain("--listen", address, "--store", str(store), code=ExitCode.USAGE)
    assert "--insecure" in done.stderr
    assert not store.exists(), "nothing is left behind"


def test_insecure_says_so(tmp_path: Path, log: Path) -> None:
    arguments = ["--listen", "0.0.0.0:0", "--insecure", "--store", str(tmp_path / "plait.db")]
    with plait_serve(log, *arguments) as (process, address):
        port = address.rpartition(":")[2]
        with Service(f"127.0.0.1:{port}") as service:
            assert service.is_serving()
        process.terminate()
        said = f"INSECURE, with neither TLS nor authentication: whoever reaches {address} may do everything"
        rest = process.rest()
        assert said in rest
        assert f"--connect localhost:{port}\n" in rest
        assert "PLAIT_T" not in rest
    warnings = [
        line for line in process.stderr().splitlines() if "INSECURE: other machines can reach" in line
    ]
    assert len(warnings) == 2, "at the start, and when it is ready"


def test_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "plait.db"
    with Server(tmp_path / "log", store=str(store)):
        pass
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = store.read_bytes()
    done = serve_in_vain("--listen", "127.0.0.1:0", "--store", str(store))
    assert "schema version 99" in done.stderr
    assert "upgrade Plait" in done.stderr
    assert store.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database, but long enough" * 100, b"nodes: []\n", b"x" * 600])
def test_file_that_is_no_store_is_left_alone(tmp_path: Path, content: bytes) -> None:
    store = tmp_path / "notes.txt"
    store.write_bytes(content)
    done = serve_in_vain("--listen", "127.0.0.1:0", "--store", str(store))
    assert str(store) in done.stderr
    assert store.read_bytes() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    store = tmp_path / "plait.db"
    tmp_path.chmod(0o500)
    done = serve_in_vain("--listen", "127.0.0.1:0", "--store", str(store))
    tmp_path.chmod(0o700)
    assert str(store) in done.stderr


def test_sigterm_stops_cleanly_and_the_restart_goes_on(tmp_path: Path, log: Path, stage: Stage) -> None:
    """Streams and waits end as UNAVAILABLE, to be tried again; what runs goes on in the next server."""
    store = str(tmp_path / "plait.db")
    with plait_serve(log, "--listen", "127.0.0.1:0", "--store", store) as (process, address):
        worker = Worker(tmp_path / "worker.log", address, stage.address)
        with worker, Service(address) as service:
            execution_id = service.submit("nodes: [{id: a, task: {type: staged}}]")
            actor = stage.next(execution_id)
            watch = service.watch(execution_id)
            for frame in watch:
                if frame.HasField("caught_up"):
                    break
            health = service.health.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            assert process.terminate() == 0
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            for refusal in (refusal_of(lambda: watch), refusal_of(lambda: health)):
                assert refusal.code is grpc.StatusCode.UNAVAILABLE
                # On a machine that is very busy the end of the connection may overtake the reason.
                assert (refusal.reason, refusal.retry_s) in (("SHUTTING_DOWN", 1.0), ("", None))
            assert process.rest().strip().endswith("go on when it is started again.")
            actor.answer("done")
            with plait_serve(log, "--listen", address, "--store", store):
                execution = service.wait(execution_id)
            assert outcome(execution) == "SUCCEEDED"
            assert execution.output.json == '"done"'
    assert "Traceback" not in log.read_text()


def test_a_server_that_is_told_to_stop_serves_for_a_while_and_starts_nothing(
    tmp_path: Path, log: Path, stage: Stage
) -> None:
    """What a load balancer needs. Signals within a second count as one; a later one ends the process at once."""
    arguments = ["--store", str(tmp_path / "plait.db"), "--stop-delay-s", "3600"]
    with plait_serve(log, "--listen", "127.0.0.1:0", *arguments) as (process, address):
        worker = Worker(tmp_path / "worker.log", address, stage.address)
        with worker, Service(address) as service:
            execution_id = service.submit("nodes: [{id: a, task: {type: staged}}]")
            actor = stage.next(execution_id)
            health = service.health.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            for _ in range(2):
                process.popen.send_signal(signal.SIGINT)
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert not service.is_serving()
            refusal = refusal_of(lambda: service.submit("nodes: [{id: a, transform: }]"))
            assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
            assert refusal.retry_s is not None
            actor.answer("done")
            assert outcome(service.wait(execution_id)) == "SUCCEEDED"
            while process.popen.poll() is None:
                process.popen.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.popen.wait(0.05)
            assert process.popen.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in log.read_text()


def test_a_signal_before_the_server_serves_stops_it() -> None:
    """Process 1 of a container would not hear it without a handler, and be killed after the grace period."""
    script = """
import os, signal, sys
from plait_server import bootstrap
from plait_server.config import ServerConfig
assemble = bootstrap.assemble
async def assemble_and_stop(platform):
    os.kill(os.getpid(), signal.SIGTERM)
    return await assemble(platform)
bootstrap.assemble = assemble_and_stop
sys.exit(bootstrap.serve(ServerConfig(listen="127.0.0.1:0", store=":memory:")))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG_S, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_stdout_that_nobody_reads_any_more_is_no_failure(tmp_path: Path, log: Path) -> None:
    arguments = ["--store", str(tmp_path / "plait.db")]
    with plait_serve(log, "--listen", "127.0.0.1:0", *arguments) as (process, address):
        assert process.popen.stdout is not None
        process.popen.stdout.close()
        with Service(address) as service:
            assert service.is_serving()
        assert process.terminate() == 0


def test_sigterm_tells_workers_why_their_streams_end(tmp_path: Path, log: Path) -> None:
    store = str(tmp_path / "plait.db")
    with (
        plait_serve(log, "--listen", "127.0.0.1:0", "--store", store) as (process, address),
        Service(address) as service,
    ):
        worker = Attached(service, "hand")
        assert process.terminate() == 0
        refusal = refusal_of(worker.read_to_end)
    assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert refusal.retry_s is not None


def test_sigterm_in_the_middle_of_submissions_loses_none(tmp_path: Path, log: Path) -> None:
    """Acknowledged executions are kept; other callers are told to try again."""
    arguments = ["--store", str(tmp_path / "plait.db")]
    acknowledged: list[str] = []

    def submit_on(service: Service) -> None:
        while True:
            acknowledged.append(service.submit("nodes: [{id: a, transform: }]"))

    first = plait_serve(log, "--listen", "127.0.0.1:0", *arguments)
    with first as (process, address), Service(address) as service:
        acknowledged += [service.submit("nodes: [{id: a, transform: }]") for _ in range(20)]
        process.popen.terminate()
        refusal = refusal_of(lambda: submit_on(service))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.reason in ("SHUTTING_DOWN", ""), "empty: the server was gone"
        assert process.popen.wait(HANG_S) == 0
    with plait_serve(log, "--listen", address, *arguments), Service(address) as service:
        for execution_id in acknowledged:
            assert outcome(service.wait(execution_id)) == "SUCCEEDED"
    assert "Traceback" not in log.read_text()


def test_memory_store_serves(tmp_path: Path, log: Path) -> None:
    memory = plait_serve(log, "--listen", "127.0.0.1:0", "--store", ":memory:")
    with memory as (_, address), Service(address) as service:
        assert outcome(service.run("nodes: [{id: a, transform: }]")) == "SUCCEEDED"
