"""Q1: concurrency keys."""

from __future__ import annotations

from plait_server.core.run.events import AttemptStarted
from plait_server.core.run.payload import Payload
from tests.core.driver import Driver
from tests.core.graph_text import build


def keys(driver: Driver) -> list[str]:
    """The keys in the journal, an attempt each."""
    started = [event.detail for event in driver.events if isinstance(event.detail, AttemptStarted)]
    return [detail.concurrency_key for detail in started]


def test_the_key_is_evaluated_once_for_all_attempts() -> None:
    """Q1, A1: it stands in the event that starts an attempt, and a replay evaluates nothing."""
    d = Driver(build("node a key=k retry=3 backoff=0; node b"), grants=False).start()
    assert {path: offer.key for path, offer in d.offered.items()} == {"a": "k", "b": ""}
    d.grant("a")
    d.answers = False
    d.fail("a", "UNAVAILABLE")
    d.advance(0)
    assert d.offered["a"].key == "k"
    d.restart()
    d.advance(0)
    assert d.offered["a"].key == "k"
    d.grant("a")
    d.lose("a")
    d.grant("a")
    assert keys(d) == ["k", "k", "k"]


def test_a_key_goes_with_a_rendered_input() -> None:
    d = Driver(build("a -> b; node b key=k input=7"), grants=False).start()
    d.grant("a")
    d.succeed("a")
    d.pause()
    d.resume()
    assert d.offered["b"].key == "k"
    d.restart()
    assert d.offered["b"].key == "k"
    d.grant("b")
    assert d.execution.record("b").attempts[0].concurrency_key == "k"
    assert d.execution.record("b").input == Payload("7")


def test_a_key_that_cannot_be_evaluated_fails_the_node() -> None:
    """F3: EXPRESSION, without an attempt."""
    d = Driver(build("node a key=broken retry=9")).start()
    assert d.state("a") == "FAILED/EXPRESSION"
    assert keys(d) == []
