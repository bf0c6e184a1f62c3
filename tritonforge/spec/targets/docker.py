"""``kind: docker``: containers of a Docker engine, here or elsewhere."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.targets.common import SlotTarget
from tritonforge.spec.targets.container import ContainerSpec


class DockerTarget(SlotTarget, ContainerSpec):
    """Containers of a Docker engine: this machine's, or any that `host` or DOCKER_HOST names."""

    kind: Literal["docker"]
    """A Docker engine."""
    host: str | None = None
    """The engine: `unix:///…`, `tcp://…` or `ssh://user@host`; DOCKER_HOST or this machine's when absent."""
