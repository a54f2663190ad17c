"""Section 5: what an ended node does to its outgoing edges, row by row; handles; F1 to F3."""

import pytest

from plait_server.core.run.commands import TimerKind
from plait_server.core.run.events import AttemptEnded, EdgeName
from tests.core.driver import Driver
from tests.core.graph_text import build

# Under CONTINUE a failure breaks its edges and stops nothing, so that edges can be looked at.
CONTINUE = "policy CONTINUE"
# Every kind of edge a task can have: plain, plain with a false `when`, error.
FAN = "a -> yes; a -> no when=false; a -error-> side"


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def fan(driver: Driver) -> tuple[str, str, str]:
    edges = driver.edges()
    return edges["a->yes"], edges["a->no"], edges["a-error->side"]


def test_succeeded_makes_plain_edges_active_and_others_dead() -> None:
    """S5: SUCCEEDED | ACTIVE | DEAD | DEAD."""
    d = run(FAN)
    d.succeed("a", output="5")
    assert fan(d) == ("ACTIVE", "DEAD", "DEAD")
    assert d.states() == {
        "a": "SUCCEEDED",
        "yes": "RUNNING",
        "no": "SKIPPED/DEAD_PATH",
        "side": "SKIPPED/DEAD_PATH",
    }
    assert d.inputs["yes"].json == "5"


def test_edges_that_were_not_taken_are_named_in_the_event() -> None:
    """DESIGN 4: events are public, and a position says nothing to a client; half a million names would not fit."""
    d = run(FAN, *(f"a -> t{number} when=false" for number in range(100)))
    d.succeed("a")
    (ended,) = [event.detail for event in d.events if isinstance(event.detail, AttemptEnded)]
    assert len(ended.edges_false) == 101
    names = ["no", *(f"t{number}" for number in range(63))]
    assert ended.edges_not_taken == tuple(EdgeName("", name) for name in names)


def test_locked_makes_plain_edges_active_with_the_locked_output() -> None:
    """S5: SKIPPED as LOCKED | ACTIVE, with `locked_output` | DEAD | DEAD."""
    d = run(FAN, "node a locked=7")
    assert d.state("a") == "SKIPPED/LOCKED"
    assert fan(d) == ("ACTIVE", "DEAD", "DEAD")
    assert d.inputs["yes"].json == "7"


def test_timeout_continue_makes_plain_edges_active_with_null() -> None:
    """S5: TIMED_OUT with `on_timeout: CONTINUE` | ACTIVE, output null | DEAD | DEAD, before any handling."""
    d = run(FAN, "node a on_timeout=CONTINUE")
    d.time_out_attempt("a")
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert fan(d) == ("ACTIVE", "DEAD", "DEAD")
    assert d.inputs["yes"].json == "null"
    assert d.treatments() == []


def test_timeout_cancel_drops_what_follows_and_fails_nothing() -> None:
    """S5: TIMED_OUT with `on_timeout: CANCEL` (what follows is dropped, nothing fails) | DEAD | DEAD |
    DEAD.
    """
    d = run(FAN, "node a on_timeout=CANCEL")
    d.time_out_attempt("a")
    assert fan(d) == ("DEAD", "DEAD", "DEAD")
    assert d.treatments() == []
    assert (d.ended, d.output) == ("SUCCEEDED", {})


@pytest.mark.parametrize("timed_out", [False, True], ids=["failed", "timed_out"])
@pytest.mark.parametrize("on_error", ["UNSPECIFIED", "FAIL", "TOLERATE", "IGNORE"])
def test_handled_failure_takes_the_error_edges(timed_out: bool, on_error: str) -> None:
    """S5: an `error` edge has a true `when`: handled | DEAD | ACTIVE, carrying the failure, else DEAD |
    DEAD.
    """
    d = run(FAN, "a -error-> other when=false", f"node a on_error={on_error}")
    if timed_out:
        d.time_out_attempt("a")
    else:
        d.fail("a", "BAD")
    assert fan(d) == ("DEAD", "DEAD", "ACTIVE")
    assert d.edges()["a-error->other"] == "DEAD"
    assert d.treatments() == [("a", "HANDLED")]
    code = "DEADLINE_EXCEEDED" if timed_out else "BAD"
    assert f'"code": "{code}"' in d.inputs["side"].json
    d.succeed("side", output="1")
    assert (d.ended, d.output) == ("SUCCEEDED", {"side": 1})


