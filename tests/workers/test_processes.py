"""Tests of workers as processes: found by name, restarted, drained by signals."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plait_worker import Worker
from plait_worker.targets import BadTarget, load_worker
from tests.workers.scripted_hub import ScriptedHub, Stream, assign, recorded, run

SOURCE = """
import os

from plait_worker import Context, Worker

worker = Worker(worker_id="render", labels={"pid": str(os.getpid())})
empty = Worker()
number = 5


@worker.node("t", max_concurrency=2)
def work(context: Context, input: object) -> object:
    return [context.worker_id, input]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with the module of a worker."""
    (tmp_path / "studio_worker.py").write_text(SOURCE)
    (tmp_path / "misses_one.py").write_text("import not_to_be_found_anywhere\n")
    monkeypatch.chdir(tmp_path)
    # What the tests import, the processes import, too.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return tmp_path


@pytest.fixture
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


# Targets.


@pytest.mark.usefixtures("folder", "clean_imports")
def test_worker_is_found_by_its_name() -> None:
    worker = load_worker("studio_worker:worker")
    assert isinstance(worker, Worker)
    assert worker.types == ("t",)


@pytest.mark.usefixtures("folder", "clean_imports")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("studio_worker", "write package.module:worker"),
        ("studio_worker:", "write package.module:worker"),
        (":worker", "write package.module:worker"),
        ("no_such_module:worker", "there is no module no_such_module"),
        ("studio_worker.inner:worker", "there is no module studio_worker.inner"),
        ("studio_worker:workers", "studio_worker has no workers"),
        ("studio_worker:worker.nothing", "studio_worker has no worker.nothing"),
        ("studio_worker:number", "is a int, not a plait_worker.Worker"),
        ("studio_worker:empty", "serves no node types"),
    ],
    ids=lambda value: value if ":" in value or value == "studio_worker" else "",
)
def test_bad_target_is_explained_in_a_line(target: str, said: str) -> None:
    with pytest.raises(BadTarget) as caught:
        load_worker(target)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("folder", "clean_imports")
def test_module_that_misses_another_one_keeps_its_traceback() -> None:
    with pytest.raises(ModuleNotFoundError, match="not_to_be_found_anywhere"):
        load_worker("misses_one:worker")


# Processes.


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "plait_worker", *arguments]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_bad_target_ends_with_code_2(processes: str) -> None:
    ended = subprocess.run(
        command("studio_worker:nothing", "--connect", "127.0.0.1:1", "--processes", processes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (2, "plait worker: studio_worker has no nothing\n")


async def start(server: ScriptedHub, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command("studio_worker:worker", "--connect", server.address, *arguments),
        stderr=asyncio.subprocess.PIPE,
    )


async def errors_of(process: asyncio.subprocess.Process) -> str:
    _, errors = await process.communicate()
    return errors.decode()


async def work_once(stream: Stream, token: str) -> str:
    """Have a worker run one attempt; return the result."""
    await stream.send(assign(token, "1"))
    complete = await stream.expect("complete")
    await stream.send(recorded(token))
    text: str = complete.output.json
    return text


@pytest.mark.usefixtures("folder")
def test_one_process_works_and_is_drained_by_a_signal() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            process = await start(server, "--worker-id", "mine", "--namespace", "studio")
            stream = await server.next_stream()
            hello = await stream.greet()
            assert (hello.worker_id, hello.namespace, hello.slots) == ("mine", "studio", 2)
            assert await work_once(stream, "a") == '["mine",1]'
            process.send_signal(signal.SIGTERM)
            await stream.expect_end(skipping=("drain",))
            errors = await errors_of(process)
            assert process.returncode == 0, errors
            for line in (f"attached to {server.address}", "got SIGTERM, draining", "drained"):
                assert line in errors

    run(test)


@pytest.mark.usefixtures("folder")
def test_second_signal_ends_the_process_at_once() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            process = await start(server)
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            # Never recorded: the worker waits for that.
            await stream.expect("complete")
            process.send_signal(signal.SIGINT)
            await stream.expect("drain")
            process.send_signal(signal.SIGINT)
            await process.communicate()
            assert process.returncode == -signal.SIGINT
            stream.end()

    run(test)


@pytest.mark.usefixtures("folder")
def test_killed_child_is_started_again_and_signals_are_passed_on() -> None:
    """FAILURES 18: another instance takes the place of a worker that died."""

    async def test() -> None:
        async with ScriptedHub() as server:
            parent = await start(server, "--processes", "2")
            streams = [await server.next_stream(), await server.next_stream()]
            hellos = [await stream.greet() for stream in streams]
            assert sorted(hello.worker_id for hello in hellos) == ["render-1", "render-2"]
            assert len({hello.instance_id for hello in hellos}) == 2
            os.kill(int(hellos[0].labels["pid"]), signal.SIGKILL)
            streams[0].end()
            streams[0] = await server.next_stream()
            again = await streams[0].greet()
            assert again.worker_id == hellos[0].worker_id
            assert again.instance_id != hellos[0].instance_id
            for stream in streams:
                await work_once(stream, "a")
            parent.send_signal(signal.SIGTERM)
            for stream in streams:
                await stream.expect_end(skipping=("drain",))
            errors = await errors_of(parent)
            assert parent.returncode == 0, errors
            assert "was killed by signal 9, starting it again in 0.5 s" in errors

    run(test)


@pytest.mark.usefixtures("folder")
def test_children_drain_when_their_parent_is_killed() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            parent = await start(server, "--processes", "2")
            streams = [await server.next_stream(), await server.next_stream()]
            for stream in streams:
                await stream.greet()
                await work_once(stream, "a")
            parent.kill()
            for stream in streams:
                await stream.expect_end(skipping=("drain",))
            # The pipe of stderr ends when the last child has ended.
            assert "the parent process is gone, draining" in await errors_of(parent)

    run(test)


@pytest.mark.usefixtures("folder")
def test_refusal_ends_all_processes_with_code_3() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            server.refusal = "no such namespace"
            parent = await start(server, "--processes", "2")
            errors = await errors_of(parent)
            assert parent.returncode == 3, errors
            assert "no such namespace" in errors

    run(test)
