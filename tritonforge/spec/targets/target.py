"""Any target; ``kind`` tells which."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tritonforge.spec.targets.compose import ComposeTarget
from tritonforge.spec.targets.docker import DockerTarget
from tritonforge.spec.targets.embedded import EmbeddedTarget
from tritonforge.spec.targets.helm import HelmTarget
from tritonforge.spec.targets.jetson import JetsonTarget
from tritonforge.spec.targets.server import ServerTarget

TargetSpec = Annotated[
    EmbeddedTarget | DockerTarget | ComposeTarget | JetsonTarget | HelmTarget | ServerTarget,
    Field(discriminator="kind"),
]
