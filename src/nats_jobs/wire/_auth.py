"""Who we are: the server's nonce and the user's credentials make the authentication fields of CONNECT."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, UsageError
from ._options import Options
from ._servers import Server

__all__ = ("auth_fields",)

_JWT_MARK = "-----BEGIN NATS USER JWT-----"
_SEED_MARK = "-----BEGIN USER NKEY SEED-----"


def auth_fields(server: Server, options: Options, nonce: str) -> dict[str, Any]:
    """Return the fields that say who we are. What stands in the URL wins over the options.

    Files are read here, at each connect, so that renewed credentials are picked up. This blocks for the
    moment that reading a small local file takes.

    Raises:
        UsageError: a file cannot be read or has no credentials in it.
        MissingExtra: an nkey or JWT needs the `nkeys` extra.
    """
    if server.user is not None:
        return {"user": server.user, "pass": server.password}

    if server.token is not None:
        return {"auth_token": server.token}

    if options.user is not None:
        return {"user": options.user, "pass": options.password or ""}

    fields = _signed_fields(options, nonce)
    if options.token is not None:
        fields["auth_token"] = options.token

    return fields


def _signed_fields(options: Options, nonce: str) -> dict[str, Any]:
    if options.user_credentials is not None:
        text = _read("user_credentials", options.user_credentials)
        jwt = _line_after(_JWT_MARK, text, options.user_credentials)
        _, signature = _sign(_line_after(_SEED_MARK, text, options.user_credentials), nonce)
        return {"jwt": jwt, "sig": signature}

    if options.nkeys_seed is not None or options.nkeys_seed_str is not None:
        seed = options.nkeys_seed_str or _seed_in(_read("nkeys_seed", options.nkeys_seed or ""))
        public_key, signature = _sign(seed, nonce)
        return {"nkey": public_key, "sig": signature}

    fields: dict[str, Any] = {}
    if options.user_jwt_cb is not None:
        fields["jwt"] = bytes(options.user_jwt_cb()).decode()

    if options.signature_cb is not None:
        fields["sig"] = bytes(options.signature_cb(nonce)).decode()

    return fields


def _sign(seed: str, nonce: str) -> tuple[str, str]:
    """Return the public key of `seed` and its signature of `nonce` (Ed25519, base64url without padding; NATS.md 1.6)."""
    try:
        import nkeys
    except ImportError:
        raise MissingExtra("signing with an nkey or a JWT", "nkeys") from None

    try:
        pair = nkeys.from_seed(seed.strip().encode())
        signature = pair.sign(nonce.encode())
        return pair.public_key.decode(), base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    except (nkeys.NkeysError, ValueError) as error:
        raise UsageError(f"the nkey seed cannot be used: {error or type(error).__name__}") from None


def _seed_in(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip().startswith("SU")), text.strip())


def _line_after(mark: str, text: str, path: object) -> str:
    lines = [line.strip() for line in text.splitlines()]
    if mark not in lines[:-1]:
        raise UsageError(f"{path} is no credentials file: no line after {mark!r}")

    return lines[lines.index(mark) + 1]


def _read(option: str, path: object) -> str:
    try:
        return Path(str(path)).expanduser().read_text()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{option}: {error}") from None
