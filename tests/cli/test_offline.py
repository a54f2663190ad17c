"""Commands that need no server."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plait_server.cli import main
from tests.cli import live

GRAPH = "examples/contact-sheet.yaml"


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(live.ROOT)
    for name in ("PLAIT_SERVER", "PLAIT_NAMESPACE", "PLAIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("serve", "worker", "submit", "watch", "get", "list", "nodes", "cancel"):
        assert f"  {command} " in text
    for command in ("validate", "plan", "workers", "trace", "sim", "bench"):
        assert f"  {command} " in text


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "worker",
        "submit",
        "watch",
        "get",
        "list",
        "nodes",
        "cancel",
        "validate",
        "plan",
        "workers",
        "trace",
    ],
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Usage: plait {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("Plait 0.")


def test_a_misspelt_command_is_told_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sumbit"]) == 2
    assert 'No such command "sumbit". Did you mean submit?' in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["get"],
        ["get", "x", "--server", "http://localhost"],
        ["submit", GRAPH, "--input", "{"],
        ["submit", GRAPH, "--input", "@/does/not/exist"],
        ["submit", GRAPH, "--label", "nonsense"],
        ["submit", "/does/not/exist.yaml"],
        ["serve", "--listen", "127.0.0.1:99999"],
        ["serve", "--types", "image.generate"],
        ["worker", "no_such_module:worker"],
        ["worker", "examples.contact_sheet"],
        ["worker", "examples.contact_sheet:worker", "--processes", "0"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err
    assert "Traceback" not in written.err


def test_validate_accepts_every_example(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(str(path) for path in Path("examples").glob("*.yaml"))
    assert main(["validate", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": valid, ")[0] for line in lines] == files


def test_validate_lists_all_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "nodes:\n"
        "  - {id: a, task: {type: t}, input: {x: '{{ nodes.b.output }}'}}\n"
        "  - {id: b, condition: {expression: 'input.x >'}}\n"
        "edges:\n"
        "  - {source: a, target: b}\n"
        "  - {source: a, target: q}\n"
    )
    assert main(["validate", str(path)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f'{path}: graph.edges[1].target: there is no node "q"; add it, or name another'
    assert any(
        line.startswith(f"{path}: graph.nodes[1].condition.expression: Syntax error") for line in lines
    )


def test_a_file_that_is_no_graph_is_told_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("nodes:\n  - id: a\n    tsk: {type: t}\n")
    for command in ("validate", "plan", "submit"):
        assert main([command, str(path)]) == 3
        assert "nodes[0], line 3: unknown key" in capsys.readouterr().err


def test_a_graph_comes_from_stdin() -> None:
    done = live.plait("validate", "-", stdin='{"nodes": [{"id": "a", "transform": {}}]}')
    assert (done.returncode, done.stdout) == (0, "-: valid, 1 node, 0 edges\n")


def test_plan_draws_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", GRAPH]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "contact-sheet: 7 nodes, 6 edges, 3 levels, at most 3 side by side",
        "",
        "  prompt_1 ── generate_1 ─┐",
        "  prompt_2 ── generate_2 ─┼─ sheet",
        "  prompt_3 ── generate_3 ─┘",
        "",
        "longest path  prompt_1 → generate_1 → sheet",
        "guarded       none",
        "branches      0: sheet",
        "              0-001: prompt_1, generate_1",
        "              0-002: prompt_2, generate_2",
        "              0-003: prompt_3, generate_3",
    ]


NESTED = """
name: outer
nodes:
  - {id: plan, task: {type: t}}
  - id: review
    join: {mode: any}
    subgraph:
      graph:
        name: inner
        nodes: [{id: a, task: {type: t}}, {id: b, subgraph: {graph: {nodes: [{id: x, transform: }]}}}]
        edges: [{source: a, target: b}]
  - {id: run, subgraph: {output_of: plan}}
