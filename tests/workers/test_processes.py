"""Tests of workers as processes: found by name, restarted, drained by signals."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plait_worker import Worker, processes
from plait_worker.targets import BadTarget, explain_import, load_worker
from tests.workers.scripted_hub import ScriptedHub, Stream, assign, recorded, run

SOURCE = """
import asyncio
import ctypes
import os
import sys
import threading

from plait_worker import Context, Worker, child

child.EXIT_S = float(os.environ.get("EXIT_S", child.EXIT_S))
tasks: list[asyncio.Task[None]] = []
worker = Worker(worker_id="render", labels={"pid": str(os.getpid())})
empty = Worker()
number = 5


@worker.node("t", max_concurrency=2)
def work(context: Context, input: object) -> object:
    return [context.worker_id, input]


@worker.node("die", max_concurrency=1)
async def die(context: Context, input: str) -> object:
    match input:
        case "exit":
            os._exit(0)
        case "segfault":
            ctypes.string_at(0)
        case "never":
            await asyncio.Event().wait()


@worker.node("exit.in.task", max_concurrency=1)
async def exit_in_task(context: Context, input: object) -> None:
    async def leave() -> None:
        sys.exit(3)

    await asyncio.create_task(leave())


@worker.node("leave", max_concurrency=1)
async def leave(context: Context, input: object) -> None:
    # A thread and a task that never end.

    async def stay() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    tasks.append(asyncio.create_task(stay()))
    threading.Thread(target=threading.Event().wait).start()
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
    assert worker.types == ("t", "die", "exit.in.task", "leave")


@pytest.mark.usefixtures("folder", "clean_imports")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("studio_worker", "write package.module:worker"),
        ("studio_worker:", "write package.module:worker"),
        (":worker", "write package.module:worker"),
        ("no_such_module:worker", "there is no module no_such_module"),
        ("studio_worker.inner:worker", "there is no module studio_worker.inner"),
        ("studio_worker:workers", "studio_worker has no workers; it has studio_worker:worker,"),
        ("studio_worker:worker.nothing", "studio_worker has no worker.nothing"),
        ("studio_worker:number", "is a int, not a plait_worker.Worker; it has studio_worker:worker,"),
        ("studio_worker.py:worker", "names a file: write its module, as studio_worker:worker"),
        ("./a/b.py:worker", "names a file: write its module, as a.b:worker"),
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
    assert (ended.returncode, ended.stderr) == (
        2,
        "plait worker: studio_worker has no nothing; it has studio_worker:worker, studio_worker:empty\n",
    )


@pytest.mark.usefixtures("clean_imports")
@pytest.mark.parametrize(
    ("source", "said", "line"),
    [
        ("worker = 1 / 0", "ZeroDivisionError: division by zero", 1),
        ("\nworker = (", "SyntaxError: '(' was never closed (unfit.py, line 2)", 2),
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'", 1),
        ("import sys\nsys.exit('no GPU')", "SystemExit: no GPU", 2),
    ],
    ids=["exception", "syntax", "import", "exit"],
)
def test_module_that_cannot_be_imported_is_told_in_two_lines(
    folder: Path, source: str, said: str, line: int
) -> None:
    (folder / "unfit.py").write_text(source)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any; what is said of it is the test.
        load_worker("unfit:worker")
    assert explain_import("unfit:worker", caught.value).splitlines() == [
        f"unfit:worker cannot be imported: {said}",
        f"  raised in {folder / 'unfit.py'}, line {line}; PLAIT_DEBUG=1 shows the traceback",
    ]


