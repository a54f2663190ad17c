"""LimitService: shows limits and who holds them, sets and removes them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from typing import Final

import trio

from plait.v1 import limit_service_pb2
from plait_server.api.audit import Actions
from plait_server.api.call import Call
from plait_server.api.checks import Checks, request_record
from plait_server.api.pages import ANSWER_BYTES_MAX, PageTokens, fill
from plait_server.core.limit_values import (
    NAME_CHARS_MAX,
    LimitKind,
    LimitName,
    LimitValue,
    problems_of,
)
from plait_server.encoding.event_codec import timestamp
from plait_server.encoding.limit_codec import (
    SETTING_PREFIX,
    limit_from_bytes,
    limit_to_bytes,
    limit_to_proto,
    setting_name,
    value_of,
)
from plait_server.errors import LimitNotFound, Overloaded
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import Journal, RequestConflict, RequestRecord, SettingsFull, SettingWritten
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.intake import check_fingerprint, find_request
from plait_server.runtime.limit_registry import LimitRegistry

HOLDERS_MAX: Final = 100
"""Holders that are shown of each limit."""
_KINDS: Final = "LIMIT_KIND_SERVER (1), LIMIT_KIND_NAMESPACE (2), LIMIT_KIND_TYPE (3) or LIMIT_KIND_KEY (4)"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

Pb = limit_service_pb2


class LimitServicer:
    """Serves LimitService.

    Args:
        registry: The limits in force.
        allocator: Knows who uses them.
        journal: Keeps those that are set.
        tokens: Makes page tokens.
        actions: Makes the records of who did what.
        now_s: The wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        registry: LimitRegistry,
        allocator: Allocator,
        journal: Journal,
        tokens: PageTokens,
        actions: Actions,
        now_s: Callable[[], float],
    ) -> None:
        self.registry = registry
        self._allocator = allocator
        self._journal = journal
        self._tokens = tokens
        self._actions = actions
        self._now_s = now_s
        self._writing = trio.Lock()
        self._is_uncertain = False
        """Whether the store may hold a limit that is not in force; also true while one is written."""

    async def list_limits(self, request: Pb.ListLimitsRequest, call: Call) -> Pb.ListLimitsResponse:
        """List limits by kind, namespace and name."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace) if request.namespace else ""
        if request.kind not in (0, *LimitKind):
            checks.add("kind", f"must be {_KINDS}, or 0 for all kinds")
        size = checks.page_size(request.page_size)
        checks.finish()
        if self._is_uncertain:
            async with self._writing:
                await self._catch_up()
        of_list = "ListLimits", namespace, str(int(request.kind))
        position = self._tokens.read(request.page_token, *of_list)
        after = _read_position(position) if position is not None else None
        names = {
            name
            for name in self.registry.names()
            if (after is None or name > after)
            and request.kind in (0, name.kind)
            and (not namespace or name.namespace in {"", namespace})
        }
        # One more shows whether that is all.
        page = heapq.nsmallest(size + 1, names)
        limits = fill((self._describe(name, namespace) for name in page[:size]), ANSWER_BYTES_MAX)
        response = Pb.ListLimitsResponse(limits=limits)
        if len(limits) < len(page):
            kind, *rest = page[len(limits) - 1]
            response.next_page_token = self._tokens.make("/".join((str(int(kind)), *rest)), *of_list)
        return response

    async def set_limit(self, request: Pb.SetLimitRequest, call: Call) -> Pb.SetLimitResponse:
        """Set a limit as a whole."""
        checks = Checks()
        name = _read_name(request, checks)
        value = value_of(request)
        for field, problem in problems_of(name, value) if name is not None else ():
            checks.add(field, problem)
        checks.request_id(request.request_id)
        checks.finish()
        assert name is not None  # or there was a problem
        record = request_record("SetLimit", request.request_id, request, "")
        limits = {"max_concurrency": value.max_concurrency, "rate": value.rate, "burst": value.burst or None}
        detail = {field: f"{number:g}" for field, number in limits.items() if number is not None}
        await self._write(
            name, value, self._actions.accepted(call, target=_shown(name), detail=detail), record
        )
        if self.registry.find(name) is None:
            # The first call with this request id did it, and it was removed since.
            return Pb.SetLimitResponse(limit=limit_to_proto(name, value))
        return Pb.SetLimitResponse(limit=self._describe(name, name.namespace))

    async def remove_limit(self, request: Pb.RemoveLimitRequest, call: Call) -> Pb.RemoveLimitResponse:
        """Remove a limit that a call has set."""
        checks = Checks()
        name = _read_name(request, checks)
        checks.request_id(request.request_id)
        checks.finish()
        assert name is not None  # or there was a problem
        record = request_record("RemoveLimit", request.request_id, request, "")
        await self._write(name, None, self._actions.accepted(call, target=_shown(name)), record)
        if self.registry.find(name) is None:
            return Pb.RemoveLimitResponse()
        return Pb.RemoveLimitResponse(limit=self._describe(name, name.namespace))

    async def _write(
        self, name: LimitName, value: LimitValue | None, action: ActionRecord, record: RequestRecord | None
    ) -> None:
        """Write a limit, or that it was removed, and put it into force.

        Raises:
            LimitNotFound: There is no limit to remove.
            RequestIdReused: The request id was used with other content.
            Overloaded: The store holds as many settings as it may.
        """
        # One at a time, so that limits come into force in the order in which they are written. What is durable comes
        # into force even if the caller is gone.
        async with self._writing:
            with trio.CancelScope(shield=True):
                await self._catch_up()
                if record is not None:
                    known = await find_request(self._journal.namespace(name.namespace), record)
                    if known is not None:
                        return
                if value is None and not self.registry.is_set(name):
                    raise LimitNotFound(limit=_shown(name))
                content = limit_to_bytes(name, value) if value is not None else None
                # A store that fails may have written it.
                self._is_uncertain = True
                result = await self._journal.write_setting(
                    name.namespace, setting_name(name), content, action, record
                )
                self._is_uncertain = False
                match result:
                    case SettingWritten():
                        self.registry.set(name, value)
                    case RequestConflict(record=other):
                        check_fingerprint(other, record)
                    case SettingsFull():
                        message = (
                            "the store holds as many settings as it may; remove limits that are not needed"
                        )
                        raise Overloaded(message)

    async def _catch_up(self) -> None:
        """Put into force what is durable, if that is uncertain since a store failed. The caller holds the lock."""
        if not self._is_uncertain:
            return
        found = dict(
            limit_from_bytes(content)
            for (_, name), content in (await self._journal.read_settings()).items()
            if name.startswith(SETTING_PREFIX)
        )
        self.registry.set_all(found)
        self._is_uncertain = False

    def _describe(self, name: LimitName, namespace: str) -> Pb.Limit:
        """Show a limit with the holders in a namespace, or in all if that is empty."""
        found = self.registry.find(name)
        assert found is not None  # the registry named it
        value, source = found
        message = limit_to_proto(name, value)
        if value.rate is not None:
            message.burst = value.burst_max
        message.source = int(source)  # type: ignore[assignment] # the core's numbers are the contract's
        use = self._allocator.use_of(name, namespace=namespace, most=HOLDERS_MAX)
        message.in_use, message.waiting = use.in_use, use.waiting
        now_s, trio_now_s = self._now_s(), trio.current_time()
        for grant in use.holders:
            message.holders.add(
                namespace=grant.namespace,
                execution_id=grant.execution_id,
                node_path=grant.node_path,
                attempt=grant.attempt,
                start_time=timestamp(now_s - (trio_now_s - grant.since_s)),
            )
        return message


def _read_name(request: Pb.SetLimitRequest | Pb.RemoveLimitRequest, checks: Checks) -> LimitName | None:
    """Read the name of a limit; None if its kind is none."""
    try:
        kind = LimitKind(request.kind)
    except ValueError:
        checks.add("kind", f"must be {_KINDS}")
        return None
    name = LimitName(kind, request.namespace, request.name)
    is_servers = name.kind is LimitKind.SERVER
    if is_servers and name.namespace:
        checks.add("namespace", "must be empty: the server has one limit, for all namespaces")
    elif name.namespace:
        checks.namespace(name.namespace)
    elif name.kind in {LimitKind.NAMESPACE, LimitKind.KEY}:
        checks.add("namespace", "is missing: name the one that the limit is for, such as `default`")
    if is_servers or name.kind is LimitKind.NAMESPACE:
        if name.name:
            checks.add("name", "must be empty: only the limits of node types and keys have names")
    elif name.kind is LimitKind.TYPE:
        checks.node_type("name", name.name)
    elif not 1 <= len(name.name) <= NAME_CHARS_MAX or _CONTROL.search(name.name):
        checks.add(
            "name", f"must be a concurrency key of 1 to {NAME_CHARS_MAX} characters, none a control character"
        )
    return name


def _read_position(position: str) -> LimitName:
    kind, namespace, name = position.split("/", 2)
    return LimitName(LimitKind(int(kind)), namespace, name)


def _shown(name: LimitName) -> str:
    """Return the name of a limit as messages and audits show it."""
    parts = name.kind.name, name.namespace if name.kind is not LimitKind.SERVER else "", name.name
    return " ".join(part for part in parts if part)