@pytest.mark.parametrize("when", ["false", "broken", "1"])
def test_failure_is_not_handled_if_no_error_edge_is_true(when: str) -> None:
    """S5, F2: on an `error` edge a `when` that has no value counts as false; the next row applies."""
    d = run(f"a -> yes; a -> no when=false; a -error-> side when={when}", "node a on_error=IGNORE")
    d.fail("a")
    assert fan(d) == ("ACTIVE", "DEAD", "DEAD")
    assert d.treatments() == [("a", "IGNORED")]


@pytest.mark.parametrize("timed_out", [False, True], ids=["failed", "timed_out"])
def test_ignored_failure_makes_plain_edges_active_with_null(timed_out: bool) -> None:
    """S5: FAILED or TIMED_OUT, `on_error: IGNORE` | ACTIVE, output null | DEAD | DEAD."""
    d = run("a -> yes; a -> no when=false; a -error-> side when=false", "node a on_error=IGNORE")
    if timed_out:
        d.time_out_attempt("a")
    else:
        d.fail("a")
    assert fan(d) == ("ACTIVE", "DEAD", "DEAD")
    assert d.inputs["yes"].json == "null"


@pytest.mark.parametrize("when", ["broken", "1"])
def test_when_without_value_counts_as_false_in_other_rows(when: str) -> None:
    """F2: in every other row (ignored, locked, `on_timeout: CONTINUE`) a `when` without a value counts as
    false.
    """
    for settings in ("on_error=IGNORE", "locked=1", "on_timeout=CONTINUE"):
        d = run(f"a -> yes; a -> no when={when}", f"node a {settings}")
        if settings == "on_error=IGNORE":
            d.fail("a")
        elif settings == "on_timeout=CONTINUE":
            d.time_out_attempt("a")
        assert d.edges() == {"a->yes": "ACTIVE", "a->no": "DEAD"}, settings
        d.succeed("yes")
        assert d.ended == "SUCCEEDED", settings


@pytest.mark.parametrize(
    ("lines", "treatment"),
    [(CONTINUE, "UNHANDLED"), ("node a on_error=TOLERATE", "TOLERATED")],
    ids=["continue", "tolerated"],
)
def test_other_failure_breaks_all_plain_edges(lines: str, treatment: str) -> None:
    """S5: FAILED or TIMED_OUT otherwise (tolerated, E3; or under CONTINUE, E4) | BROKEN | DEAD | BROKEN."""
    d = run("a -> yes; a -> no when=false; a -error-> side when=false", "node b", lines)
    d.fail("a")
    assert fan(d) == ("BROKEN", "BROKEN", "DEAD")
    assert d.state("yes") == d.state("no") == "SKIPPED/UPSTREAM_FAILED"
    assert d.state("side") == "SKIPPED/DEAD_PATH"
    assert d.treatments() == [("a", treatment)]


def test_dead_path_makes_all_edges_dead() -> None:
    """S5: SKIPPED, all its edges were DEAD | DEAD | DEAD | DEAD."""
    d = run("z -> a when=false", FAN)
    d.succeed("z")
    assert fan(d) == ("DEAD", "DEAD", "DEAD")
    assert d.ended == "SUCCEEDED"


def test_loser_makes_all_edges_dead() -> None:
    """S5: CANCELLED as loser of a race | DEAD | DEAD | DEAD."""
    d = run("a, z -> yes; a -> no when=false; a -error-> side; no -> yes", "node yes join=ANY")
    d.succeed("z")
    assert d.states()["a"] == d.states()["no"] == "CANCELLED/RACE_LOST"
    assert fan(d) == ("DEAD", "DEAD", "DEAD")
    assert d.state("side") == "SKIPPED/DEAD_PATH"


def test_upstream_failed_breaks_plain_edges() -> None:
    """S5: SKIPPED, its join met a BROKEN edge | BROKEN | DEAD | BROKEN."""
    d = run(CONTINUE, "z -> a", FAN)
    d.fail("z")
    assert fan(d) == ("BROKEN", "BROKEN", "DEAD")
    assert d.state("side") == "SKIPPED/DEAD_PATH"
    assert d.ended == "FAILED"


