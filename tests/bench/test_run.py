"""The bench runs on the processes that it measures; how fast they are is no test."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from statistics import median

import pytest

from plait.v1 import event_pb2
from plait_server.bench.client import Client, call
from plait_server.bench.report import Found, as_json, as_table, heading
from plait_server.bench.run import SHAPES, UnknownShape, choose, run
from plait_server.bench.shape import Ceiling, Requirement, Round, Runner, Shape
from plait_server.bench.site import BenchFailed, Site, run_server

# F-1000 and S-F do the same in quick; trouble is over 10 s after the last failure even then.
LEFT_OUT = ("F-10000", "F-100000", "S-C", "S-L", "S-T", "S-trouble")
QUICK = [shape.name for shape in SHAPES if shape.name not in LEFT_OUT]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_round_of_each_shape_prints_one_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([name], json=True, quick=True) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["shape"] == name
    assert found["rounds"] == 1
    assert found["quick"]
    assert found["cores"] > 0
    assert found["min"] == found["median"] == found["max"] == found["medians"][found["figure"]]
    assert all(value > 0 for value in [found["median"], *found["ceilings"].values()])


def test_every_family_is_there_and_names_are_unique() -> None:
    names = [shape.name for shape in SHAPES]
    assert len(set(names)) == len(names)
    assert {shape.family for shape in SHAPES} == {*"FNECLTPWBRHSQ", "FF"}


def test_shapes_are_chosen_by_name_and_by_family() -> None:
    assert [shape.name for shape in choose(["t", "F-10000", "E"])] == [
        "F-10000",
        "E-frames",
        "E-workers",
        "T",
    ]
    assert [shape.name for shape in choose(["F"])] == ["F-1000", "F-10000", "F-100000"]
    assert choose([]) == list(SHAPES)


def test_an_unknown_shape_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UnknownShape, match=r"no shape 'X'; there are F-1000, .*, S-trouble$"):
        choose(["F", "X"])


# What is made of the figures.


def found(figure: str, values: list[float], ceiling: Ceiling, height: float, *bounds: Requirement) -> Found:
    shape = Shape(
        name="X",
        title="a title",
        figure=figure,
        open=lambda site: pytest.fail(f"{site} is not opened"),
        rounds=len(values),
        ceilings=(ceiling,),
        requirements=bounds,
    )
    rounds = [
        Round(figures={figure: value, "other_ms": 2.0}, nodes=100, cpu_s=0.01, rss_bytes=1024 * 1024 * size)
        for size, value in enumerate(values, start=1)
    ]
    return Found(shape, rounds, {ceiling: [height] * len(values)})


@pytest.mark.parametrize(
    ("figure", "value", "ceiling", "height", "beside"),
    [
        ("nodes_per_s", 500.0, Ceiling.ECHO, 1_000.0, 0.5),
        ("nodes_per_s", 500.0, Ceiling.COMMIT, 4.0, 2.0),
        ("p50_ms", 6.0, Ceiling.CALL, 2.0, 3.0),
        ("ms_per_node", 6.0, Ceiling.COMMIT, 2.0, 3.0),
        ("ready_s", 2.0, Ceiling.COMMIT, 1.0, 2_000.0),
    ],
)
def test_rates_and_times_are_compared_with_ceilings(
    figure: str, value: float, ceiling: Ceiling, height: float, beside: float
) -> None:
    """A rate: how many for one of the ceiling's. A time: how many of the ceiling's."""
    assert found(figure, [value], ceiling, height).medians[ceiling.per] == pytest.approx(beside)


def test_medians_are_what_is_judged() -> None:
    values = [100.0, 400.0, 600.0]
    reached = Requirement(figure="nodes_per_s", at_least=400)
    missed = Requirement(figure="per_echo", at_least=0.5)
    assert found("nodes_per_s", values, Ceiling.ECHO, 1_000, reached).is_reached
    both = found("nodes_per_s", values, Ceiling.ECHO, 1_000, reached, missed)
    assert not both.is_reached
    line = json.loads(as_json(both, is_quick=False))
    assert line["required"] == {"nodes_per_s at least 400": True, "per_echo at least 0.5": False}
    assert (line["min"], line["median"], line["max"]) == (100, median(values), 600)
    assert line["server_cpu_ms_per_node"] == 0.1
    assert line["server_rss_mib"] == 3
    table = as_table(both, is_quick=False)
    assert "NOT reached (0.4)" in table
    assert "required" not in as_table(both, is_quick=True)
    assert len(heading()) == len(table.splitlines()[0])


def test_an_upper_bound_is_kept_at_the_bound() -> None:
    bound = Requirement(figure="ready_s", at_most=2)
    assert str(bound) == "ready_s at most 2"
    assert bound.is_met(2.0)
    assert not bound.is_met(2.1)


def test_without_proc_processor_time_and_memory_are_left_out() -> None:
    shape = found("p50_ms", [1.0], Ceiling.CALL, 1.0).shape
    blind = Found(
        shape,
        [Round(figures={"p50_ms": 1.0}, nodes=1, cpu_s=None, rss_bytes=None)],
        {Ceiling.CALL: [1.0]},
    )
    line = json.loads(as_json(blind, is_quick=False))
    assert line["server_cpu_ms_per_node"] is None
    assert line["server_rss_mib"] is None
    assert as_table(blind, is_quick=False).splitlines()[0].split()[-2:] == ["-", "-"]


def test_what_a_server_refuses_is_told(tmp_path: Path) -> None:
    async def ask(client: Client) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.wait_event("no-such-execution", event_pb2.EVENT_TYPE_EXECUTION_ENDED))

    with (
        run_server(Site(tmp_path, is_quick=True)) as server,
        pytest.raises(BenchFailed, match=r"^the server said NOT_FOUND: "),
    ):
        call(server.address, ask)


def test_a_process_that_ends_at_once_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchFailed, match="ended before it was ready"),
        run_server(Site(tmp_path, is_quick=True), tmp_path),
    ):
        pytest.fail("a folder is no store")


def test_a_bench_that_is_told_to_stop_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def open_and_stop(site: Site) -> Generator[Runner]:
        with run_server(site) as server:
            addresses.append(server.address)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")
        yield pytest.fail

    addresses: list[str] = []
    shape = dataclasses.replace(SHAPES[0], name="X", open=open_and_stop)
    monkeypatch.setattr("plait_server.bench.run.SHAPES", [shape])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(["X"], json=True, quick=True)
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(tmp_path.iterdir()) == []
    host, _, port = addresses[0].rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
