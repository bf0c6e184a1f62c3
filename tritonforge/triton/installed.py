"""A Triton that is installed on this machine, such as inside the vendor's container."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.launch import Launch, server_arguments
from tritonforge.triton.ports import Ports
from tritonforge.triton.process import Command


@dataclass(frozen=True, slots=True)
class InstalledServer:
    """``path`` is the installation's folder (``/opt/tritonserver``) or the program itself."""

    path: Path

    def program(self) -> Path:
        """The server's program.

        Raises:
            EnvironmentLacks: there is none.
        """
        given = self.path.expanduser()
        for candidate in (given / "bin" / "tritonserver", given / "tritonserver", given):
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate.absolute()
        on_path = shutil.which(str(self.path))
        if on_path is not None:
            return Path(on_path).absolute()
        raise EnvironmentLacks(
            f"there is no Triton server at {self.path}", expected="the folder of an installation, or its tritonserver"
        )


def command_for(server: InstalledServer, launch: Launch, ports: Ports, scratch: Path) -> Command:
    """How to start an installed server; its own backends and caches are used."""
    program = server.program()
    root = program.parent.parent
    prefix = f"tritonforge_{secrets.token_hex(6)}_"
    words = [str(program)]
    words += server_arguments(launch, ports, repository=str(launch.repository.absolute()), host=launch.host)
    if (root / "backends").is_dir():
        words.append(f"--backend-directory={root / 'backends'}")
    words.append(f"--backend-config=python,shm-region-prefix-name={prefix}")
    env = dict(launch.env)
    if (root / "lib").is_dir():
        known = os.environ.get("LD_LIBRARY_PATH")
        env.setdefault("LD_LIBRARY_PATH", os.pathsep.join([str(root / "lib"), *([known] if known else [])]))
    backends = (
        tuple(sorted(item.name for item in (root / "backends").iterdir())) if (root / "backends").is_dir() else ()
    )
    return Command(words, env, scratch, prefix, (scratch,), backends)
