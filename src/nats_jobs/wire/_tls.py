"""TLS on a byte stream; when it fails, in words that say what to do."""

from __future__ import annotations

import ssl

import anyio
from anyio import to_thread
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from ._options import Options
from ._urls import Server

__all__ = ("CLIENT_CERTIFICATE", "explained", "start_tls")

# OpenSSL's X509_V_ERR numbers.
_CERTIFICATE_ADVICE = {
    10: "renew the server's certificate, or set this machine's clock",
    62: "connect by a name in the certificate, or give that name as tls_hostname",
    64: "the certificate names no such address: connect by a name in it, or give that name as tls_hostname",
} | dict.fromkeys(
    (18, 19, 20, 21),
    "to trust its issuer give tls=ssl.create_default_context(cafile=…) with the issuer's certificate",
)
CLIENT_CERTIFICATE = (
    "does the server want a client certificate that it trusts? "
    "It is part of the context that is given as tls: context.load_cert_chain(…)"
)
_NOT_FIRST = "the server speaks no TLS there; does it want tls_handshake_first=False, or another port?"
_REASON_ADVICE = {
    "WRONG_VERSION_NUMBER": _NOT_FIRST,
    "RECORD_LAYER_FAILURE": _NOT_FIRST,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": CLIENT_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": CLIENT_CERTIFICATE,
    "SSL/TLS_ALERT_BAD_CERTIFICATE": CLIENT_CERTIFICATE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": CLIENT_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": CLIENT_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": CLIENT_CERTIFICATE,
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server takes no TLS version that the context allows",
    "UNSUPPORTED_PROTOCOL": "the server offers no TLS version that the context allows",
}


async def start_tls(stream: ByteStream, server: Server, options: Options) -> ByteStream:
    """Wrap `stream` in TLS and check the certificate. A failure or cancellation leaves `stream` to the caller to close.

    Raises:
        ConnectionError: the certificate or the protocol does not fit, or the peer closed.
    """
    name = options.tls_hostname or server.tls_name or server.host
    # In a thread for the sake of the other tasks: reading the system's trust store takes a moment.
    context = await to_thread.run_sync(lambda: options.ssl_context)
    try:
        return await TLSStream.wrap(
            stream,
            server_side=False,
            hostname=name,
            ssl_context=context,
            # A NATS server closes without the TLS farewell.
            standard_compatible=False,
        )
    except ssl.SSLError as error:
        raise ConnectionError(explained(error)) from error
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise ConnectionError("closed by the server during the TLS handshake; does it speak TLS?") from error
    except ValueError as error:
        raise ConnectionError(f"no certificate can be checked for the name {name!r}: {error}") from error


def explained(error: ssl.SSLError) -> str:
    """Say in words what went wrong with TLS, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE_ADVICE.get(error.verify_code)
        text = f"certificate verify failed: {error.verify_message.rstrip('.')}"
    else:
        reason = error.reason or ""
        advice = _REASON_ADVICE.get(reason)
        text = f"TLS failed: {reason.replace('_', ' ').lower() or error.strerror or error}"

    return f"{text}; {advice}" if advice else text
