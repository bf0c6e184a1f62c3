"""What targets have in common: ports, the way of a rollout, and security."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tritonforge.spec.connection import SecretRef
from tritonforge.spec.strict import Name, RelativePath, Strict

Port = Annotated[int, Field(ge=1, le=65535)]
Strategy = Literal["two-slots", "one-slot"]
Header = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=100)]
InstanceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]


class PublicPorts(Strict):
    """Where clients reach the target."""

    bind: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` for all of the machine's."""
    http: Port = 8000
    """HTTP."""
    grpc: Port = 8001
    """gRPC."""
    metrics: Port = 8002
    """Prometheus metrics of the server that serves."""


class AnalysisSpec(Strict):
    """What is looked at after each move of traffic. The newcomer is held against the server that it replaces."""

    hold_s: Annotated[float, Field(ge=0)] = 5.0
    """Watch each weight for this long, at least."""
    min_requests: Annotated[int, Field(ge=0)] = 20
    """Requests that the newcomer must have answered at a weight; fewer are inconclusive while clients send any."""
    wait_s: Annotated[float, Field(ge=0)] = 60.0
    """Wait for so many requests this long, at most."""
    failure_rate_max: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the newcomer's requests that may fail beyond the old server's share."""
    latency_ratio_max: Annotated[float, Field(gt=0)] | None = 2.0
    """Mean time in the newcomer over that in the old server, at most; `null` to not look at it."""
    latency_floor_ms: Annotated[float, Field(ge=0)] = 5.0
    """A newcomer whose mean time is below this is fast enough, whatever the ratio."""


class RolloutSpec(Strict):
    """How a new release takes over."""

    weights: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1)] = [5, 25, 50, 100]
    """Percent of the requests that the newcomer gets, step by step; the last is 100."""
    analysis: AnalysisSpec = AnalysisSpec()
    """What each step must show."""
    ready_s: Annotated[float, Field(gt=0)] = 300.0
    """A new server must be ready within this time."""
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    """Requests of the old server may end within this time."""
    deadman_s: Annotated[float, Field(ge=2)] = 60.0
    """The target goes back by itself when tritonforge is not heard of for this long in the middle of a rollout."""
    keep_warm: bool = True
    """Leave the old server running, for an undo without a start."""
    restart: bool = False
    """With one slot: the server may be started anew where its image or its arguments change. Requests in that time
    fail."""

    @model_validator(mode="after")
    def _ends_with_all(self) -> Self:
        if list(self.weights) != sorted(set(self.weights)) or self.weights[-1] != 100:
            raise ValueError("`weights` grow and end with 100")
        return self


class ProxyTls(Strict):
    """What the proxy shows to clients. The files are read where tritonforge runs."""

    cert: RelativePath
    """The certificate with its chain (PEM)."""
    key: SecretRef
    """Its key (PEM), by reference."""
    client_ca: RelativePath | None = None
    """Ask clients for a certificate of these authorities (PEM)."""


class ProxySpec(Strict):
    """The proxy in front of the two servers."""

    image: str | None = None
    """HAProxy's image, best with its digest; for targets that run containers."""
    sequence_header: Header | None = None
    """Clients send this header with the same value for all requests of a sequence, which then stays on its server.
    Without it, servers with sequence models are not mixed: all new requests move at once, and the old server drains."""
    tls: ProxyTls | None = None
    """Serve TLS."""
    tokens: list[SecretRef] = []
    """Bearer tokens that clients must show one of; health checks need none."""


class TargetCommon(Strict):
    """What every target has."""

    platform: Name | None = None
    """The platform whose releases run there; the spec's first when absent."""
    gates: list[Name] | None = None
    """Gates that a newcomer must pass before it gets any traffic; all of the platform's when absent, none for `[]`."""
    validate_answers: bool = True
    """Ask a newcomer all golden cases before it gets any traffic."""
    rollout: RolloutSpec = RolloutSpec()
    """The pace at which a new release takes over, and what it must show on the way."""
    minimum_triton: Annotated[str, StringConstraints(pattern=r"^\d{2}\.\d{2}$")] | None = None
    """Refuse an older Triton (a container release, such as `24.10`)."""
    retention: Annotated[int, Field(ge=2)] = 3
    """So many releases stay on the target, for `rollback`."""


class SlotTarget(TargetCommon):
    """A target whose servers tritonforge starts."""

    name: InstanceName | None = None
    """Names its containers, volumes and folders there; `<spec>-<target>` when absent."""
    ports: PublicPorts = PublicPorts()
    """Where clients reach it."""
    strategy: Strategy = "two-slots"
    """`two-slots`: a second server beside the first, behind a proxy. `one-slot`: one server that is changed in place,
    for machines without the memory for two."""
    proxy: ProxySpec = ProxySpec()
    """The proxy in front of two slots."""