def test_error_edge_is_never_broken() -> None:
    """F1: an `error` edge is a side exit: ACTIVE or DEAD, never BROKEN."""
    d = run(CONTINUE, "z -> a; a -error-> b; b -error-> c; b -> e")
    d.fail("z")
    assert d.edges() == {"z->a": "BROKEN", "a-error->b": "DEAD", "b-error->c": "DEAD", "b->e": "DEAD"}


@pytest.mark.parametrize(("value", "chosen"), [("true", "true"), ("false", "false")])
def test_condition_selects_the_handle_of_its_value(value: str, chosen: str) -> None:
    """S5: a condition has `true` and `false`; that value is its output."""
    d = run(f"node c kind=condition:{value}", "c -true-> t; c -false-> f")
    other = "false" if chosen == "true" else "true"
    assert d.edges()[f"c-{chosen}->{chosen[0]}"] == "ACTIVE"
    assert d.edges()[f"c-{other}->{other[0]}"] == "DEAD"
    assert d.inputs[chosen[0]].json == value


@pytest.mark.parametrize(("value", "chosen"), [("x", "x"), ("y", "y"), ("z", "default")])
def test_switch_selects_its_case_or_default(value: str, chosen: str) -> None:
    """S5: one that is no case name selects `default`; the value is the output."""
    d = run(f'node s kind=switch:"{value}":x,y', "s -x-> nx; s -y-> ny; s -default-> nd")
    active = {edge for edge, state in d.edges().items() if state == "ACTIVE"}
    assert active == {f"s-{chosen}->n{chosen[0]}"}
    assert d.inputs[f"n{chosen[0]}"].json == f'"{value}"'


@pytest.mark.parametrize("kind", ["condition:1", "condition:broken", "switch:1:x", "switch:broken:x"])
def test_condition_or_switch_without_a_value_fails(kind: str) -> None:
    """S5: a condition's value must be a boolean, a switch's a string, else it FAILS (EXPRESSION)."""
    d = run(f"node c kind={kind}", "c -error-> e")
    assert d.state("c") == "FAILED/EXPRESSION"
    assert d.edges() == {"c-error->e": "ACTIVE"}
    assert d.starts("c") == 0


def test_ignored_failure_of_condition_selects_false_and_of_switch_default() -> None:
    """S5: an output (an ignored failure's null too) that is not `true` selects `false`; else `default`."""
    d = run("node c kind=condition:broken on_error=IGNORE", "c -true-> t; c -false-> f")
    assert d.edges() == {"c-true->t": "DEAD", "c-false->f": "ACTIVE"}
    d = run("node s kind=switch:broken:x on_error=IGNORE", "s -x-> t; s -default-> f")
    assert d.edges() == {"s-x->t": "DEAD", "s-default->f": "ACTIVE"}


@pytest.mark.parametrize(
    ("output", "chosen"), [("true", "true"), ("false", "false"), ("1", "false"), ("", "false")]
)
def test_locked_condition_selects_by_its_locked_output(output: str, chosen: str) -> None:
    """S5: an output that is not `true` selects `false`."""
    d = run(f"node c kind=condition:broken locked={output}", "c -true-> t; c -false-> f")
    assert d.edges()[f"c-{chosen}->{chosen[0]}"] == "ACTIVE"


@pytest.mark.parametrize(
    ("output", "chosen"), [('"x"', "x"), ('"w"', "default"), ("1", "default"), ("", "default")]
)
def test_locked_switch_selects_by_its_locked_output(output: str, chosen: str) -> None:
    """S5: one that is no case name selects `default`."""
    d = run(f"node c kind=switch:broken:x locked={output}", "c -x-> x; c -default-> d")
    assert d.edges()[f"c-{chosen}->{chosen[0]}"] == "ACTIVE"


def test_broken_edges_of_a_condition_do_not_mind_handles() -> None:
    """S5: FAILED otherwise: other plain edges are BROKEN too."""
    d = run(CONTINUE, "node c kind=condition:broken", "c -true-> t; c -false-> f")
    assert d.edges() == {"c-true->t": "BROKEN", "c-false->f": "BROKEN"}


def test_transform_outputs_its_rendered_input() -> None:
    """S5: a transform's output is its rendered `input`."""
    d = run('node t kind=transform input={"x":1}', "t -> a")
    assert d.inputs["a"].json == '{"x": 1}'


