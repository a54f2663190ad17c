"""Every example runs, and does what its comment says; the demonstration ends with a picture."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from examples import flow_field
from examples.flow_field import SIZE, render
from PIL import Image

from plait.v1 import state_pb2
from plait_client import Client
from tests.cli import live
from tests.end_to_end.collectors import Sink, built_jaeger

EXAMPLES = live.ROOT / "examples"
SUCCEEDED = state_pb2.EXECUTION_STATE_SUCCEEDED


@pytest.fixture(scope="module")
def client() -> Generator[Client]:
    with (
        live.server(":memory:") as address,
        live.worker(address, "examples.contact_sheet:worker"),
        live.worker(address, "examples.report:worker", id="report"),
        Client(address) as connected,
    ):
        yield connected


def states(client: Client, execution_id: str) -> dict[str, str]:
    return {
        node.path: state_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_")
        + (f" {node.reason}" if node.reason else "")
        for node in client.nodes(execution_id)
    }


def test_the_first_answer_wins_the_race(client: Client) -> None:
    ended = client.wait(client.submit(EXAMPLES / "race.yaml", input="why?").execution_id)
    assert client.payload(ended.output) == {"from": "fast", "answer": "why?"}
    assert states(client, ended.execution_id)["slow"] == "CANCELLED RACE_LOST"


def test_two_of_three_are_a_quorum(client: Client) -> None:
    ended = client.wait(client.submit(EXAMPLES / "quorum.yaml", input=7).execution_id)
    assert client.payload(ended.output) == {"replica-1": {"value": 7}, "replica-2": {"value": 7}}
    assert states(client, ended.execution_id)["replica-3"] == "CANCELLED RACE_LOST"


@pytest.mark.parametrize(
    ("kind", "amount", "by", "checked"),
    [
        ("express", 1200, "courier", True),
        ("express", 12, "courier", False),
        ("pickup", 1200, "nobody", False),
        ("pigeon", 12, "post", False),
    ],
)
def test_an_order_takes_its_route(client: Client, kind: str, amount: int, by: str, checked: bool) -> None:
    submitted = client.submit(EXAMPLES / "route.yaml", input={"kind": kind, "amount": amount})
    output = client.payload(client.wait(submitted.execution_id).output)
    assert isinstance(output, dict)
    assert isinstance(output["delivery"], dict)
    assert (output["delivery"]["by"], output["checked"]) == (by, checked)


@pytest.mark.parametrize(
    ("subject", "prompt", "chosen"),
    [("moss", "SUCCEEDED", "moss, drawn by the wind"), ("", "FAILED NO_SUBJECT", "an empty sky in ink")],
)
def test_a_failure_takes_another_way(client: Client, subject: str, prompt: str, chosen: str) -> None:
    ended = client.wait(client.submit(EXAMPLES / "fallback.yaml", input={"subject": subject}).execution_id)
    assert ended.state == SUCCEEDED
    output = client.payload(ended.output)
    assert isinstance(output, dict)
    assert output["prompt"] == chosen
    assert states(client, ended.execution_id)["prompt"] == prompt


@pytest.mark.parametrize(
    ("headings", "kind", "sections"),
    [(["Source", "Course", "{{ 1 }}"], "report", 3), (["Source", " ", "Mouth"], "note", 2)],
)
def test_a_worker_plans_what_the_server_runs(
    client: Client, headings: list[str], kind: str, sections: int
) -> None:
    submitted = client.submit(EXAMPLES / "report.yaml", input={"topic": "rivers", "headings": headings})
    ended = client.wait(submitted.execution_id)
    output = client.payload(ended.output)
    assert isinstance(output, dict)
    written = [f"{heading}: what is to be said of rivers" for heading in headings if heading.strip()]
    assert output == {"kind": kind, "sections": written}
    assert len(written) == sections


def test_the_same_prompt_gives_the_same_picture_and_another_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_field, "_GRAINS", 900)
    shares: list[float] = []
    first, again, other = (render(prompt, shares.append) for prompt in ("tide", "tide", "moss"))
    assert first.size == (SIZE, SIZE)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert shares[0] == 0
    assert max(shares) < 1


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "examples.demo", *arguments]


@pytest.mark.slow
def test_the_demo_ends_with_a_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        demo("--directory", str(tmp_path)),
        capture_output=True,
        text=True,
        cwd=live.ROOT,
        timeout=live.TIMEOUT_S * 2,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^The picture: (.*)$", done.stdout, re.MULTILINE)
    assert found is not None
    with Image.open(found[1]) as picture:
        assert picture.format == "PNG"
        assert picture.width > 3 * SIZE
    for words in ("total time", "sum of node times", "speed-up", "the cores allow", "To look further:"):
        assert words in done.stdout
    assert json.loads((tmp_path / "input.json").read_text())["title"] == "Three pictures of wind"


@pytest.mark.slow
def test_the_demo_leaves_nothing_running_when_it_is_interrupted(tmp_path: Path) -> None:
    with subprocess.Popen(
        demo("--directory", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=live.ROOT,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        address = ""
        for line in running.stdout:
            address = line.split()[-1] if "listens on" in line else address
            if " running " in line:
                break
        # As a terminal does it: to all in the foreground.
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=live.TIMEOUT_S)
    assert running.returncode == 130
    done = live.plait("get", "contact-sheet", "--server", address)
    assert done.returncode == 4


@pytest.mark.slow
def test_the_traced_demo_shows_its_trace(tmp_path: Path) -> None:
    """In a Jaeger if one is built, else at the collector that the environment names; and goes on until Ctrl-C."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "TRACE"))}
    sink = None if built_jaeger() else Sink()
    if sink is not None:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.endpoint
    with subprocess.Popen(
        demo("--jaeger", "--directory", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=live.ROOT,
        env=variables,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        lines: list[str] = []
        for line in running.stdout:
            lines.append(line)
            if "go on until Ctrl-C" in line:
                break
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=live.TIMEOUT_S)
    assert running.returncode == 130, errors
    shown = "".join(lines)
    if sink is not None:
        sink.close()
        trace_id = shown.partition("The trace: ")[2][:32]
        names = [span.name for span in sink.spans(trace_id)]
        assert {"demo", "execution", "node image.generate", "handle image.generate"} <= set(names)
    else:
        _, _, trace = shown.partition("The trace, as Jaeger has it:")
        words = [line.split(" ", 2)[:2] for line in map(str.strip, trace.splitlines()) if "█" in line]
        assert words[:2] == [["demo", ""], ["execution", "contact-sheet"]]
        assert sum(word[0] == "branch" for word in words) == 3
        assert sum(word[0] == "handle" for word in words) == 7
