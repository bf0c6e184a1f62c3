"""``kind: compose``: the stack of a compose file on a Docker engine."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import RelativePath
from tritonforge.spec.targets.common import SlotTarget
from tritonforge.spec.targets.container import ContainerSpec


class ComposeTarget(SlotTarget, ContainerSpec):
    """The services of a compose file like tritonforge's own: blue, green, haproxy, keeper, prometheus."""

    kind: Literal["compose"]
    """Docker Compose."""
    file: RelativePath | None = None
    """The compose file; tritonforge's own when absent."""
    host: str | None = None
    """The Docker engine, as for `docker`."""
    profiles: list[str] = []
    """Profiles of the compose file to start, such as `grafana`."""
