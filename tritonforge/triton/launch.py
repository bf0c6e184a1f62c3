"""What is asked of a server that is about to start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tritonforge.errors import UsageError
from tritonforge.triton.ports import Ports

Control = Literal["none", "explicit", "poll"]


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a server; every field but ``repository`` has a usable default. Times are in seconds.

    ``http``, ``grpc`` and ``metrics`` are ports; None takes a free one. ``load`` names the models to load at the
    start in explicit mode. ``exit_on_error`` ends the server when one of its models does not load. ``log_path`` is
    appended to; None keeps the log in a temporary file that goes with the server.
    """

    repository: Path
    control: Control = "none"
    load: tuple[str, ...] = ()
    log_path: Path | None = None
    arguments: tuple[str, ...] = ()
    http: int | None = None
    grpc: int | None = None
    metrics: int | None = None
    host: str = "127.0.0.1"
    strict_readiness: bool = True
    exit_on_error: bool = True
    exit_timeout: float = 5.0
    ready_timeout: float = 120.0
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.load and self.control != "explicit":
            raise UsageError("models are named at the start only in explicit mode", found=f"control '{self.control}'")
        if not self.repository.is_dir():
            raise UsageError("the model repository is no folder", found=str(self.repository))


def server_arguments(launch: Launch, ports: Ports, *, repository: str, host: str) -> list[str]:
    """The part of the command line that is the same wherever the server runs."""
    words = [
        f"--model-repository={repository}",
        f"--model-control-mode={launch.control}",
        f"--http-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-address={host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={host}",
        f"--metrics-port={ports.metrics}",
        f"--strict-readiness={str(launch.strict_readiness).lower()}",
        f"--exit-on-error={str(launch.exit_on_error).lower()}",
        f"--exit-timeout-secs={max(1, int(launch.exit_timeout))}",
    ]
    words += [f"--load-model={name}" for name in launch.load]
    return [*words, *launch.arguments]
