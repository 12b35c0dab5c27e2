"""How to connect: the names that `nats.connect()` uses, checked when given. Durations are seconds."""

from __future__ import annotations

import functools
import os
import ssl
from collections import UserString
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias, TypedDict

from ..errors import UsageError
from ._option_rules import check_names, check_values

__all__ = ("DEFAULT_URL", "ConnectOptions", "Credentials", "Options", "server_urls")

DEFAULT_URL = "nats://127.0.0.1:4222"

StrPath: TypeAlias = str | os.PathLike[str]
Secret: TypeAlias = str | Callable[[], str]
Credentials: TypeAlias = StrPath | UserString | tuple[StrPath, StrPath]


class ConnectOptions(TypedDict, total=False):
    """Keyword arguments of `connect` and `job_processor`. `Options` has their defaults and meaning."""

    name: str | None
    user: Secret | None
    password: Secret | None
    token: Secret | None
    user_credentials: Credentials | None
    nkeys_seed: StrPath | None
    nkeys_seed_str: str | None
    user_jwt_cb: Callable[[], str | bytes | bytearray] | None
    signature_cb: Callable[[str], str | bytes | bytearray] | None
    tls: ssl.SSLContext | None
    tls_hostname: str | None
    tls_handshake_first: bool
    allow_plain_discovered: bool
    ws_connection_headers: Mapping[str, Sequence[str]] | None
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
    """What `ConnectOptions` says, with every default filled in. Its repr shows no secret.

    Functions are called, and files read, at each connect and reconnect, in the event loop: they must
    return at once.
    """

    name: str | None = None
    """Shown in the server's list of connections and its log."""

    user: Secret | None = field(default=None, repr=False)
    password: Secret | None = field(default=None, repr=False)
    token: Secret | None = field(default=None, repr=False)
    """Like `user` and `password`, the text or a function that returns it. What stands in the URL wins."""

    user_credentials: Credentials | None = field(default=None, repr=False)
    """Path of a credentials file (JWT and seed), or a pair of paths of a JWT file and a seed file, or a
    `UserString` with the text of a credentials file (nats-py's `RawCredentials` is one)."""

    nkeys_seed: StrPath | None = field(default=None, repr=False)
    """Path of a file with an nkey seed."""

    nkeys_seed_str: str | None = field(default=None, repr=False)
    user_jwt_cb: Callable[[], str | bytes | bytearray] | None = None
    """Returns the user JWT. Goes with `signature_cb`."""

    signature_cb: Callable[[str], str | bytes | bytearray] | None = None
    """Is given the server's nonce; returns the base64 of its signature. Goes with `user_jwt_cb`."""

    tls: ssl.SSLContext | None = None
    """Giving one means that TLS is required. Default: the system's trust store, used when the URL or the server asks.
    A client certificate is part of the context: `context.load_cert_chain(…)`."""

    tls_hostname: str | None = None
    """The name that the server's certificate must carry; giving one means that TLS is required. Default: the host in the URL."""

    tls_handshake_first: bool = False
    """TLS before the server says anything, as its `handshake_first` asks for (nats-server 2.10.4 and newer)."""

    allow_plain_discovered: bool = False
    """Whether a server that the cluster names may be connected to without TLS, though the one that named it speaks TLS.
    It would be given the same credentials, in plain text."""

    ws_connection_headers: Mapping[str, Sequence[str]] | None = field(default=None, repr=False)
    """More HTTP headers for the handshake of ws:// and wss://, each name with its values, say for a proxy."""

    connect_timeout: float = 2.0
    """For one server: TCP, TLS and greeting together."""

    allow_reconnect: bool = True
    max_reconnect_attempts: int = -1
    """Failed attempts in a row after which a server is given up; below 0 never, which is right for a worker."""

    reconnect_time_wait: float = 2.0
    """The longest wait between two rounds through all servers. The first round is tried at once; then the wait doubles up to this, with jitter."""

    dont_randomize: bool = False
    """Try the servers in the order they were given in."""

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
    """Messages that this connection publishes are not delivered to its own subscriptions."""

    @classmethod
    def build(cls, given: ConnectOptions) -> Self:
        """Check names and values.

        Raises:
            UsageError: an unknown name (with the near one), a name that only `nats.connect()` has (with what
                to use instead), or a value that cannot work.
        """
        check_names(given, cls.__dataclass_fields__)
        options = cls(**given)
        check_values({name: getattr(options, name) for name in cls.__dataclass_fields__})
        return options

    @functools.cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """The one given, or one with the system's trust store. Reading that blocks for some ten milliseconds, once."""
        return self.tls or ssl.create_default_context()


def server_urls(servers: str | Sequence[str] | None) -> list[str]:
    """Return the URLs to try: those given, else `$NATS_URL` (commas separate several), else the local default.

    Raises:
        UsageError: an empty list or something that is not a text.
    """
    if servers is None:
        servers = os.environ.get("NATS_URL") or DEFAULT_URL

    if isinstance(servers, str):
        servers = servers.split(",")
    elif not isinstance(servers, Sequence):
        raise UsageError(
            f"servers is a {type(servers).__name__}: give a URL such as {DEFAULT_URL}, or a list of them"
        )

    # What was given is not shown: there may be a password in it.
    given: list[object] = list(servers)
    urls = [url.strip() for url in given if isinstance(url, str)]
    if not urls or len(urls) < len(given) or not all(urls):
        raise UsageError(
            f"servers has an empty or missing URL: give one such as {DEFAULT_URL}, or a list of them"
        )

    return urls
