"""What handlers do: each attempt's behavior follows from the seed and the attempt alone."""

from __future__ import annotations

import enum
import json
from typing import Final, NamedTuple

from plait.v1 import failure_pb2
from plait_server.testing.simulation.graphs import MAKER, make_output
from plait_server.testing.simulation.world import World


class Act(enum.Enum):
    """How a handler ends."""

    SUCCEED = "handler succeeds"
    FAIL = "handler fails"
    HANG = "handler hangs"
    VANISH = "handler takes its worker with it"
    NOT_JSON = "handler returns what is not JSON"
    HAND_BACK = "handler hands back"


class Script(NamedTuple):
    """What the handler of one attempt does."""

    act: Act
    after_s: float
    """Seconds until it ends, unless it hangs or is cancelled."""
    output: str
    """JSON text, or what is not."""
    code: str
    retryable: bool | None
    retry_after_s: float | None
    exit_s: float
    """Seconds it takes to end when it is cancelled."""
    ignores_cancel: bool
    """Whether it goes on as if it were not cancelled, and delivers its result."""
    talks: bool
    """Whether it reports progress, logs and usage."""
    says_much: bool
    """Whether its failure has as much to say as it may."""
    beats: int
    """Heartbeats that it sends before it falls silent, if the attempt has a heartbeat timeout."""
    extends_s: float
    """The time for which it asks at its beginning, if its time is bounded; 0 if it does not."""


OUTPUTS: Final = (
    "null",
    "true",
    "false",
    "1",
    "2.5",
    '"a"',
    '{"ok":true}',
    '{"ok":false,"n":1}',
    "[1,2,3]",
    '{"n":9007199254740993}',
)
_WEIGHTS: Final = (1, 11, 3, 2.5, 1.5, 5)
"""How often handlers that do not simply succeed do what, in the order of `Act`."""
_RELUCTANT: Final = (1, 14, 2, 1, 1, 12)
_NOT_JSON: Final = ("{nope", "NaN", '{"a":1,"a":2}', "", "[" * 100 + "]" * 100)
_LARGE: Final = json.dumps({"ok": True, "large": "x" * 40_000})
"""Above the 32 KiB that are kept inline."""


MUCH: Final = json.dumps({"large": "x" * 40_000})
"""Details of a failure, above what is kept inline."""


def many_causes() -> list[failure_pb2.Failure]:
    """Make more causes than a failure may have, in number, in depth and in bytes."""
    chain: list[failure_pb2.Failure] = []
    for _ in range(12):
        chain = [failure_pb2.Failure(code="BEHIND", message="m" * 500, causes=chain)]
    return chain * 60


def choose_script(world: World, execution_id: str, node_path: str, attempt: int, *, mishaps: float) -> Script:
    """Choose what an attempt's handler does.

    Args:
        world: The seed.
        execution_id: The attempt's execution.
        node_path: The attempt's node.
        attempt: Its number.
        mishaps: Share of attempts that do not simply succeed.
    """
    chance = world.chance("handler", execution_id, node_path, attempt)
    act = Act.SUCCEED
    if chance.random() < mishaps:
        act = chance.choices(list(Act), _RELUCTANT if world.is_reluctant else _WEIGHTS)[0]
    output = chance.choice(OUTPUTS) if chance.random() < 0.985 else _LARGE
    if node_path.rpartition("/")[2] == MAKER:
        output = make_output(chance, node_path.count("/") + 1)
    after_s = chance.choice((0.0, 0.01, 0.2, 1.0, 1.5, 3.0, 8.0)) if chance.random() < 0.98 else 30.0
    if act is Act.HAND_BACK:
        after_s = min(after_s, 0.01)  # Before others fail, that is: some do so while the node waits again.
    return Script(
        act=act,
        after_s=after_s,
        output=chance.choice(_NOT_JSON) if act is Act.NOT_JSON else output,
        code=chance.choice(("BAD", "BAD", "UNAVAILABLE", "UNAVAILABLE", "DEADLINE_EXCEEDED")),
        retryable=chance.choice((None, None, None, True, True, False)),
        retry_after_s=chance.choice((0.0, 1.0, 4.0)) if chance.random() < 0.2 else None,
        exit_s=chance.choice((0.0, 0.0, 0.5, 3.0, 12.0)),
        ignores_cancel=chance.random() < 0.2,
        talks=chance.random() < 0.15,
        says_much=chance.random() < 0.05,
        beats=chance.choice((0, 1, 3, 1_000, 1_000)),
        extends_s=chance.choice((0.0, 0.0, 2.0, 10.0)),
    )
