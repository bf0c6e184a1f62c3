"""What targets that run containers have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from tritonforge.spec.strict import Strict


class ContainerSpec(Strict):
    """How Triton's containers are run."""

    image: str | None = None
    """Triton's image, best with its digest (`…@sha256:…`); NVIDIA's of the platform's release when absent."""
    shm_size: Annotated[str, StringConstraints(pattern=r"^\d+[bkmgBKMG]?$")] = "1g"
    """Shared memory of a server, which Python models use."""
    gpus: bool | None = None
    """Pass the machine's GPUs through; where the platform has some, when absent."""
    runtime: str | None = None
    """The container runtime, such as `nvidia`."""
    memory: str | None = None
    """Memory limit of a server, such as `4g`."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """Processors that a server may use."""
    environment: dict[str, str] = {}
    """Environment variables of the servers. They are no place for secrets."""
    user: str | None = None
    """User (and group) that the servers run as, such as `1000:1000`; the image's when absent."""
