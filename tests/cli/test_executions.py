"""The commands that talk to a server, against a real one."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli import live

Run = Callable[..., CompletedProcess[str]]
GraphFile = Callable[[str], str]


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_submit_writes_the_id_alone_and_how_to_follow_it(run: Run, graph_file: GraphFile) -> None:
    done = run("submit", graph_file("test.echo"), "--id", "alone")
    assert (done.returncode, done.stdout) == (0, "alone\n")
    assert done.stderr == "accepted; `plait watch alone` follows it\n"


def test_submit_waits_and_shows_the_end(run: Run, graph_file: GraphFile) -> None:
    done = run("submit", graph_file("test.echo"), "--input", '{"big": 9007199254740993}', "--wait")
    assert done.returncode == 0
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert shown["state"] == "SUCCEEDED"
    assert shown["output"] == '{"big": 9007199254740993}'.replace(" ", "")
    assert shown["used"] == "1 calls"


def test_submit_ends_with_1_when_the_execution_failed(run: Run, graph_file: GraphFile) -> None:
    done = run("submit", graph_file("test.fail"), "--wait")
    assert done.returncode == 1
    # What a worker says cannot change the terminal.
    assert r"OUT_OF_PAPER: the tray is \x1b[31mempty\nfill it (only, attempt 1)" in done.stdout
    assert "\x1b" not in done.stdout


def test_submit_is_a_child_of_the_span_that_the_environment_names(run: Run, graph_file: GraphFile) -> None:
    """B2: the steps of a traced pipeline find their parent in TRACEPARENT and TRACESTATE."""
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    variables = {"TRACEPARENT": f"00-{trace_id}-{span_id}-01", "TRACESTATE": "a=b"}
    done = run("submit", graph_file("test.echo"), "--watch", "--json", **variables)
    first = json.loads(done.stdout.splitlines()[0])["executionSubmitted"]
    assert (first["parentSpanId"], first["tracestate"]) == (span_id, "a=b")
    assert first["traceparent"].split("-")[1] == trace_id


def test_audit_lists_who_did_what(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.echo"), "--id", "audited", "--wait")
    head, line = run("audit", "audited").stdout.splitlines()
    assert head.split()[:5] == ["TIME", "WHO", "WHAT", "OUTCOME", "EXECUTION"]
    assert line.split()[2].endswith("?")
    assert line.split()[3:6] == ["SubmitGraph", "ACCEPTED", "audited"]
    assert json_lines(run("audit", "audited", "--json").stdout)[0]["kind"] == "SubmitGraph"


def test_watch_tells_a_line_an_event(run: Run, graph_file: GraphFile) -> None:
    done = run("submit", graph_file("test.echo"), "--id", "watched", "--watch", "--input", "[1]")
    assert done.returncode == 0
    told = [line.split()[1:] for line in done.stdout.splitlines()]
    assert [words[:2] for words in told] == [
        ["submitted", "watched"],
        ["started"],
        ["only", "running"],
        ["only", "succeeded"],
        ["SUCCEEDED", told[-1][1]],
    ]
    assert told[-1][-1] == "[1]"
    assert "\x1b" not in done.stdout


def test_watch_ends_with_the_state_of_what_has_ended(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.fail"), "--id", "ended-badly", "--wait")
    last = json_lines(run("watch", "ended-badly", "--json").stdout)[-1]["sequence"]
    for after in ("0", str(last)):
        assert run("watch", "ended-badly", "--after-sequence", after).returncode == 1


def test_watch_as_json_gives_every_event(run: Run, graph_file: GraphFile) -> None:
    done = run("submit", graph_file("test.echo"), "--id", "as-json", "--watch", "--json")
    events = json_lines(done.stdout)
    assert [event["sequence"] for event in events] == [str(number + 1) for number in range(len(events))]
    assert events[0]["type"] == "EVENT_TYPE_EXECUTION_SUBMITTED"
    assert events[-1]["executionState"] == "EXECUTION_STATE_SUCCEEDED"
    later = json_lines(run("watch", "as-json", "--json", "--after-sequence", "2").stdout)
    assert later == events[2:]


def test_watch_shows_the_snapshot_first(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.echo"), "--id", "snapshot", "--wait")
    done = run("watch", "snapshot", "--snapshot")
    assert done.stdout.splitlines()[1] == "  only  succeeded"
    first = json_lines(run("watch", "snapshot", "--snapshot", "--json").stdout)[0]
    assert first["last"] is True


def test_get_shows_an_execution(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.echo"), "--id", "shown", "--label", "team=design", "--wait")
    done = run("get", "shown")
    assert done.returncode == 0
    assert "labels     team=design" in done.stdout
    [execution] = json_lines(run("get", "shown", "--json").stdout)
    assert execution["executionId"] == "shown"


def test_get_writes_an_output_that_is_kept_by_digest(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.large"), "--id", "large", "--input", "100000", "--wait")
    assert "100,002 bytes, sha256 " in run("get", "large").stdout
    assert json.loads(run("get", "large", "--output").stdout) == "x" * 100_000


def test_get_says_that_there_is_no_output(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.fail"), "--id", "no-output", "--wait")
    done = run("get", "no-output", "--output")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "plait: no-output is FAILED and has no output\n"


def test_nodes_lists_the_nodes(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.echo"), "--id", "listed", "--wait")
    heads, row = run("nodes", "listed").stdout.splitlines()
    assert heads.split() == ["NODE", "STATE", "REASON", "LEVEL", "BRANCH", "ATTEMPTS", "TOOK", "WORKER"]
    assert row.split()[:5] == ["only", "SUCCEEDED", "0", "0", "1"]
    assert row.split()[-1] == "live"
    [node] = json_lines(run("nodes", "listed", "--json").stdout)
    assert node["path"] == "only"


def test_nodes_says_that_no_worker_serves_the_type(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.nobody"), "--id", "no-worker")
    assert run("nodes", "no-worker").stdout.splitlines()[1].split()[:3] == ["only", "QUEUED", "NO_WORKER"]


def test_list_begins_with_the_newest(run: Run, graph_file: GraphFile) -> None:
    for id_ in ("first", "second", "third"):
        run("submit", graph_file("test.echo"), "--id", id_, "--namespace", "listing")
    done = run("list", "--namespace", "listing", "--limit", "2")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["EXECUTION", "third", "second"]
    listed = json_lines(run("list", "--namespace", "listing", "--json").stdout)
    assert [execution["executionId"] for execution in listed] == ["third", "second", "first"]
    done = run("list", "--namespace", "listing", "--order-by", "create_time", "--filter", "graph_name != x")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["EXECUTION", "first", "second", "third"]
    assert run("count", "--namespace", "listing", "--filter", "labels:none").stdout == "0\n"
    done = run("count", "--namespace", "listing", "--filter", "graph = x")
    assert done.returncode == 2
    assert "the fields are state, graph_name, labels.KEY, create_time, end_time" in done.stderr


def test_list_of_nothing_says_so(run: Run) -> None:
    done = run("list", "--namespace", "empty")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no executions in the namespace empty\n")


def test_workers_lists_the_workers(run: Run, graph_file: GraphFile) -> None:
    # The worker is attached when it has done something.
    run("submit", graph_file("test.echo"), "--wait")
    [worker] = json_lines(run("workers", "--json").stdout)
    assert worker["workerId"] == "live"
    heads, row = run("workers").stdout.splitlines()
    assert heads.split() == ["WORKER", "STATE", "BUSY", "TYPES", "HEARD", "SDK"]
    assert row.split()[:2] == ["live", "ATTACHED"]


def test_workers_of_nobody_says_how_to_attach_one(run: Run, address: str) -> None:
    done = run("workers", "--namespace", "empty")
    assert f"attach one: plait worker MODULE:WORKER --connect {address}" in done.stderr


def test_cancel_ends_an_execution(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.nobody"), "--id", "to-cancel")
    done = run("cancel", "to-cancel", "--reason", "no longer wanted")
    assert done.returncode == 0
    assert done.stdout.split()[0] == "to-cancel"
    done = run("watch", "to-cancel")
    assert done.returncode == 1
    assert "cancelling  no longer wanted" in done.stdout
    # On what has ended it is no error (C1).
    assert run("cancel", "to-cancel").stdout.split() == ["to-cancel", "CANCELLED"]


def test_an_execution_is_paused_updated_and_resumed(run: Run, graph_file: GraphFile) -> None:
    """C2, C10"""
    run("submit", graph_file("test.nobody"), "--id", "held", "--priority", "3")
    done = run("pause", "held", "--reason", "maintenance")
    assert done.stdout.split() == ["held", "PAUSED"]
    assert "plait resume held" in done.stderr
    [execution] = json_lines(run("get", "held", "--json").stdout)
    assert execution["reason"] == "maintenance"
    assert execution["priority"] == 3
    assert "updated" not in run("get", "held").stdout
    done = run(
        *("update", "held", "--priority", "5", "--max-concurrency", "2", "--on-failure", "continue"),
        *("--lock", 'only="skipped"'),
    )
    assert done.returncode == 0
    shown = run("get", "held").stdout
    assert "priority   5" in shown
    assert "settings changed since the submission, etag settings-" in shown
    stale = run("update", "held", "--priority", "7", "--etag", str(execution["etag"]))
    assert stale.returncode != 0
    assert "changed since they were read" in stale.stderr
    run("resume", "held", "--data", '{"approved": true}')
    done = run("watch", "held")
    assert done.returncode == 0
    for what in ("pausing     maintenance", "paused      maintenance", "updated     priority 5", "resumed"):
        assert what in done.stdout
    assert "policy on_failure CONTINUE, max_concurrency 2, timeout none" in done.stdout
    details = {
        str(entry["kind"]): json.loads(str(entry["detailJson"]))
        for entry in json_lines(run("audit", "held", "--json").stdout)
    }
    assert details["PauseExecution"] == {"mode": "WAIT", "reason": "maintenance"}
    assert details["ResumeExecution"] == {}
    assert details["UpdateExecution"] == {
        "priority": "5",
        "policy.on_failure": "CONTINUE",
        "policy.max_concurrency": "2",
        "locked": "only",
    }
    done = run("pause", "held")
    assert done.returncode != 0
    assert done.stderr.startswith("plait: The execution has ended, or is being cancelled.")


def test_an_update_of_nothing_is_a_matter_of_usage(run: Run) -> None:
    done = run("update", "anything")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is nothing to change" in done.stderr


def test_ctrl_c_ends_the_watch_and_not_the_execution(run: Run, graph_file: GraphFile, address: str) -> None:
    run("submit", graph_file("test.hang"), "--id", "goes-on")
    with subprocess.Popen(
        [sys.executable, "-m", "plait_server", "watch", "goes-on", "--server", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=live.ROOT,
    ) as watching:
        assert watching.stdout is not None
        while " running " not in watching.stdout.readline():
            pass
        watching.send_signal(signal.SIGINT)
        _, complaint = watching.communicate(timeout=live.TIMEOUT_S)
    assert watching.returncode == 130
    assert (
        f"goes-on goes on. `plait watch goes-on --after-sequence 3 --server {address}` follows it,"
        in complaint
    )
    assert f"`plait cancel goes-on --server {address}` stops it." in complaint
    [execution] = json_lines(run("get", "goes-on", "--json").stdout)
    assert execution["state"] == "EXECUTION_STATE_RUNNING"
    run("cancel", "goes-on")


@pytest.mark.parametrize("command", ["get", "nodes", "watch", "trace", "cancel"])
def test_an_unknown_execution_is_a_matter_of_usage(run: Run, command: str) -> None:
    done = run(command, "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("plait: No execution has this id in this namespace.")
    assert done.stderr.count("\n") == 1


def test_an_id_that_is_taken_is_a_matter_of_usage(run: Run, graph_file: GraphFile) -> None:
    run("submit", graph_file("test.echo"), "--id", "taken")
    done = run("submit", graph_file("test.echo"), "--id", "taken")
    assert done.returncode == 2
    assert done.stderr.startswith("plait: The execution id is taken.")


def test_a_repeated_request_is_the_same_execution(run: Run, graph_file: GraphFile) -> None:
    first, second = (run("submit", graph_file("test.echo"), "--request-id", "once") for _ in range(2))
    assert first.stdout == second.stdout
    done = run("submit", graph_file("test.echo"), "--request-id", "once", "--input", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("plait: The request id was used with other content.")


def test_an_invalid_graph_is_refused_with_all_its_problems(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "nodes: [{id: a, transform: {}}, {id: a, transform: {}}]\nedges: [{source: a, target: b}]\n"
    )
    done = run("submit", str(path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        f'{path}: graph.nodes[1].id: "a" is already the id of graph.nodes[0]; choose another',
        f'{path}: graph.edges[0].target: there is no node "b"; add it, or name another',
    ]
    assert run("validate", "--online", str(path)).stderr == done.stderr
    assert run("plan", "--online", str(path)).returncode == 3


def test_validate_and_plan_say_the_same_online(run: Run) -> None:
    for command in ("validate", "plan"):
        here, there = (run(command, *more, "examples/route.yaml", "--json") for more in ((), ("--online",)))
        assert here.stdout == there.stdout
        assert json.loads(here.stdout) is not None


def test_no_server_is_said_with_the_remedy() -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port, and nobody answers there.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = live.call("get", "x", "--server", address)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"plait: no Plait server at {address}; start one with `plait serve`\n"
