"""Whatever the order of frames, cuts and repetitions: no result is lost, no handler is started twice."""

from collections import Counter
from random import Random

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.session import WorkerSession
from plait_worker.session_events import Assigned, CancelRequested, ProtocolError, Recorded
from tests.workers.session_driver import assign, cancel, make_session, ping, receive, recorded, welcome

TOKENS = tuple("abcdef")


class World:
    """A session, its handlers, and an honest server at the far side of a line that may be cut."""

    def __init__(self) -> None:
        self.session: WorkerSession = make_session(types={"t": 0}, slots=4)
        self.is_connected = False
        self.is_greeted = False
        self.to_worker: list[hub.ServerMessage] = []
        self.to_server: list[hub.AttachRequest] = []
        # The handlers.
        self.started: Counter[str] = Counter()
        self.running: set[str] = set()
        self.told: set[str] = set()
        self.finished: set[str] = set()
        # The server: what it gave out, what it heard of it.
        self.given: set[str] = set()
        self.cancelled: set[str] = set()
        self.results: Counter[str] = Counter()
        self.over: set[str] = set()

    # The server's doing.

    def give(self, token: str) -> None:
        """Assign an attempt, or send the assign a second time."""
        if self.is_greeted:
            self.given.add(token)
            self.to_worker.append(assign(token))

    def ask_cancel(self, token: str) -> None:
        if self.is_greeted and token in self.given:
            self.cancelled.add(token)
            self.to_worker.append(cancel(token))

    def hear(self) -> None:
        """Take one frame from the line."""
        if not self.to_server:
            return
        for message in self.to_server.pop(0).messages:
            match message.WhichOneof("message"):
                case "hello":
                    self._greet(message.hello)
                case "complete" | "fail":
                    token = message.complete.token or message.fail.token
                    self.results[token] += 1
                    self.over.add(token)
                    self.to_worker.append(recorded(token))
                case "exited" | "reject":
                    self.over.add(message.exited.token or message.reject.token)
                case _:
                    pass

    def _greet(self, hello: hub.Hello) -> None:
        held = {attempt.token for attempt in hello.in_flight}
        self.is_greeted = True
        self.to_worker.append(welcome())
        for token in sorted(self.given - self.over - held):
            self.to_worker.append(assign(token))
        for token in sorted(self.cancelled - self.over):
            self.to_worker.append(cancel(token))

    # The line.

    def connect(self) -> None:
        if not self.is_connected:
            self.is_connected = True
            self.session.connected()
            self.take()

    def cut(self) -> None:
        """Lose whatever is on its way, in both directions."""
        if self.is_connected:
            self.is_connected = False
            self.is_greeted = False
            self.to_worker.clear()
            self.to_server.clear()
            self.session.disconnected()

    def take(self) -> None:
        if self.is_connected:
            while (frame := self.session.take_frame(bytes_max=64)) is not None:
                self.to_server.append(frame)

    def deliver(self) -> None:
        """Bring the worker one message."""
        if not self.to_worker:
            return
        for told in receive(self.session, self.to_worker.pop(0)):
            match told:
                case Assigned(token=token):
                    self.started[token] += 1
                    self.running.add(token)
                case CancelRequested(token=token):
                    assert token in self.running
                    self.told.add(token)
                case Recorded(token=token):
                    assert self.results[token]
                case ProtocolError():
                    raise AssertionError(told.message)
                case _:
                    pass

    # The handlers' doing.

    def end(self, token: str, how: str) -> None:
        if token not in self.running:
            return
        self.running.discard(token)
        match how:
            case "complete":
                self.session.complete(token, "1")
            case "fail":
                self.session.fail(token, "UNKNOWN", "broken")
            case "exited":
                self.session.exited(token)
            case _:
                self.session.hand_back(token, "NOT_NOW", "later")
        if how in {"complete", "fail"} and token not in self.told:
            self.finished.add(token)

    def settle(self) -> None:
        """Let everything come to its end over a line that holds."""
        for token in sorted(self.running):
            self.end(token, "complete")
        self.connect()
        self.take()
        while self.to_server or self.to_worker:
            self.hear()
            self.deliver()
            for token in sorted(self.running):
                self.end(token, "complete")
            self.take()


STEPS = st.one_of(
    st.tuples(st.sampled_from(["give", "give", "ask_cancel"]), st.sampled_from(TOKENS)),
    st.tuples(st.just("end"), st.sampled_from(TOKENS), st.sampled_from(["complete", "fail", "back"])),
    st.tuples(st.sampled_from(["connect", "cut", "take", "hear", "hear", "deliver", "deliver"])),
)


