"""How a server's container is run, and why one does not start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonforge.errors import CheckFailed
from tritonforge.rollout.host import ServerStart
from tritonforge.rollout.targets.containers import ROOT
from tritonforge.rollout.targets.docker_proxy import port_taken


@dataclass(frozen=True, slots=True)
class ContainerRun:
    """How the servers' containers are run; names as Docker's own. ``gpus`` passes all of the machine's through."""

    image: str
    shm_size: str = "1g"
    gpus: bool = False
    runtime: str | None = None
    memory: str | None = None
    cpus: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None

    def settings(self) -> dict[str, Any]:
        """What decides beside the image, as plain data; what is not set is left out."""
        said = {
            "shm_size": self.shm_size,
            "gpus": self.gpus,
            "runtime": self.runtime,
            "memory": self.memory,
            "cpus": self.cpus,
            "environment": dict(self.environment),
            "user": self.user,
        }
        return {name: value for name, value in said.items() if value not in (None, False, {})}


def not_started(said: str) -> CheckFailed:
    """The error for a server's container that the engine does not start, in its own words."""
    hint = None
    if "device driver" in said or "nvidia" in said.lower():
        hint = "for GPUs in containers the engine needs the NVIDIA Container Toolkit; or set `gpus: false`"
    elif '"tritonserver"' in said and "executable file not found" in said:
        hint = "the image has no tritonserver: is it one of Triton?"
    elif port_taken(said) is not None:
        hint = "end what uses that port, or give the target other `ports`"
    return CheckFailed("the server's container does not start", found=said, hint=hint)


def server_words(start: ServerStart) -> list[str]:
    """The command of a server's container; ports are Triton's own defaults."""
    arguments = list(start.arguments)
    if start.control == "explicit":
        # One model that does not load must not take the others away.
        own = ("--strict-readiness=", "--exit-on-error=")
        arguments = [item for item in arguments if not item.startswith(own)]
        arguments += ["--strict-readiness=false", "--exit-on-error=false", "--load-model=*"]
    return [
        "tritonserver",
        f"--model-repository={ROOT}/{start.models}",
        f"--model-control-mode={start.control}",
        *arguments,
    ]
