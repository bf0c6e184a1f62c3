"""How to start the embedded server."""

from __future__ import annotations

import secrets
from pathlib import Path

from tritonforge.triton.embedded.runtime import Runtime
from tritonforge.triton.embedded.standins import STANDINS, place
from tritonforge.triton.launch import Launch, server_arguments
from tritonforge.triton.ports import Ports
from tritonforge.triton.process import Command


def command_for(runtime: Runtime, launch: Launch, ports: Ports, scratch: Path) -> Command:
    """Lay out the backends in ``scratch`` and say how to start the server on them.

    The working folder is an empty one: the Python backend's stub puts it first on its import path.
    """
    backends = place(runtime, scratch / "backends")
    empty = scratch / "empty"
    empty.mkdir()
    # All Python-based backends take the name of their shared memory from the setting of ``python``.
    prefix = f"tritonforge_{secrets.token_hex(6)}_"
    words = [str(runtime.tritonserver)]
    words += server_arguments(launch, ports, repository=str(launch.repository.absolute()), host=launch.host)
    words += [
        f"--backend-directory={backends}",
        f"--cache-directory={runtime.cache_directory}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]
    return Command(words, {**runtime.env(), **launch.env}, empty, prefix, (scratch,), ("python", *STANDINS))