@given(st.lists(STEPS, max_size=80))
def test_no_result_is_lost_and_no_handler_starts_twice(steps: list[tuple[str, ...]]) -> None:
    world = World()
    world.connect()
    world.hear()
    world.deliver()
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
        assert max(world.started.values(), default=0) <= 1
        assert set(world.session.running) == world.running
        assert len(world.session.running) <= 4
    event(f"cut {sum(step[0] == 'cut' for step in steps)} times")
    world.settle()
    assert max(world.started.values(), default=0) <= 1
    # A4: every result was heard, and none is kept after it was recorded.
    assert all(world.results[token] for token in world.finished)
    assert world.session.is_idle, world.session
    # The server knows the end of all it gave out.
    assert world.over >= world.given


@pytest.mark.parametrize("seed", range(20))
def test_long_walks_lose_nothing(seed: int) -> None:
    """Hypothesis finds short ways; these go deep, with full slots and many attempts."""
    random = Random(seed)
    tokens = [f"t{number}" for number in range(30)]
    world = World()
    world.connect()
    world.hear()
    world.deliver()
    moves = {
        "give": 20,
        "ask_cancel": 7,
        "end": 18,
        "take": 15,
        "hear": 18,
        "deliver": 19,
        "cut": 1,
        "connect": 2,
    }
    for name in random.choices(list(moves), list(moves.values()), k=500):
        match name:
            case "give" | "ask_cancel":
                getattr(world, name)(random.choice(tokens))
            case "end" if world.running:
                world.end(random.choice(sorted(world.running)), random.choice(["complete", "fail", "back"]))
            case "end":
                pass
            case _:
                getattr(world, name)()
        assert max(world.started.values(), default=0) <= 1
        assert set(world.session.running) == world.running
    world.settle()
    assert all(world.results[token] for token in world.finished)
    assert world.session.is_idle, world.session
    assert world.over >= world.given


@given(st.integers(0, 5), st.booleans())
def test_result_is_offered_on_every_stream_until_it_is_recorded(cuts: int, is_failure: bool) -> None:
    """A4."""
    world = World()
    world.connect()
    world.hear()
    world.deliver()
    world.give("a")
    world.deliver()
    world.end("a", "fail" if is_failure else "complete")
    for _ in range(cuts):
        world.take()
        while world.to_server:
            world.hear()
        # The answer is lost.
        world.cut()
        world.connect()
        world.hear()
        world.deliver()
    world.settle()
    assert world.results["a"] == cuts + 1
    assert world.session.is_idle


@given(st.lists(st.one_of(st.builds(assign, st.sampled_from(TOKENS), st.sampled_from("tu")),
                          st.builds(cancel, st.sampled_from(TOKENS)),
                          st.builds(recorded, st.sampled_from(TOKENS), st.sampled_from([1, 2, 3])),
                          st.builds(ping, st.integers(0, 3))), max_size=50))  # fmt: skip
def test_any_frame_is_answered(messages: list[hub.ServerMessage]) -> None:
    """Each ping, assign and cancel is answered, in whatever order they come."""
    session = make_session(slots=2)
    session.connected()
    session.take_frame()
    receive(session, welcome())
    session.receive(hub.AttachResponse(messages=messages))
    answers: Counter[str | None] = Counter()
    while (frame := session.take_frame()) is not None:
        answers.update(message.WhichOneof("message") for message in frame.messages)
    asked = Counter(message.WhichOneof("message") for message in messages)
    assert answers["pong"] == asked["ping"]
    assert answers["cancel_ack"] == asked["cancel"]
    statistics = session.statistics()
    assert answers["reject"] >= statistics.rejected
    assert statistics.assigned + statistics.rejected + statistics.duplicates == asked["assign"]


def test_frames_are_as_large_as_the_server_says() -> None:
    session = WorkerSession(worker_id="w", instance_id="i", types={"t": 0}, slots=10)
    session.connected()
    session.take_frame()
    limits = hub.AttachLimits(frame_bytes_max=64)
    welcome = hub.Welcome(protocol_version=1, limits=limits)
    session.receive(hub.AttachResponse(messages=[hub.ServerMessage(welcome=welcome)]))
    assigns = [hub.ServerMessage(assign=hub.Assign(token=f"token-{n}", type="t")) for n in range(10)]
    session.receive(hub.AttachResponse(messages=assigns))
    for assigned in assigns:
        session.complete(assigned.assign.token, "1")
    sizes: list[int] = []
    while (frame := session.take_frame()) is not None:
        sizes.append(frame.ByteSize())
    assert len(sizes) > 1
    assert max(sizes) <= 64
