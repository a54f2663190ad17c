"""A server that goes away under a command: it is shown as it happens, and the command that resumes is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

import click
import pytest

from plait.v1 import execution_pb2
from plait_client import Client, ResourceExhausted
from plait_client.access import Access
from plait_client.channel import Patience
from plait_server.cli.connecting import Target, tell_lost
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.waiting import wait_for_end
from plait_server.cli.watching import follow, watch_command
from tests.cli import live

GraphFile = Callable[[str], str]


@contextmanager
def serving(store: Path, listen: str = "127.0.0.1:0") -> Generator[tuple[str, Callable[[], None]]]:
    """Run a server; yields its address, and what kills it."""
    with live.process("serve", "--listen", listen, "--store", str(store), "--create") as running:
        yield live.first_line(running).split()[-1], running.kill


def read_until(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    while text not in (line := stream.readline()):
        assert line, f"{text!r} never came"
    return line


def test_an_outage_under_a_watch_is_shown_and_resumed(
    tmp_path: Path, graph_file: GraphFile, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "plait.db"
    codes: list[int] = []

    def follow_impatiently(address: str) -> None:
        with click.Context(watch_command), Client(address, retry_s=0.0) as client:
            target = Target(server=address, namespace="default", access=Access())
            codes.append(follow(client, target, "x"))
            codes.append(
                wait_for_end(client, target, execution_pb2.Execution(execution_id="x"), as_json=False)
            )

    with serving(store) as (address, kill):
        live.call("submit", graph_file("test.nobody"), "--id", "x", env={"PLAIT_SERVER": address})
        watching = subprocess.Popen(
            [sys.executable, "-m", "plait_server", "watch", "x", "--server", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=live.ROOT,
        )
        read_until(watching.stdout, "started")
        kill()
    with watching:
        read_until(watching.stderr, "plait: connection lost, trying again ...")
        with serving(store, address) as (_, kill):
            assert read_until(watching.stderr, "plait: back after ").strip().endswith("s")
            impatient = threading.Thread(target=follow_impatiently, args=(address,))
            impatient.start()
            while "started" not in capsys.readouterr().out:
                pass
            kill()
        impatient.join(live.TIMEOUT_S)
        read_until(watching.stderr, "plait: connection lost, trying again ...")
        watching.send_signal(signal.SIGINT)
        out, told = watching.communicate(timeout=live.TIMEOUT_S)
    assert watching.returncode == ExitCode.INTERRUPTED
    assert out == "", "no event comes twice"
    assert f"x goes on. `plait watch x --after-sequence 2 --server {address}` follows it," in told
    assert codes == [ExitCode.UNREACHABLE, ExitCode.UNREACHABLE]
    said = capsys.readouterr().err.splitlines()
    assert said[1::2] == [
        "`plait watch x --after-sequence 2` goes on from here.",
        "`plait wait x` goes on waiting.",
    ]


def test_wait_shows_the_end(
    run: Callable[..., subprocess.CompletedProcess[str]], graph_file: GraphFile
) -> None:
    run("submit", graph_file("test.echo"), "--id", "to-wait-for", "--input", "7")
    done = run("wait", "to-wait-for")
    assert done.returncode == 0
    assert "SUCCEEDED" in done.stdout
    run("submit", graph_file("test.nobody"), "--id", "waits-on")
    done = run("wait", "waits-on", "--timeout", "0")
    assert done.returncode == 1
    assert "waits-on is RUNNING after 0 ms" in done.stderr
    run("cancel", "waits-on")
    assert run("wait", "waits-on").returncode == 1
    assert run("wait", "nobody").returncode == 2


def test_health_tells_by_its_exit_code(address: str) -> None:
    done = live.call("health", "--server", address)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = live.call("health", "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (4, "")


def test_refused_calls_are_told_before_they_are_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    error = ResourceExhausted(
        "Too many calls were refused.", reason="OVERLOADED", retry_after=timedelta(seconds=10)
    )
    tries = Patience(connect_s=5, retry_s=60, on_lost=tell_lost).tries(lambda: 0.0)
    assert 10 <= (tries.delay_after(error) or 0.0) < 11
    assert tries.delay_after(error) is not None
    assert capsys.readouterr().err == "plait: Too many calls were refused. Trying again in 10.0 s ...\n"
