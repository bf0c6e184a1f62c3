"""Where a Triton server is reached, and with what credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from tritonforge.errors import UsageError
from tritonforge.hiding import hide

_EXPECTED: Final = "http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for an encrypted connection: the authority to trust, and a client's own certificate with its key."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """The addresses of one server, each ``HOST:PORT``, as far as they are known.

    ``headers`` go with every HTTP request and every gRPC call. They usually hold tokens, so no text made of this
    object (``repr``, a log line, an error) shows their values. ``metrics`` is served without TLS and gets no
    credentials, unless it is ``https://HOST:PORT``.
    """

    http: str | None = None
    grpc: str | None = None
    metrics: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.http is None and self.grpc is None:
            raise UsageError("a connection needs an HTTP or a gRPC address")
        for address in (self.http, self.grpc, self.metrics and self.metrics.removeprefix("https://")):
            if address is not None:
                _check_address(address, address)
        if self.metrics is not None and self.metrics.startswith("https://") and self.tls is None:
            raise UsageError("metrics at an https:// address need the connection's `tls`", found=self.metrics)

    @staticmethod
    def from_url(url: str, *, headers: Mapping[str, str] | None = None, tls: Tls | None = None) -> Connection:
        """Read one URL; its scheme says which protocol it is and whether it is encrypted.

        Raises:
            UsageError: the URL has another scheme, no port, or parts that Triton has no use for.
        """
        try:
            parts = urlsplit(url)
            scheme, has_user = parts.scheme.lower(), parts.username is not None
        except ValueError as error:
            raise UsageError(
                "that is no URL of a Triton server", found=f"'{url}' ({error})", expected=_EXPECTED
            ) from None
        if has_user:
            # The URL itself is not repeated here: it holds a secret.
            raise UsageError(
                "the URL of a Triton server holds no user or password", hint="give the token as a header instead"
            )
        if scheme not in ("http", "https", "grpc", "grpcs"):
            raise UsageError("that is no URL of a Triton server", found=f"'{url}'", expected=_EXPECTED)
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise UsageError("the URL of a Triton server ends after its port", found=f"'{url}'", expected=_EXPECTED)
        address = parts.netloc
        _check_address(address, url)
        secure = tls or (Tls() if scheme.endswith("s") else None)
        given = dict(headers or {})
        if scheme.startswith("http"):
            return Connection(http=address, headers=given, tls=secure)
        return Connection(grpc=address, headers=given, tls=secure)

    @property
    def url(self) -> str:
        """The address to show to people: HTTP's if known, gRPC's otherwise."""
        return self.http_url if self.http is not None else self.grpc_url

    @property
    def http_url(self) -> str:
        """``http(s)://HOST:PORT``."""
        return f"http{'s' if self.tls else ''}://{self.http}"

    @property
    def grpc_url(self) -> str:
        """``grpc(s)://HOST:PORT``."""
        return f"grpc{'s' if self.tls else ''}://{self.grpc}"

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics are, whole; None where that is not known."""
        if self.metrics is None:
            return None
        return f"{self.metrics if self.metrics.startswith('https://') else f'http://{self.metrics}'}/metrics"

    @property
    def protocols(self) -> tuple[Literal["http", "grpc"], ...]:
        """The protocols whose addresses are known."""
        known: tuple[Literal["http", "grpc"], ...] = ("http", "grpc")
        return tuple(name for name in known if getattr(self, name) is not None)

    def over(self, protocol: Literal["http", "grpc"]) -> Connection:
        """This connection with the address of one protocol alone.

        Raises:
            UsageError: that address is not known.
        """
        if getattr(self, protocol) is None:
            raise UsageError(f"the {protocol} address of the server at {self.url} is not known")
        return replace(self, grpc=None) if protocol == "http" else replace(self, http=None)

    def hide(self, text: str) -> str:
        """``text`` without the values of the headers: a proxy may repeat them in what it says."""
        return hide(text, self.headers)


def _check_address(address: str, shown: str) -> None:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})", address)
    if match is None or not 0 < int(match.group(2)) < 65536:
        raise UsageError("the address of a Triton server is HOST:PORT", found=f"'{shown}'", expected=_EXPECTED)
