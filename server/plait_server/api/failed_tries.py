"""Bounds on refusals: how often each peer may fail to authenticate, and how many refusals are recorded.

Both are token buckets. The rate, not the secrecy of tokens, is what they protect: 256 random bits cannot be guessed,
but every refusal is work, and a line in the log and the audit. So a caller whose credentials are good is never
refused for what others at the same address did.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

BURST: Final = 20
"""Refusals of one peer in a row that are answered as what they are."""
RATE: Final = 0.1
"""Further ones a second."""
PEERS_MAX: Final = 10_000
"""The peers that are remembered, some 200 bytes each; the least recent one is forgotten first."""
_IPV6_PREFIX: Final = 64
"""The bits of an IPv6 address that one host cannot choose."""


@dataclass(slots=True)
class _Bucket:
    left: float
    time_s: float


class Allowance:
    """A token bucket for each of many keys.

    Args:
        now_s: Returns the monotonic time.
        burst: Tokens in a full bucket.
        rate: Tokens that come back a second.
    """

    def __init__(self, now_s: Callable[[], float], *, burst: float = BURST, rate: float = RATE) -> None:
        self._now_s = now_s
        self._burst = burst
        self._rate = rate
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Allowance of {self._burst:g}, {self._rate:g}/s, for {len(self._buckets)} keys>"

    def take(self, key: str) -> bool:
        """Take a token out of a key's bucket; return whether there was one."""
        now_s = self._now_s()
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now_s)
        bucket.left = min(self._burst, bucket.left + (now_s - bucket.time_s) * self._rate)
        bucket.time_s = now_s
        self._buckets[key] = bucket
        if len(self._buckets) > PEERS_MAX:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


def host_of(peer: str) -> str:
    """Return what identifies the host of a peer such as `ipv4:10.0.0.1:4711`; of IPv6 its network of 64 bits."""
    kind, _, address = urllib.parse.unquote(peer).partition(":")
    if kind == "ipv4":
        return address.rpartition(":")[0]
    if kind == "ipv6":
        host = address.rpartition(":")[0].strip("[]").partition("%")[0]
        try:
            return str(ipaddress.IPv6Network(f"{host}/{_IPV6_PREFIX}", strict=False))
        except ValueError:
            return host
    return kind