def test_module_that_cannot_be_imported_ends_with_code_2(folder: Path) -> None:
    (folder / "unfit.py").write_text("worker = 1 / 0")
    ended = subprocess.run(
        command("unfit:worker", "--connect", "127.0.0.1:1", "--processes", "2"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    # Once, though each of them says it.
    assert ended.stderr.count("plait worker: unfit:worker cannot be imported") == 1


@pytest.mark.usefixtures("folder")
def test_bad_argument_ends_with_code_2() -> None:
    ended = subprocess.run(
        command("studio_worker:worker", "--connect", "127.0.0.1:1", "--worker-id", "no id"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("plait worker: worker_id must match")


def test_process_that_dies_at_each_start_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "RESTART_INITIAL_S", 0.0)
    (folder / "deadly.py").write_text("import os\nos._exit(0)\n")
    assert processes.run_worker("deadly:worker", "127.0.0.1:1") == 1
    messages = [record.getMessage() for record in caplog.records]
    assert sum("ended with code 0 before the worker was imported" in message for message in messages) == 4
    assert messages[-1] == "giving up: 5 processes died before the worker was imported"


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
            assert (hello.worker_id, hello.namespace, hello.slots) == ("mine", "studio", 5)
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
            ended = asyncio.create_task(errors_of(process))
            # The same signal at once counts once.
            while not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
                await asyncio.wait([ended], timeout=0.05)
            errors = await ended
            # A third one may meet a process that has done everything.
            assert process.returncode in {128 + signal.SIGINT, -signal.SIGINT}
            assert "got SIGINT again, killing the worker's processes" in errors
            stream.end()

    run(test)


@pytest.mark.usefixtures("folder")
def test_drain_timeout_hands_back_what_has_not_ended() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            process = await start(server, "--drain-timeout", "0")
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", '"never"', "die"))
            # It has come to be assigned when a later one has ended.
            await work_once(stream, "b")
            process.send_signal(signal.SIGTERM)
            await stream.expect("drain")
            assert (await stream.expect("reject")).token == "a"
            await stream.expect_end()
            errors = await errors_of(process)
            assert process.returncode == 0, errors
            assert "the drain timeout of 0 s is over" in errors

    run(test)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("way", ["exit", "segfault"])
def test_process_that_a_handler_ends_is_started_again(way: str) -> None:
    """One process too: another instance of the same worker takes its place."""

    async def test() -> None:
        async with ScriptedHub() as server:
            process = await start(server)
            stream = await server.next_stream()
            hello = await stream.greet()
            await stream.send(assign("a", f'"{way}"', "die"))
            again = await server.next_stream()
            stream.end()
            hello_again = await again.greet()
            assert (hello_again.worker_id, hello.worker_id) == ("render", "render")
            assert hello_again.instance_id != hello.instance_id
            assert list(hello_again.in_flight) == []
            await work_once(again, "b")
            process.send_signal(signal.SIGTERM)
            await again.expect_end(skipping=("drain",))
            errors = await errors_of(process)
            assert process.returncode == 0, errors
            assert "starting it again" in errors

    run(test)


@pytest.mark.usefixtures("folder")
def test_task_of_a_handler_that_exits_fails_the_attempt_alone() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            process = await start(server)
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", type_="exit.in.task"))
            fail = await stream.expect("fail")
            assert fail.message.startswith("SystemExit: 3;")
            await stream.send(recorded("a"))
            await work_once(stream, "b")
            process.send_signal(signal.SIGTERM)
            await stream.expect_end(skipping=("drain",))
            errors = await errors_of(process)
            assert process.returncode == 0, errors
            assert "a task of a handler raised SystemExit; the worker goes on" in errors
            assert "Traceback" not in errors

    run(test)


@pytest.mark.usefixtures("folder")
def test_drained_process_ends_whatever_its_handlers_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXIT_S", "0")

    async def test() -> None:
        async with ScriptedHub() as server:
            process = await start(server)
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", type_="leave"))
            await stream.expect("complete")
            await stream.send(recorded("a"))
            process.send_signal(signal.SIGTERM)
            await stream.expect_end(skipping=("drain",))
            errors = await errors_of(process)
            assert process.returncode == 0, errors
            assert "tasks of handlers did not end when they were cancelled" in errors
            assert "threads of handlers, or exit functions, are still running" in errors
            assert "Traceback" not in errors

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
            assert "was killed by SIGKILL, starting it again" in errors

    run(test)


@pytest.mark.usefixtures("folder")
def test_children_end_when_their_parent_is_killed() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            parent = await start(server, "--processes", "2")
            streams = [await server.next_stream() for _ in range(2)]
            for stream in streams:
                await stream.greet()
                await work_once(stream, "a")
            parent.kill()
            # The pipe of stderr ends when the last child has ended.
            await errors_of(parent)
            for stream in streams:
                stream.end()

    run(test)


@pytest.mark.usefixtures("folder")
def test_refusal_ends_all_processes_with_code_3() -> None:
    async def test() -> None:
        async with ScriptedHub() as server:
            server.refusal = "no such namespace"
            parent = await start(server, "--processes", "2")
            errors = await errors_of(parent)
            assert parent.returncode == 3, errors
            assert errors.count("no such namespace") == 1

    run(test)
