"""A Triton that somebody runs: its addresses, certificates and secrets by reference."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from tritonforge.spec.strict import RelativePath, Strict

_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
"""Headers that are credentials whatever their value: never written out."""

_CLIENTS_OWN: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade", "user-agent"}
)
"""Headers that the protocols set themselves."""


def _header(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]+", name) is None:
        raise ValueError(f"'{name}' is no name of a header, which has letters, digits, `-`, `_` and `.`")
    if name.lower() in _CLIENTS_OWN or name.lower().startswith(("grpc-", "inference-header-")):
        raise ValueError(f"the header '{name}' belongs to the protocol")
    if name.lower().endswith("-bin"):
        raise ValueError(f"the header '{name}' would be binary over gRPC, where names end in -bin for that")
    return name


HeaderName = Annotated[str, AfterValidator(_header)]


_BY_REFERENCE: Final = "give it as `{env: NAME}`, `{file: PATH}` or `{command: [PROGRAM, …]}`, not by its value"


class SecretRef(Strict):
    """A secret by reference: never by value."""

    env: str | None = None
    """An environment variable."""
    file: str | None = None
    """A file, relative to the spec."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """A command that prints it within 30 seconds, run in the spec's folder without a shell and without input."""

    @model_validator(mode="before")
    @classmethod
    def _no_value(cls, value: Any) -> Any:
        if isinstance(value, str | int | float):
            raise ValueError(f"this is a secret: {_BY_REFERENCE}")  # a message of pydantic's own would show it
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.env, self.file, self.command)) != 1:
            raise ValueError("give exactly one of `env`, `file`, `command`")
        return self


class TlsSettings(Strict):
    """Certificates of a connection."""

    ca: RelativePath | None = None
    """Certificate authorities (PEM)."""
    cert: RelativePath | None = None
    """Client certificate (PEM), with its chain; and with its key, where `key` is absent."""
    key: RelativePath | SecretRef | None = None
    """Client key (PEM, without a passphrase): a path, or a reference. One that a variable or a command gives is never
    written to a disk."""

    @model_validator(mode="after")
    def _key_of_a_certificate(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("`key` is the key of a `cert`, which is missing")
        return self


class ConnectionSpec(Strict):
    """A Triton that somebody runs, for `--server NAME`."""

    http: str | None = None
    """`host:port` of the HTTP endpoint."""
    grpc: str | None = None
    """`host:port` of the gRPC endpoint."""
    metrics: str | None = None
    """`host:port` of the metrics endpoint, which Triton serves without TLS and which gets no credentials;
    `https://HOST:PORT` where a proxy has it behind the TLS, token and headers of this connection."""
    tls: TlsSettings | bool = False
    """TLS, with the machine's authorities or given ones."""
    token: SecretRef | None = None
    """Bearer token."""
    headers: dict[HeaderName, str | SecretRef] = {}
    """Further headers of every request, also over gRPC; secret ones by reference."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.http is None and self.grpc is None:
            raise ValueError("give `http` or `grpc`")
        return self

    @model_validator(mode="after")
    def _secrets_by_reference(self) -> Self:
        names = [name.lower() for name in self.headers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the header '{name}' is given twice: case does not matter")
        for name, value in self.headers.items():
            if isinstance(value, str) and name.lower() in _SECRET_HEADERS:
                raise ValueError(f"the header '{name}' is a secret: {_BY_REFERENCE}")
            if isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value) is None:
                raise ValueError(f"the value of the header '{name}' is no line of printable ASCII")
        if self.token is not None and "authorization" in names:
            raise ValueError("`token` is the header 'authorization', which is given as well")
        return self
