"""How to connect: the names that `nats.connect()` uses, checked when given. Durations are seconds."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

from ..errors import UsageError

__all__ = ("DEFAULT_URL", "ConnectOptions", "Options", "server_urls")

DEFAULT_URL = "nats://127.0.0.1:4222"


class ConnectOptions(TypedDict, total=False):
    """Keyword arguments of `connect` and `job_processor`. `Options` has their defaults and meaning."""

    name: str | None
    user: str | None
    password: str | None
    token: str | None
    user_credentials: str | os.PathLike[str] | None
    nkeys_seed: str | os.PathLike[str] | None
    nkeys_seed_str: str | None
    user_jwt_cb: Callable[[], bytes | bytearray] | None
    signature_cb: Callable[[str], bytes] | None
    tls: ssl.SSLContext | None
    tls_hostname: str | None
    tls_handshake_first: bool
    connect_timeout: float
    allow_reconnect: bool
    max_reconnect_attempts: int
    reconnect_time_wait: float
    dont_randomize: bool
    ping_interval: float
    max_outstanding_pings: int
    drain_timeout: float
    pending_size: int
    inbox_prefix: str
    no_echo: bool


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `ConnectOptions` says, with every default filled in."""

    name: str | None = None
    """Shown in the server's list of connections and its log."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    user_credentials: str | os.PathLike[str] | None = None
    """Path of a credentials file (JWT and seed). Read again at each connect."""

    nkeys_seed: str | os.PathLike[str] | None = None
    """Path of a file with an nkey seed. Read again at each connect."""

    nkeys_seed_str: str | None = None
    user_jwt_cb: Callable[[], bytes | bytearray] | None = None
    """Returns the user JWT. Called at each connect; goes with `signature_cb`."""

    signature_cb: Callable[[str], bytes] | None = None
    """Signs the server's nonce; returns the base64 of the signature. Called at each connect."""

    tls: ssl.SSLContext | None = None
    """Giving one means TLS is required. Default: the system's trust store, used when the URL or the server asks."""

    tls_hostname: str | None = None
    """The name that the server's certificate must carry. Default: the host in the URL."""

    tls_handshake_first: bool = False
    """The server expects TLS before it says anything (nats-server 2.10.4 and newer)."""

    connect_timeout: float = 2.0
    """For one server: TCP, TLS and greeting together."""

    allow_reconnect: bool = True
    max_reconnect_attempts: int = -1
    """Failed attempts in a row after which a server is given up; below 0 never, which is right for a worker."""

    reconnect_time_wait: float = 2.0
    """The longest wait between two rounds through all servers. The first round is tried at once; then the wait doubles up to this, with jitter."""

    dont_randomize: bool = False
    ping_interval: float = 10.0
    """Between two keepalive pings on an otherwise silent link."""

    max_outstanding_pings: int = 2
    """Unanswered pings after which the link counts as dead."""

    drain_timeout: float = 5.0
    """For sending what is queued when the connection is left."""

    pending_size: int = 2 * 1024 * 1024
    """Bytes queued for sending above which `publish` waits."""

    inbox_prefix: str = "_INBOX"
    no_echo: bool = False

    @classmethod
    def build(cls, given: ConnectOptions) -> Self:
        """Check names and values.

        Raises:
            UsageError: an unknown name (with the near one), or a value that cannot work.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
                raise UsageError(f"unknown option {name!r}{hint}")

        options = cls(**given)
        options._check()
        return options

    def _check(self) -> None:
        for name in ("connect_timeout", "ping_interval", "drain_timeout"):
            _check_number(name, getattr(self, name), above=0)

        _check_number("reconnect_time_wait", self.reconnect_time_wait, least=0)
        _check_number("max_outstanding_pings", self.max_outstanding_pings, least=1)
        _check_number("pending_size", self.pending_size, least=1)
        if self.password is not None and self.user is None:
            raise UsageError("password without user: give both")

        if (
            not self.inbox_prefix
            or self.inbox_prefix.endswith(".")
            or any(mark in self.inbox_prefix for mark in "*> \t")
        ):
            raise UsageError(
                f"inbox_prefix {self.inbox_prefix!r}: a subject without wildcards, blanks or a final dot"
            )

        kinds = {
            "user": self.user,
            "token": self.token,
            "user_credentials": self.user_credentials,
            "nkeys_seed": self.nkeys_seed,
            "nkeys_seed_str": self.nkeys_seed_str,
        }
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} together: a connection authenticates in one way")

        if self.user_jwt_cb is not None and self.signature_cb is None:
            raise UsageError(
                "user_jwt_cb without signature_cb: the server asks for a signed nonce with a JWT"
            )


def server_urls(servers: str | Sequence[str] | None) -> list[str]:
    """Return the URLs to try: those given, else `$NATS_URL` (commas separate several), else the local default.

    Raises:
        UsageError: an empty list or something that is no text.
    """
    if servers is None:
        servers = os.environ.get("NATS_URL") or DEFAULT_URL

    urls = [url.strip() for url in servers.split(",")] if isinstance(servers, str) else list(servers)
    if not urls or not all(isinstance(url, str) and url for url in urls):
        raise UsageError(f"servers={servers!r}: give a URL such as {DEFAULT_URL}, or a list of them")

    return urls


def _check_number(name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (value > above and least <= value < math.inf)
    ):
        bound = f"above {above:g}" if above > -math.inf else f"{least:g} or more"
        raise UsageError(f"{name}={value!r}: a finite number {bound} is needed")
