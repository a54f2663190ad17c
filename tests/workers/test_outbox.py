"""Tests of how messages are put into frames."""

from decimal import Decimal

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import messages
from plait_worker.limits import LOG_LINES_QUEUED_MAX
from plait_worker.outbox import Outbox
from tests.workers.session_driver import assign, attached, cancel, kinds, ping, receive, said

KIB = 1024


def frames(outbox: Outbox, bytes_max: int) -> list[list[str | None]]:
    taken: list[list[str | None]] = []
    while messages_taken := outbox.take(bytes_max):
        frame = hub.AttachRequest(messages=messages_taken)
        assert frame.ByteSize() <= bytes_max or len(messages_taken) == 1
        taken.append([message.WhichOneof("message") for message in messages_taken])
    return taken


def test_control_stands_first_and_logs_before_the_result() -> None:
    session = attached()
    receive(session, assign("a"), assign("b"))
    session.log("a", "INFO", "line")
    session.progress("a", 0.5)
    session.heartbeat("a")
    session.usage("b", "tokens", 1)
    session.complete("a", "1")
    receive(session, cancel("b"), ping(1))
    assert kinds(session) == [
        *("cancel_ack", "pong"),
        *("heartbeat", "usage", "progress", "log"),
        "complete",
    ]


def test_results_go_before_logs_where_not_everything_fits() -> None:
    outbox = Outbox()
    outbox.add_log(messages.log("a", "INFO", "x" * KIB, 0))
    outbox.add_result(messages.complete("a", '"' + "y" * KIB + '"', {}))
    outbox.add_control(messages.pong(1))
    assert frames(outbox, 1500) == [["pong", "complete"], ["log"]]


def test_larger_message_travels_alone_and_is_not_put_off_for_ever() -> None:
    outbox = Outbox()
    outbox.add_result(messages.complete("large", '"' + "x" * 2000 + '"', {}))
    outbox.add_log(messages.log("a", "INFO", "small, and waits with it", 0))
    taken: list[list[str | None]] = []
    for number in range(3):
        outbox.add_control(messages.pong(number))
        taken.append([message.WhichOneof("message") for message in outbox.take(1000)])
    assert taken == [["pong"], ["complete"], ["pong", "pong", "log"]]


def test_messages_that_fill_a_frame_to_the_byte_go_together() -> None:
    outbox = Outbox()
    for number in (1, 2):
        outbox.add_control(messages.pong(number))
    # A tag of one byte and a length of up to four are reckoned for each.
    assert frames(outbox, 2 * (messages.pong(1).ByteSize() + 5)) == [["pong", "pong"]]


def test_frames_keep_within_their_size() -> None:
    outbox = Outbox()
    for number in range(50):
        token = f"{number:03}"
        outbox.add_control(messages.cancel_ack(token))
        outbox.set_heartbeat(token, messages.heartbeat(token, '"alive"'))
        outbox.set_progress(token, messages.progress(token, 0.5, "half"))
        outbox.add_log(messages.log(token, "INFO", "x" * number, 1))
        outbox.add_result(messages.complete(token, f'"{"y" * number}"', {}))
        for unit in ("tokens", "dollars"):
            outbox.add_usage(token, unit, Decimal(1))
    count = len(outbox)
    taken = frames(outbox, 200)
    # Usage counts once an attempt, and has two units in each.
    assert sum(len(frame) for frame in taken) == count + 50
    assert len(outbox) == 0


def test_newest_progress_and_heartbeat_are_kept() -> None:
    session = attached()
    receive(session, assign("a"))
    said(session)
    for percent in range(101):
        session.progress("a", percent / 100)
        session.heartbeat("a", str(percent))
    heartbeat, progress = said(session)
    assert (heartbeat.heartbeat.details.json, progress.progress.fraction) == ("100", 1.0)


def test_oldest_log_lines_are_dropped_and_counted() -> None:
    session = attached()
    receive(session, assign("a"))
    said(session)
    for number in range(LOG_LINES_QUEUED_MAX + 3):
        session.log("a", "INFO", str(number))
    assert session.statistics().logs_dropped == 3
    lines = [message.log.message for message in said(session)]
    assert (len(lines), lines[0], lines[-1]) == (LOG_LINES_QUEUED_MAX, "3", str(LOG_LINES_QUEUED_MAX + 2))


def test_everything_queued_goes_out_together() -> None:
    session = attached(slots=1000)
    receive(session, *(assign(str(number)) for number in range(1000)))
    for number in range(1000):
        session.complete(str(number), "1")
    frame = session.take_frame()
    assert frame is not None
    assert len(frame.messages) == 1000
    assert session.take_frame() is None
