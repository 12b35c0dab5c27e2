"""Which options there are and which values they take; says what to do about the rest."""

from __future__ import annotations

import difflib
import math
import os
import re
import ssl
from collections import UserString
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..errors import UsageError

__all__ = ("check_names", "check_values")

_EVENTS = "use `async with processor.events()` or on_event=; wire.connect has listener="
_NOT_HERE = {
    "servers": "it is the first argument",
    "error_cb": _EVENTS,
    "disconnected_cb": _EVENTS,
    "reconnected_cb": _EVENTS,
    "closed_cb": "code after the `async with` runs when the connection is closed",
    "discovered_server_cb": "discovered servers are used, and nothing has to be done about them",
    "lame_duck_mode_cb": "the connection moves to another server by itself; " + _EVENTS,
    "reconnect_to_server_handler": "the order of servers is that of the URLs with dont_randomize=True",
    "verbose": "requests and flush() confirm what the server has taken",
    "pedantic": "subjects are checked here before anything is sent",
    "skip_subject_validation": "subjects are always checked: it costs little and keeps the protocol whole",
    "flusher_queue_size": "pending_size bounds what is queued for sending",
    "flush_timeout": "flush(timeout) takes it for each call",
    "loop": "the connection lives in the event loop that entered it",
    "io_loop": "the connection lives in the event loop that entered it",
}

_TEXT: tuple[type, ...] = (str,)
_PATH: tuple[type, ...] = (str, os.PathLike)
_FUNCTION: tuple[Any, ...] = (Callable,)
_KINDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "name": (_TEXT, "a text"),
    "user": (_TEXT + _FUNCTION, "a text, or a function that returns one"),
    "password": (_TEXT + _FUNCTION, "a text, or a function that returns one"),
    "token": (_TEXT + _FUNCTION, "a text, or a function that returns one"),
    "user_credentials": ((*_PATH, UserString, tuple), "the path of a credentials file"),
    "nkeys_seed": (_PATH, "the path of a file with an nkey seed"),
    "nkeys_seed_str": (_TEXT, "an nkey seed (SU…)"),
    "user_jwt_cb": (_FUNCTION, "a function that returns the JWT"),
    "signature_cb": (_FUNCTION, "a function that signs a nonce"),
    "tls": ((ssl.SSLContext,), "an ssl.SSLContext; for the system's trust store write tls:// in the URL"),
    "tls_hostname": (_TEXT, "a host name"),
    "ws_connection_headers": ((Mapping,), "a mapping of header names to lists of values"),
    "inbox_prefix": (_TEXT, "a subject"),
    "tls_handshake_first": ((bool,), "True or False"),
    "allow_plain_discovered": ((bool,), "True or False"),
    "allow_reconnect": ((bool,), "True or False"),
    "dont_randomize": ((bool,), "True or False"),
    "no_echo": ((bool,), "True or False"),
}
_MAY_BE_EMPTY = ("name", "password")
# Several ways at once would hide which one the server refused. A JWT may go with user or token: an auth
# callout at the server looks at both.
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_PLAIN = ("user", "token")
_JWT = ("user_credentials", "user_jwt_cb")
_NKEY = ("nkeys_seed", "nkeys_seed_str")


def check_names(given: Mapping[str, object], known: Collection[str]) -> None:
    """Refuse a name that is not `known`, with the nearest one or with what does its work here."""
    for name in given:
        if name in known:
            continue

        if name in _NOT_HERE:
            raise UsageError(f"there is no option {name!r} here: {_NOT_HERE[name]}")

        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; the known ones are: {', '.join(known)}"
        raise UsageError(f"unknown option {name!r}{hint}")


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse values that cannot work, alone or together. Secrets are not shown."""
    for name, (kinds, wanted) in _KINDS.items():
        value = values[name]
        if value is not None and not isinstance(value, kinds):
            raise UsageError(f"{name} is a {type(value).__name__}: give {wanted}")

        if value == "" and name not in _MAY_BE_EMPTY:
            raise UsageError(f"{name} is empty: give {wanted}, or leave it out")

    _check_numbers(values)
    _check_ways_to_authenticate(values)
    _check_inbox_prefix(values["inbox_prefix"])
    _check_headers(values["ws_connection_headers"] or {})


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name in ("connect_timeout", "ping_interval", "drain_timeout"):
        _check_number(name, values[name], above=0)

    _check_number("reconnect_time_wait", values["reconnect_time_wait"], least=0)
    for name in ("max_outstanding_pings", "pending_size"):
        _check_number(name, values[name], least=1, whole=True)

    _check_number("max_reconnect_attempts", values["max_reconnect_attempts"], whole=True)


def _check_number(
    name: str, value: object, *, above: float = -math.inf, least: float = -math.inf, whole: bool = False
) -> None:
    kinds = int if whole else int | float
    if (
        not isinstance(value, bool)
        and isinstance(value, kinds)
        and value > above
        and least <= value < math.inf
    ):
        return

    bound = (
        f" above {above:g}" if above > -math.inf else f" of {least:g} or more" if least > -math.inf else ""
    )
    raise UsageError(f"{name}={value!r}: a {'whole' if whole else 'finite'} number{bound} is needed")


def _check_ways_to_authenticate(values: Mapping[str, Any]) -> None:
    plain, jwt, nkey = (
        [name for name in names if values[name] is not None] for names in (_PLAIN, _JWT, _NKEY)
    )
    for together in (plain, jwt, nkey, (plain or jwt) + nkey):
        if len(together) > 1:
            raise UsageError(
                f"{' and '.join(together)} were given: a connection authenticates in one way only"
            )

    _check_pair(values, "password", needs="user")
    _check_pair(values, "user_jwt_cb", needs="signature_cb")
    _check_pair(values, "signature_cb", needs="user_jwt_cb")
    credentials = values["user_credentials"]
    if isinstance(credentials, tuple) and len(credentials) != 2:
        raise UsageError("user_credentials: two paths, of the JWT's file and of the seed's")


def _check_pair(values: Mapping[str, Any], name: str, *, needs: str) -> None:
    if values[name] is not None and values[needs] is None:
        raise UsageError(f"{name} without {needs}: give both")


def _check_inbox_prefix(prefix: str) -> None:
    tokens = prefix.split(".")
    if not all(tokens) or any(mark in "*>" or mark.isspace() for mark in prefix):
        raise UsageError(f"inbox_prefix {prefix!r}: a subject without wildcards, blanks or empty parts")


def _check_headers(headers: Mapping[object, Any]) -> None:
    for name, values in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise UsageError(f"ws_connection_headers: {name!r} is not a valid header name")

        if isinstance(values, str) or not all(
            isinstance(value, str) and _HEADER_VALUE.fullmatch(value) for value in values
        ):
            raise UsageError(f"ws_connection_headers: {name!r} needs a list of ASCII texts, each one line")
