"""Start a server's program so that nothing of it outlives this process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tritonforge.errors import EnvironmentLacks

_WARDEN: Final = Path(__file__).with_name("warden.py")


class ServerProcess(Protocol):
    """A started server, wherever it runs."""

    @property
    def pid(self) -> int | None:
        """The server's process id on this machine; None in a container."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that the server has, as far as that is known."""

    def poll(self) -> int | None:
        """The exit code once it has ended."""

    def stop(self, grace: float) -> None:
        """End it: ask, wait up to ``grace`` seconds, kill. Does nothing the second time."""


@dataclass(frozen=True, slots=True)
class Command:
    """One program to start: its arguments, what its environment needs, and what to clear away after it."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    shared_memory_prefix: str | None = None
    remove: Sequence[Path] = field(default=())
    backends: tuple[str, ...] = ()


class WardedProcess:
    """A program under a warden (see ``warden.py``): it ends with this process, even if that is killed."""

    def __init__(self, warden: subprocess.Popen[bytes], pid: int, backends: tuple[str, ...]) -> None:
        self._warden = warden
        self._pid = pid
        self._backends = backends

    @property
    def pid(self) -> int | None:
        return self._pid

    @property
    def backends(self) -> tuple[str, ...]:
        return self._backends

    def poll(self) -> int | None:
        return self._warden.poll()

    def stop(self, grace: float) -> None:
        pipe = self._warden.stdin
        if pipe is None or pipe.closed:
            return
        with contextlib.suppress(OSError):
            pipe.write(f"stop {grace}\n".encode())
        with contextlib.suppress(OSError):
            pipe.close()
        try:
            self._warden.wait(grace + 20.0)
        except subprocess.TimeoutExpired:
            # The kernel then kills the server as well.
            self._warden.kill()
            self._warden.wait()


def start_warded(command: Command, log: Path, grace: float) -> WardedProcess:
    """Start ``command`` with its output appended to ``log``; ``grace`` is for the end of this process.

    Raises:
        EnvironmentLacks: the program cannot be started.
    """
    spec = {
        "argv": [str(part) for part in command.argv],
        "cwd": str(command.cwd),
        "log": str(log),
        "grace": grace,
        "parent": os.getpid(),
        "shared_memory_prefix": command.shared_memory_prefix,
        "remove": [str(path) for path in command.remove],
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        # The warden is given as bytes on the command line of an isolated interpreter: it starts in 30 ms.
        warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, **command.env},
            start_new_session=True,
        )
    answer = "" if warden.stdout is None else warden.stdout.readline().decode(errors="replace").strip()
    if not answer.startswith("pid "):
        warden.wait()
        raise EnvironmentLacks(f"{command.argv[0]} cannot be started", found=answer.removeprefix("error ") or None)
    return WardedProcess(warden, int(answer.split()[1]), command.backends)
