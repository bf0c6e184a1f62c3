"""A Triton that somebody runs: its addresses, certificates and secrets by reference."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tritonforge.spec.strict import RelativePath, Strict


class SecretRef(Strict):
    """A secret by reference: never by value."""

    env: str | None = None
    """An environment variable."""
    file: str | None = None
    """A file, relative to the spec."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """A command whose output it is."""

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
    """Client certificate (PEM)."""
    key: RelativePath | None = None
    """Client key (PEM)."""


class ConnectionSpec(Strict):
    """A Triton that somebody runs, for `--server NAME`."""

    http: str | None = None
    """`host:port` of the HTTP endpoint."""
    grpc: str | None = None
    """`host:port` of the gRPC endpoint."""
    metrics: str | None = None
    """`host:port` of the metrics endpoint."""
    tls: TlsSettings | bool = False
    """TLS, with the machine's authorities or given ones."""
    token: SecretRef | None = None
    """Bearer token."""
    headers: dict[str, str | SecretRef] = {}
    """Further headers."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.http is None and self.grpc is None:
            raise ValueError("give `http` or `grpc`")
        return self