def test_delay_waits_then_outputs_its_input() -> None:
    """S5: a delay WAITS its duration, then outputs its input."""
    d = run("a -> w; w -> b", "node w kind=delay:5")
    d.succeed("a", output="3")
    assert d.state("w") == "WAITING"
    d.advance(4.9)
    assert d.state("w") == "WAITING"
    d.advance(0.1)
    assert d.state("w") == "SUCCEEDED"
    assert d.inputs["b"].json == "3"


@pytest.mark.parametrize("when", ["broken", "1"])
def test_when_of_a_succeeded_node_that_has_no_boolean_fails_it(when: str) -> None:
    """F2: ... is a failure of that node (EXPRESSION, not retried), decided together with its result."""
    d = run(CONTINUE, f"a -> b when={when}; a -> c", "node a retry=3 codes=EXPRESSION,UNAVAILABLE")
    before = len(d.events)
    d.succeed("a", output="1")
    assert d.state("a") == "FAILED/EXPRESSION"
    assert [event.node_path for event in d.events[before:]] == ["a", "b", "c", ""]
    assert d.edges() == {"a->b": "BROKEN", "a->c": "BROKEN"}
    assert d.execution.record("a").output is None, "F3: the output of a FAILED node is absent"
    assert d.starts("a") == 1


def test_when_failure_can_be_handled_or_ignored() -> None:
    """F2, E3: the failure is one of the node, like any other."""
    d = run("a -> b when=broken; a -error-> e")
    d.succeed("a")
    assert d.edges() == {"a->b": "DEAD", "a-error->e": "ACTIVE"}
    d = run("a -> b when=broken; a -> c", "node a on_error=IGNORE")
    d.succeed("a", output="1")
    assert d.state("a") == "FAILED/EXPRESSION"
    assert d.edges() == {"a->b": "DEAD", "a->c": "ACTIVE"}
    assert d.inputs["c"].json == "null"


def test_when_of_a_handle_that_was_not_chosen_is_not_looked_at() -> None:
    """S5: plain edges whose handle matches and whose `when` is true; the others are DEAD whatever they
    say.
    """
    d = run("node c kind=condition:true", "c -true-> t; c -false-> f when=broken")
    assert d.edges() == {"c-true->t": "ACTIVE", "c-false->f": "DEAD"}


def test_condition_fails_by_a_when_without_a_value() -> None:
    """F2: holds for nodes without attempts, too."""
    d = run("node c kind=condition:true", "c -true-> t when=broken; c -error-> e")
    assert d.state("c") == "FAILED/EXPRESSION"
    assert d.edges() == {"c-true->t": "DEAD", "c-error->e": "ACTIVE"}


def test_output_is_absent_unless_the_node_has_one() -> None:
    """F3: absent if not ended, FAILED, TIMED_OUT, CANCELLED, SKIPPED but LOCKED; null if IGNORE, CONTINUE."""
    d = run(
        CONTINUE,
        "a, r -> any; f -> u; f -error-> dead when=false; running -> idle",
        "node any join=ANY; node i on_error=IGNORE; node t; node tc on_timeout=CONTINUE",
        "node l locked=4; node lnull locked",
    )
    d.succeed("a", output="1")
    d.fail("f")
    d.fail("i")
    d.time_out_attempt("t")
    d.time_out_attempt("tc")
    outputs = {r.path: r.output.json for r in d.scope.records if r.output is not None}
    assert outputs == {"a": "1", "i": "null", "tc": "null", "l": "4", "lnull": "null"}
    failures = {r.path: r.failure.code for r in d.scope.records if r.failure is not None}
    assert {"f", "i", "t"} <= set(failures), "F3: the failure is `nodes.x.failure`"


@pytest.mark.parametrize("kind", ["", "kind=transform", "kind=delay:5"])
def test_input_that_cannot_be_made_fails_the_node_without_an_attempt(kind: str) -> None:
    """F3: naming it otherwise FAILS the node that does (EXPRESSION, without an attempt)."""
    d = run(f"node a input=broken {kind}", "a -error-> e")
    assert d.state("a") == "FAILED/EXPRESSION"
    assert d.starts("a") == 0
    assert d.edges() == {"a-error->e": "ACTIVE"}


def test_node_timeout_takes_the_timeout_rows() -> None:
    """S5, T5: a node timeout is TIMED_OUT like an attempt's."""
    d = run(FAN, "node a on_timeout=CONTINUE node_timeout=5")
    d.fire(TimerKind.NODE_TIMEOUT, "a")
    assert fan(d) == ("ACTIVE", "DEAD", "DEAD")
