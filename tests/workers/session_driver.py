"""Pure calls to a session: a welcomed one, frames from messages, and what it said by kind."""

from typing import cast

from plait.v1 import payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.session import WorkerSession
from plait_worker.session_events import SessionEvent


def make_session(*, types: dict[str, int] | None = None, slots: int = 8) -> WorkerSession:
    return WorkerSession(worker_id="w", instance_id="i", types=types or {"t": 0}, slots=slots)


def attach(session: WorkerSession) -> hub.Hello:
    """Begin a stream up to `welcome`; return the hello."""
    session.connected()
    frame = session.take_frame()
    assert frame is not None
    assert len(frame.messages) == 1
    receive(session, welcome())
    return frame.messages[0].hello


def attached(*, types: dict[str, int] | None = None, slots: int = 8) -> WorkerSession:
    session = make_session(types=types, slots=slots)
    attach(session)
    return session


def receive(session: WorkerSession, *messages: hub.ServerMessage) -> list[SessionEvent]:
    return session.receive(hub.AttachResponse(messages=messages))


def said(session: WorkerSession) -> list[hub.WorkerMessage]:
    """Take everything that waits."""
    messages: list[hub.WorkerMessage] = []
    while (frame := session.take_frame()) is not None:
        messages.extend(frame.messages)
    return messages


def kinds(session: WorkerSession) -> list[str | None]:
    return [message.WhichOneof("message") for message in said(session)]


def welcome(protocol_version: int = 1) -> hub.ServerMessage:
    return hub.ServerMessage(
        welcome=hub.Welcome(protocol_version=protocol_version, server_version="1", server_instance_id="s")
    )


def assign(token: str, type_: str = "t") -> hub.ServerMessage:
    payload = payload_pb2.Payload(json="null")
    return hub.ServerMessage(assign=hub.Assign(token=token, type=type_, input=payload, attempt=1, run=1))


def cancel(token: str, reason: str = "CANCELLED") -> hub.ServerMessage:
    return hub.ServerMessage(cancel=hub.Cancel(token=token, reason=f"CANCEL_REASON_{reason}"))


def recorded(token: str, result: int = 1) -> hub.ServerMessage:
    """Acknowledge a result: 1 RECORDED, 2 ALREADY_RECORDED, 3 STALE."""
    value = cast("hub.RecordedResult", result)
    return hub.ServerMessage(recorded=hub.Recorded(token=token, result=value))


def ping(number: int) -> hub.ServerMessage:
    return hub.ServerMessage(ping=hub.Ping(number=number))
