"""The server's configuration: its options, as `configuration/options` reads them from this dataclass.

No option holds a secret: secrets stand in files that options name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

from plait_server.configuration.options import ForAll, Range
from plait_server.core.limit_values import (
    CONCURRENCY_MAX,
    RATE_MAX,
    RATE_MIN,
    SERVER,
    LimitKind,
    LimitName,
    LimitValue,
)
from plait_server.core.limits import DURATION_S_MAX
from plait_server.core.namespace_settings import (
    QUEUE_MAX_MAX,
    RUNNING_MAX_MAX,
    WEIGHT_MAX,
    NamespaceSettings,
    QueueOrder,
)
from plait_server.errors import InsecureAddress, InvalidAddress, InvalidTlsFiles

MEMORY_STORE = ":memory:"
DEFAULT_STORE = "plait.db"
PORT_MAX = 65_535
SERVER_LIMIT: Final = 1_000

OTHER_VARIABLES: Final = (
    # Of the command line and the clients.
    "PLAIT_CONFIG",
    "PLAIT_DEBUG",
    "PLAIT_NAMESPACE",
    "PLAIT_SERVER",
    "PLAIT_TLS_CA",
    "PLAIT_TOKEN",
    "PLAIT_TOKEN_FILE",
    # Of the repository's scripts and tests.
    "PLAIT_BENCH",
    "PLAIT_BENCH_SLOTS",
    "PLAIT_REWRITE",
    "PLAIT_VENV",
)
"""Variables that begin with `PLAIT_` and are no options of the server."""

LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
QueueOrderName: TypeAlias = Literal["FIFO", "LIFO", "PRIORITY"]
LogFormat: TypeAlias = Literal["auto", "console", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeOptions:
    """The limits of a node type."""

    max_concurrency: Annotated[int | None, Range(1, CONCURRENCY_MAX)] = None
    """Attempts at once."""
    rate: Annotated[float | None, Range(RATE_MIN, RATE_MAX)] = None
    """Starts a second."""
    burst: Annotated[int, Range(0, CONCURRENCY_MAX)] = 0
    """The starts that may come at once after a pause; 0 for those of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceOptions:
    """The settings of a namespace."""

    max_concurrency: Annotated[int | None, Range(1, CONCURRENCY_MAX)] = None
    """Attempts at once, over all executions of the namespace; any number if nothing is given."""
    running_max: Annotated[int | None, Range(1, RUNNING_MAX_MAX)] = None
    """Executions that run at once; 1,000 if nothing is given."""
    queue_max: Annotated[int | None, Range(0, QUEUE_MAX_MAX)] = None
    """Executions that wait to begin; 100,000 if nothing is given."""
    order: QueueOrderName | None = None
    """Which of those that wait begins first; FIFO if nothing is given."""
    queue_timeout_s: Annotated[float | None, Range(0, DURATION_S_MAX)] = None
    """Seconds from the submission in which an execution has to begin; 0, or nothing, is no limit."""
    weight: Annotated[int | None, Range(1, WEIGHT_MAX)] = None
    """The share of the turns in which namespaces get permits; 1 if nothing is given."""
    retention_s: Annotated[float | None, Range(1, DURATION_S_MAX)] = None
    """Seconds for which an ended execution is kept; 7 days if nothing is given."""

    @property
    def settings(self) -> NamespaceSettings:
        """The settings as values of the core."""
        return NamespaceSettings(
            running_max=self.running_max,
            queue_max=self.queue_max,
            order=QueueOrder[self.order] if self.order is not None else None,
            queue_timeout_s=self.queue_timeout_s,
            weight=self.weight,
            retention_s=self.retention_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server runs."""

    listen: str = "127.0.0.1:7480"
    """The address to listen on, HOST:PORT; port 0 selects a free one."""
    store: str = DEFAULT_STORE
    """Path of the SQLite store, or `:memory:`, whose data is lost at the end."""
    create: bool = False
    """Create the store if it does not exist. Only the default store is always created: a mistyped path, or a disk that
    is not mounted, must not look like a new and empty store.
    """
    insecure: bool = False
    """Allows an address that other machines can reach, without TLS and authentication."""
    tls_cert: str = ""
    """Path of the server's certificate, in PEM form, with those between it and its root; empty: plain text."""
    tls_key: str = ""
    """Path of the certificate's key, in PEM form, not encrypted."""
    tls_client_ca: str = ""
    """Path of the CAs of clients' certificates, in PEM form; if given, every client must have one. What the holder of a
    certificate may do stands in the tokens file.
    """
    tokens_file: str = ""
    """Path of the tokens file, which `plait token` writes; empty: whoever reaches the server may do everything."""
    server_limit: Annotated[int, Range(1, CONCURRENCY_MAX)] = SERVER_LIMIT
    """Attempts at once, over all executions."""
    types: Mapping[str, TypeOptions] = field(default_factory=dict[str, TypeOptions])
    """The limits of a node type."""
    namespaces: Annotated[Mapping[str, NamespaceOptions], ForAll()] = field(
        default_factory=dict[str, NamespaceOptions]
    )
    """The settings of a namespace, or of all with the name `*`, which those of single namespaces win over."""
    ping_s: Annotated[float, Range(0.1, 3_600)] = 5.0
    """Seconds between pings to workers; a lease is three of them."""
    grace_s: Annotated[float, Range(0, 86_400)] = 10.0
    """Seconds that a cancelled handler may take to end."""
    stop_delay_s: Annotated[float, Range(0, 3_600)] = 0.0
    """Seconds for which a server that was told to stop serves calls, while its health is NOT_SERVING and new executions
    are refused: what a load balancer needs to notice.
    """
    log_level: LogLevel = "INFO"
    """The least severe level of what is logged to stderr."""
    log_format: LogFormat = "auto"
    """The format of the log: lines for people or JSON; `auto` is the console on a terminal and JSON elsewhere."""

    @property
    def namespace_settings(self) -> Mapping[str, NamespaceSettings]:
        """The settings by namespace; those of all by the name `*`."""
        return {name: options.settings for name, options in self.namespaces.items()}

    @property
    def limits(self) -> Mapping[LimitName, LimitValue]:
        """The limits by name; that of each namespace which has none of its own by the name `*`."""
        limits = {
            LimitName(LimitKind.NAMESPACE, name, ""): LimitValue(max_concurrency=options.max_concurrency)
            for name, options in self.namespaces.items()
        }
        for name, each in self.types.items():
            value = LimitValue(max_concurrency=each.max_concurrency, rate=each.rate, burst=each.burst)
            limits[LimitName(LimitKind.TYPE, "", name)] = value
        limits = {name: value for name, value in limits.items() if value.binds}
        if self.server_limit != SERVER_LIMIT:
            limits[SERVER] = LimitValue(max_concurrency=self.server_limit)
        return limits

    @property
    def is_protected(self) -> bool:
        """Whether calls are encrypted, and their callers authenticated."""
        return bool(self.tls_cert and self.tokens_file)

    @property
    def may_create(self) -> bool:
        """Whether a store that is not there is created: only a named one has to be there."""
        return self.create or self.store in {DEFAULT_STORE, MEMORY_STORE}

    def check_address(self) -> None:
        """Refuse an invalid address, and one that other machines can reach without protection.

        Raises:
            InvalidAddress: The address is not HOST:PORT with a port of 0 to 65,535.
            InsecureAddress: Other machines can reach the address, TLS or authentication is off, and so is `insecure`.
        """
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
            text = (
                f"{self.listen!r} is no address; give HOST:PORT with a port of 0 (any free one) to {PORT_MAX}"
            )
            raise InvalidAddress(text)
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            text = f"{self.listen!r} is no address; write an IPv6 address in brackets, as in [::1]:{port}"
            raise InvalidAddress(text)
        if not self.insecure and not self.is_protected and not self.is_local:
            lacking = [
                *([] if self.tls_cert else ["TLS (--tls-cert and --tls-key)"]),
                *([] if self.tokens_file else ["authentication (--tokens-file)"]),
            ]
            text = (
                f"{self.listen} can be reached from other machines, and the server lacks {' and '.join(lacking)}; "
                "set that up, listen on 127.0.0.1, or pass --insecure on a private network"
            )
            raise InsecureAddress(text)

    def check_tls(self) -> None:
        """Refuse a file of TLS that is named without another that it needs.

        Raises:
            InvalidTlsFiles: There is one.
        """
        if bool(self.tls_cert) != bool(self.tls_key):
            lacking = "--tls-key" if self.tls_cert else "--tls-cert"
            raise InvalidTlsFiles(f"a certificate and its key belong together; give {lacking} as well")
        if self.tls_client_ca and not self.tls_cert:
            raise InvalidTlsFiles("--tls-client-ca needs TLS; give --tls-cert and --tls-key as well")
        if self.tls_client_ca and not self.tokens_file:
            raise InvalidTlsFiles(
                "--tls-client-ca needs --tokens-file, which says what the holder of a certificate may do; "
                "`plait token create --certificate NAME` writes it"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address; decided by what it resolves to, not by its spelling."""
        host = self.listen.rpartition(":")[0].strip("[]")
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return False  # Unresolved: anyone might reach it.
        return all(_is_loopback(str(address[0])) for *_, address in found)


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    # An IPv4-mapped address, such as ::ffff:127.0.0.1, is judged as the IPv4 address.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
