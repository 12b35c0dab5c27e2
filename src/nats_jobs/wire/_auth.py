"""The server's nonce and the user's credentials make the authentication fields of CONNECT."""

from __future__ import annotations

import base64
import os
import re
from collections import UserString
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from ._nkey import sign
from ._options import Credentials, Options
from ._urls import Server

__all__ = ("auth_fields",)

_JWT = "USER JWT"
_SEED = "NKEY SEED"
# Seeds have 58 such characters in a row, JWTs more; the parts of a path rarely have so many.
_SECRET = re.compile(r"[A-Za-z0-9_=-]{40}")


def auth_fields(server: Server, options: Options, nonce: str) -> dict[str, str]:
    """Return the fields that authenticate the client.

    User, password and token of the URL win over those of the options and over an nkey. A JWT goes with
    either: a server with an auth callout takes both. Files are read and functions are called here, at each
    connect, so that renewed credentials are picked up. This blocks for as long as they take.

    Raises:
        UsageError: a file cannot be read or has no credentials in it, or a function failed.
        MissingExtra: an nkey or JWT needs the `nkeys` extra.
    """
    if server.user is not None:
        plain = {"user": server.user, "pass": server.password or ""}
    elif server.token is not None:
        plain = {"auth_token": server.token}
    else:
        plain = _plain_fields(options) | _nkey_fields(options, nonce)

    return plain | _jwt_fields(options, nonce)


def _plain_fields(options: Options) -> dict[str, str]:
    fields = {}
    if options.user is not None:
        fields["user"] = _text("user", options.user)
        fields["pass"] = _text("password", options.password or "")

    if options.token is not None:
        fields["auth_token"] = _text("token", options.token)

    return fields


def _nkey_fields(options: Options, nonce: str) -> dict[str, str]:
    if options.nkeys_seed_str is not None:
        seed = options.nkeys_seed_str
    elif options.nkeys_seed is not None:
        seed = _seed_in(_read("nkeys_seed", options.nkeys_seed))
    else:
        return {}

    public_key, signature = sign(seed, nonce)
    return {"nkey": public_key, "sig": _encoded(signature)}


def _jwt_fields(options: Options, nonce: str) -> dict[str, str]:
    if options.user_credentials is not None:
        jwt, seed = _jwt_and_seed(options.user_credentials)
        _, signature = sign(seed, nonce)
        return {"jwt": jwt, "sig": _encoded(signature)}

    if options.user_jwt_cb is not None and options.signature_cb is not None:
        jwt = _text("user_jwt_cb", options.user_jwt_cb)
        return {"jwt": jwt, "sig": _text("signature_cb", options.signature_cb, nonce)}

    return {}


def _jwt_and_seed(credentials: Credentials) -> tuple[str, str]:
    """Read credentials in any form nats-py takes: one file, its text, or a file for the JWT and one for the seed."""
    if isinstance(credentials, UserString):
        return _block(_JWT, credentials.data, "the text given"), _block(
            _SEED, credentials.data, "the text given"
        )

    if isinstance(credentials, tuple):
        jwt_path, seed_path = credentials
        jwt, seed = (_read("user_credentials", path) for path in credentials)
        return (
            _block(_JWT, jwt, jwt_path) if "BEGIN" in jwt else jwt.strip(),
            _block(_SEED, seed, seed_path) if "BEGIN" in seed else _seed_in(seed),
        )

    text = _read("user_credentials", credentials)
    return _block(_JWT, text, credentials), _block(_SEED, text, credentials)


def _block(label: str, text: str, place: object) -> str:
    """Return the line after `-----BEGIN … label-----`."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.lstrip().startswith("---") and "BEGIN" in line and label in line:
            found = next((inner.strip() for inner in lines if inner.strip()), "")
            if found and not found.startswith("---"):
                return found

    raise UsageError(
        f"user_credentials: {_shown(place)} has no {label}; is it a file that `nsc generate creds` wrote?"
    )


def _seed_in(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip().startswith("SU")), text.strip())


def _read(option: str, path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeError:
        problem = "is not a text file"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except (ValueError, RuntimeError):
        # A null byte, or a home directory that cannot be found.
        problem = "is not the path of a file"

    # Outside the except blocks: an OSError carries the path, and the path may be a secret in the wrong place.
    raise UsageError(f"{option}: {_shown(path)} {problem}")


def _shown(path: object) -> str:
    """Return `path` for an error, unless it may be a seed, a token or credentials that were given in its place."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if isinstance(text, str) and text.isprintable() and "BEGIN" not in text and not _SECRET.search(text):
        return text

    return "what was given (not shown, it looks like a secret; a path is expected, a seed goes to nkeys_seed_str)"


def _text(option: str, given: str | Callable[..., str | bytes | bytearray], *args: str) -> str:
    """Return what was given, or what the function that was given returns."""
    if isinstance(given, str):
        return given

    try:
        value = given(*args)
        text = value.decode() if isinstance(value, bytes | bytearray) else value
        return text.strip()
    except Exception as error:
        raise UsageError(f"{option}: the function failed: {type(error).__name__}: {error}") from error


def _encoded(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
