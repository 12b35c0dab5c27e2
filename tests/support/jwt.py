"""Operator, account and user of a NATS server in operator mode, with the JWTs that say so."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nkeys

PREFIXES = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
UNLIMITED = {"subs": -1, "data": -1, "payload": -1}


@dataclass
class Identity:
    """A key pair that can sign claims about another one."""

    kind: str
    seed: str = ""
    public: str = ""

    def __post_init__(self) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), PREFIXES[self.kind]).decode()
        public: Any = nkeys.from_seed(self.seed.encode()).public_key
        self.public = public.decode()

    def claim(self, subject: Identity, nats: dict[str, Any], **more: Any) -> str:
        """Return the JWT in which we say `nats` about `subject`."""
        claims = {
            "jti": os.urandom(8).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": subject.kind,
            "nats": {**nats, "type": subject.kind, "version": 2},
            **more,
        }
        signed = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(claims)}"
        signature = nkeys.from_seed(self.seed.encode()).sign(signed.encode())
        return f"{signed}.{_base64(signature)}"


@dataclass
class Operator:
    """An operator with an account for users and one for the system. `config` is what a server needs to know of them."""

    operator: Identity = field(default_factory=lambda: Identity("operator"))
    account: Identity = field(default_factory=lambda: Identity("account"))
    system: Identity = field(default_factory=lambda: Identity("account"))

    def config(self, *, revoked: Identity | None = None) -> str:
        limits = {**UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
        about: dict[str, Any] = {"limits": limits}
        system = self.operator.claim(self.system, about)
        if revoked is not None:
            about = about | {"revocations": {revoked.public: int(time.time()) + 1}}

        return (
            f"operator: {self.operator.claim(self.operator, {})}\n"
            "resolver: MEMORY\n"
            f"system_account: {self.system.public}\n"
            "resolver_preload: {\n"
            f"  {self.account.public}: {self.operator.claim(self.account, about)}\n"
            f"  {self.system.public}: {system}\n"
            "}\n"
        )

    def user_jwt(self, user: Identity, **more: Any) -> str:
        return self.account.claim(user, {"pub": {}, "sub": {}, **UNLIMITED}, **more)

    def credentials(self, user: Identity, **more: Any) -> str:
        """Return the text of a credentials file. `exp=` sets when it expires."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.user_jwt(user, **more)}\n------END NATS USER JWT------\n\n"
            "*** keep this to yourself ***\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )

    def write_credentials(self, file: Path, user: Identity, **more: Any) -> Path:
        """Put the credentials file in its place at once, as those who renew such files should."""
        new = file.with_suffix(".new")
        new.write_text(self.credentials(user, **more))
        new.replace(file)
        return file


def _part(claims: dict[str, Any]) -> str:
    return _base64(json.dumps(claims).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
