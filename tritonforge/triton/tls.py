"""TLS of a connection: what is trusted and shown, and what its failures mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.connection import Connection, Tls

if TYPE_CHECKING:
    import ssl

_HANDSHAKE_S: Final = 5.0

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What an HTTP/2 client begins with (RFC 9113, section 3.4), and empty settings: a server answers it."""

_MEANING: Final[Sequence[tuple[str, str, str]]] = (
    (
        r"certificate has expired|CERTIFICATE_EXPIRED(?!.*alert)",
        "the server's certificate has expired",
        "renew it on the server",
    ),
    (
        r"Hostname mismatch|IP address mismatch|Hostname Verification Check failed|not valid for",
        "the server's certificate is for another host",
        "ask it by a name that its certificate has",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "nobody that is trusted here signed the server's certificate",
        "name the authority that did by `tls: {ca: FILE}` of the connection",
    ),
    (
        r"WRONG_VERSION_NUMBER|record layer failure|HTTP_REQUEST|UNEXPECTED_MESSAGE|PACKET_LENGTH_TOO_LONG",
        "the server does not speak TLS there",
        "leave `tls` out of the connection, or name the port that has TLS",
    ),
    (
        r"UNEXPECTED_EOF|EOF occurred",
        "the server broke off where TLS begins: it may not speak TLS there",
        "leave `tls` out of the connection, or name the port that has TLS",
    ),
    (
        r"(?i)alert.{0,5}certificate.{0,3}expired",
        "the server says that the client's certificate has expired",
        "renew the certificate that `tls: {cert: FILE, key: FILE}` of the connection names",
    ),
    (
        r"(?i)alert.{0,5}(certificate.{0,3}required|handshake.{0,3}failure)",
        "the server asks for a client certificate",
        "give the connection one by `tls: {cert: FILE, key: FILE}`",
    ),
    (
        r"(?i)alert.{0,5}(unknown.{0,3}ca|bad.{0,3}certificate|certificate.{0,3}(unknown|revoked)|unsupported.{0,3}cert)",
        "the server does not accept the client's certificate",
        "give the connection one that an authority of the server signed, by `tls: {cert: FILE, key: FILE}`",
    ),
)
"""What OpenSSL and BoringSSL write, what that means, and what to do; the first that fits."""


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The context for an HTTPS client.

    Raises:
        OSError: a file is missing, or no certificate or key (``ssl.SSLError``).
        ValueError: the key has a passphrase, which nobody can be asked for.
    """
    import ssl

    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.cert is not None:

        def no_passphrase() -> str:
            raise ValueError("the key has a passphrase: give one without")

        context.load_cert_chain(str(tls.cert), None if tls.key is None else str(tls.key), no_passphrase)
    return context


def checked_tls(tls: Tls) -> None:
    """Read the files once: gRPC takes whatever it is given, and then says only that nothing answers.

    Raises:
        EnvironmentLacks: they cannot be used.
    """
    try:
        tls_context(tls)
    except (OSError, ValueError) as error:
        raise unusable(error) from None


def unusable(error: Exception) -> EnvironmentLacks:
    """The error for TLS files that cannot be used."""
    return EnvironmentLacks(
        "the TLS files of the connection cannot be used",
        found=str(error),
        expected="PEM files: `ca` with certificates, `cert` with `key`, which is its own and has no passphrase",
    )


def handshake_failure(connection: Connection, address: str, url: str) -> EnvironmentLacks | None:
    """Why TLS with a gRPC server fails, found out by a handshake of our own; None where it works.

    gRPC says only that nothing answers where a server sends an alert after the handshake, as TLS 1.3 has it for
    everything that is wrong with a client's certificate.
    """
    import socket

    assert connection.tls is not None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = tls_context(connection.tls)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, int(port)), timeout=_HANDSHAKE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            secured.sendall(_PREFACE)
            secured.recv(1)
    except TimeoutError:
        return None
    except (OSError, ValueError) as error:
        return tls_failure(connection, url, str(error))
    return None


def tls_failure(connection: Connection, url: str, text: str) -> EnvironmentLacks | None:
    """The error for a TLS connection that failed, told from what the library says; None where TLS is not why."""
    if connection.tls is None or not re.search(r"(?i)ssl|tls|certificate", text):
        return None
    for pattern, meaning, hint in _MEANING:
        if re.search(pattern, text):
            return EnvironmentLacks(f"no connection to {url}: {meaning}", found=connection.hide(text), hint=hint)
    return EnvironmentLacks(f"no TLS connection to {url}", found=connection.hide(text))