edges: [{source: plan, target: review}, {source: review, target: run}]
"""


def test_plan_shows_the_graphs_inside_by_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text(NESTED)
    assert main(["plan", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(("longest", "guarded", "branches"))] == [
        "outer: 3 nodes, 2 edges, 3 levels, at most 1 side by side",
        "  plan ── review (any, graph) ── run (graph of plan)",
        "in review (inner): 2 nodes, 1 edge, 2 levels, at most 1 side by side",
        "  a ── b (graph)",
        "in review/b: 1 node, 0 edges, 1 level, at most 1 side by side",
        "  x",
    ]
    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: valid, 3 nodes, 2 edges, 2 sub-graphs with 3 nodes\n"


def test_problems_of_inner_graphs_have_their_whole_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text(NESTED.replace("{source: a, target: b}", "{source: a, target: plan}"))
    assert main(["validate", str(path)]) == 3
    assert capsys.readouterr().err == (
        f'{path}: graph.nodes[1].subgraph.graph.edges[0].target: "plan" is a node of a graph around this one, '
        'and only nodes of the same graph can be named; pass what it gives by the `input` of "review"\n'
    )


def test_plan_as_json_is_the_contract_s_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", GRAPH, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["levelCount"], plan["width"]) == (3, 3)


def test_a_module_that_cannot_be_imported_is_told_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "broken_worker.py").write_text("worker = 1 / 0\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    done = live.plait("worker", "broken_worker:worker", env=environment)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert (
        first == "plait worker: broken_worker:worker cannot be imported: ZeroDivisionError: division by zero"
    )
    assert second.endswith("broken_worker.py, line 1; PLAIT_DEBUG=1 shows the traceback")
    shown = live.plait("worker", "broken_worker:worker", env=environment | {"PLAIT_DEBUG": "1"})
    assert "Traceback" in shown.stderr


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    for module in ("trio", "yaml"):
        # An import that fails as if the package were not there.
        source = f"raise ModuleNotFoundError({module!r}, name={module!r})\n"
        (tmp_path / f"{module}.py").write_text(source)
    environment = {"PYTHONPATH": str(tmp_path)}
    done = live.plait("serve", env=environment)
    assert done.returncode == 5
    assert done.stderr == 'plait: trio is not installed; this command needs: pip install "plait[server]"\n'
    done = live.plait("validate", GRAPH, env=environment)
    assert done.returncode == 3
    assert 'pip install "plait[cli]"' in done.stderr


# The server as a process.


def test_serve_says_where_it_listens_and_how_to_go_on(tmp_path: Path) -> None:
    store = tmp_path / "plait.db"
    with live.process("serve", "--listen", "127.0.0.1:0", "--store", str(store), "--create") as running:
        first = live.first_line(running)
        assert first.startswith("Plait 0.1.0 listens on 127.0.0.1:")
        address = first.split()[-1]
        assert live.first_line(running) == f"  store   {store} (SQLite)"
        assert live.first_line(running).endswith(f"--connect {address}")
        assert live.first_line(running).endswith(f"--server {address}")
        assert live.first_line(running).startswith(
            "  access  insecure, with neither TLS nor authentication: "
        )
        running.send_signal(signal.SIGINT)
        assert running.wait(live.TIMEOUT_S) == 0
    assert store.exists()


@pytest.mark.parametrize(
    ("listen", "says", "code"),
    [("0.0.0.0:0", "pass --insecure", 2), ("{taken}", "is in use", 5)],
)
def test_serve_refuses_an_address_with_the_remedy(listen: str, says: str, code: int, tmp_path: Path) -> None:
    with live.server(":memory:") as taken:
        arguments = ("--listen", listen.replace("{taken}", taken), "--store", ":memory:")
        done = live.plait("serve", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_refuses_a_store_in_use(tmp_path: Path) -> None:
    store = str(tmp_path / "plait.db")
    with live.server(store):
        done = live.plait("serve", "--listen", "127.0.0.1:0", "--store", store)
    assert (done.returncode, done.stdout) == (5, "")
    assert "stop it, or name another store" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_into_a_closed_pipe_is_no_error_to_speak_of() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "plait_server", "plan", GRAPH],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=live.ROOT,
    ) as planning:
        assert planning.stdout is not None
        assert planning.stderr is not None
        planning.stdout.close()
        complaint = planning.stderr.read()
    assert complaint == ""
