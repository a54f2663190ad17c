"""The commands of docs/operations.md exist with their options, and a backup is restored as it says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Final

import click
import pytest

from plait_server.cli.app import app
from plait_server.config import ServerConfig
from plait_server.configuration.options import OptionTable, options_of
from tests.cli import live

TEXT: Final = (live.ROOT / "docs" / "operations.md").read_text()


def commands() -> list[list[str]]:
    """Return the commands that begin with `plait`, in blocks and in the text, as lists of words."""
    in_blocks = re.findall(r"^    (plait .*)$", TEXT, re.MULTILINE)
    in_text = re.findall(r"`(plait [^`]*)`", TEXT)
    unique = dict.fromkeys(each.partition(" > ")[0] for each in in_blocks + in_text)
    return [shlex.split(each, comments=True)[1:] for each in unique]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_and_its_options_exist(words: list[str]) -> None:
    command: click.Command = app
    context = click.Context(app)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= options


def test_options_in_the_text_exist() -> None:
    declared = options_of(ServerConfig)
    names = {each.name for each in declared}
    entries = {option.name for each in declared if isinstance(each, OptionTable) for option in each.options}
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT):
        assert name in names | entries, name


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (live.ROOT / "docs" / link).exists(), link


def test_a_backup_is_restored_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "graph.yaml").write_text("nodes: [{id: a, transform: }]")
    section = TEXT[TEXT.index("## Backing up") : TEXT.index("## Upgrading")]
    backup, move, check, put, serve = re.findall(r"^    (.*)$", section, re.MULTILINE)
    store = str(tmp_path / "plait.db")
    with live.server(store) as address:
        for name, line in (("before", backup), ("after", "")):
            submit = ("submit", "graph.yaml", "--id", name, "--wait", "--server", address)
            assert live.call(*submit).returncode == 0
            if line:
                assert live.call(*shlex.split(line)[1:]).returncode == 0
    subprocess.run(shlex.split(move), check=True)
    assert live.call(*shlex.split(check)[1:]).returncode == 0
    subprocess.run(shlex.split(put), check=True)
    # That a server starts with it is shown in tests/cli/test_store.py.
    assert serve == "plait serve --store plait.db"
    assert live.call("store", "check", store).stdout.startswith("Whole: 1 executions with ")
