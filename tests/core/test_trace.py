"""Trace context: a caller's headers, and ids that are computed from what they identify (B2)."""

import pytest

from plait_server.core.run.trace import SpanIds, TraceContext, own_trace_id, read_trace_context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),  # bits that nobody has given a meaning are not handed on
        (f"cc-{TRACE}-{SPAN}-01", 1),  # a later version, read as this one
        (f"cc-{TRACE}-{SPAN}-01-what-else", 1),
    ],
)
def test_traceparent_is_read(traceparent: str, flags: int) -> None:
    assert read_trace_context(traceparent) == TraceContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00-nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_traceparent_that_is_not_valid_is_ignored(traceparent: str) -> None:
    assert read_trace_context(traceparent, "a=b") is None


@pytest.mark.parametrize(
    ("tracestate", "read"),
    [
        ("", ""),
        ("a=b", "a=b"),
        ("a=b,c=d", "a=b,c=d"),
        ("a=b , , c=d", "a=b,c=d"),
        ("a", ""),
        ("a=b\n", ""),
        ("a=\u00fc", ""),
        (",".join(f"k{number}=v" for number in range(32)), ",".join(f"k{number}=v" for number in range(32))),
        (",".join(f"k{number}=v" for number in range(33)), ""),
        ("a=" + "b" * 510, "a=" + "b" * 510),
        ("a=" + "b" * 511, ""),
    ],
)
def test_tracestate_is_passed_on_if_it_is_valid(tracestate: str, read: str) -> None:
    context = read_trace_context(f"00-{TRACE}-{SPAN}-01", tracestate)
    assert context is not None
    assert context.tracestate == read


def test_child_keeps_the_trace_and_takes_the_decision() -> None:
    caller = TraceContext(TRACE, SPAN, 3, "a=b")
    child = caller.child("1" * 16, is_sampled=False, tracestate="c=d")
    assert child == TraceContext(TRACE, "1" * 16, 2, "c=d")
    assert child.traceparent == f"00-{TRACE}-{'1' * 16}-02"


def test_ids_are_stable_and_differ() -> None:
    """B2: ids derive from (execution, run, path, attempt)."""

    def ids(namespace: str, execution_id: str, run: int) -> list[bytes]:
        spans = SpanIds(namespace, execution_id, run)
        nodes = [each for path in ("a", "b") for each in (spans.node(path), spans.attempt(path, 1))]
        branches = [spans.branch("", 1), spans.branch("", 2), spans.branch("loop[1]", 1)]
        return [
            spans.execution(),
            *nodes,
            *branches,
            spans.attempt("a", 2),
            spans.queue("a", 1),
            spans.queue("a", 2),
        ]

    runs = [("n", "x", 1), ("n", "x", 2), ("n", "y", 1), ("m", "x", 1)]
    every = [each for run in runs for each in ids(*run)]
    assert len(set(every)) == len(every)
    assert every == [each for run in runs for each in ids(*run)]
    assert {len(each) for each in every} == {8}


def test_branch_0_is_the_execution() -> None:
    """B2.1: branch 0 is the execution's span."""
    spans = SpanIds("n", "x", 1)
    assert spans.branch("", 0) == spans.execution()


def test_each_execution_has_a_trace_id_of_its_own() -> None:
    ids = {own_trace_id(namespace, execution) for namespace in "nm" for execution in "xy"}
    assert len(ids) == 4
    assert {len(each) for each in ids} == {32}
