"""Certificates made for a test: an authority of its own, and the files that a server's configuration names."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Certificates:
    """One authority. What it issues is trusted only by the contexts made here."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._directory = directory
        self._issued = 0
        self.authority_file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.authority_file))

    def server_tls(self, *names: str, more: str = "") -> str:
        """Return a `tls {…}` block for a server that is called `names`."""
        directory = self._directory
        self._issued += 1
        issued = self._authority.issue_cert(*names)
        certificate, key = directory / f"server{self._issued}.pem", directory / f"server{self._issued}.key"
        issued.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        files = f'cert_file: "{certificate}", key_file: "{key}", ca_file: "{self.authority_file}"'
        return f"tls {{ {files}, timeout: 10, {more} }}"

    def trusting(self) -> ssl.SSLContext:
        """Return a client's context that trusts the authority and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context

    def as_client(self, email: str) -> ssl.SSLContext:
        """Return a client's context that also has a certificate, of `email`."""
        context = self.trusting()
        self._authority.issue_cert(email).configure_cert(context)
        return context
