"""Sign with an nkey seed, and say what is wrong with one that cannot be used."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ..errors import MissingExtra, UsageError

__all__ = ("sign",)

_SEED = 18 << 3
_USER = 20 << 3
_LENGTH = 2 + 32 + 2
_OTHERS = {0: "an account", 14 << 3: "an operator", 13 << 3: "a server", 2 << 3: "a cluster"}


def sign(seed: str, nonce: str) -> tuple[str, bytes]:
    """Return the public key of `seed` and its signature of `nonce` (Ed25519, as the nkeys package does).

    Raises:
        UsageError: it is not the seed of a user.
        MissingExtra: the `nkeys` extra is not installed.
    """
    seed = seed.strip()
    _check(seed)
    try:
        import nkeys
    except ImportError:
        raise MissingExtra("signing with an nkey or a JWT", "nkeys") from None

    pair = nkeys.from_seed(seed.encode())
    try:
        public_key: Any = pair.public_key
        return public_key.decode(), pair.sign(nonce.encode())
    finally:
        pair.wipe()


def _check(seed: str) -> None:
    # nkeys itself looks neither at the checksum nor at the kind: a typo would sign with another key, and the
    # server would say no more than "Authorization Violation". None of these texts shows the seed.
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raw = b""

    if len(raw) != _LENGTH or raw[0] & 0b11111000 != _SEED:
        raise UsageError(
            "this is not an nkey seed: a seed has 58 capital letters and digits and begins with SU"
        )

    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise UsageError("the nkey seed has a typo: its checksum does not match")

    kind = (raw[0] & 0b111) << 5 | raw[1] >> 3
    if kind != _USER:
        raise UsageError(f"the nkey seed is of {_OTHERS.get(kind, 'something else')}, not of a user (SU…)")
