"""The README's example runs as it stands; only the port is another one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli import live

README = (live.ROOT / "README.md").read_text()
ADDRESS = "127.0.0.1:7480"


def block(language: str, beginning: str) -> str:
    """Return the block of code that begins so."""
    [found] = [
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
        if text.startswith(beginning)
    ]
    return str(found)


def command(beginning: str, address: str) -> list[str]:
    """Return the command that begins so, as a list of arguments."""
    [line] = [line.strip() for line in README.splitlines() if re.match(rf"    {beginning}(\s|$)", line)]
    plait, *arguments = shlex.split(line.replace(ADDRESS, address), comments=True)
    assert plait == "plait"
    return [sys.executable, "-m", "plait_server", *arguments]


@contextmanager
def beside(arguments: list[str], folder: Path, **variables: str) -> Generator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLAIT_", "OTEL_"))}
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=kept | variables,
        process_group=0,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()
            running.communicate(timeout=live.TIMEOUT_S)


@pytest.mark.slow
def test_the_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two-drafts.yaml").write_text(block("yaml", "name: two-drafts"))
    (tmp_path / "my_module.py").write_text(block("python", "# my_module.py"))
    with beside(command("plait serve", ""), tmp_path, PLAIT_LISTEN="127.0.0.1:0") as server:
        address = live.first_line(server).split()[-1]
        with beside(command("plait worker", address), tmp_path):
            monkeypatch.chdir(tmp_path)
            submit = command("plait submit two-drafts.yaml", address)[3:]
            done = live.call(*submit, "--server", address)
            assert done.returncode == 0, done.stderr
            assert re.search(r"best +succeeded", done.stdout)
            exec(block("python", "from plait.v1").replace(ADDRESS, address), {})  # it is the README's
            *events, output = capsys.readouterr().out.splitlines()
            assert events[0].split()[1:] == ["EVENT_TYPE_EXECUTION_SUBMITTED"]
            assert output == "What rivers is. Why rivers matters"
