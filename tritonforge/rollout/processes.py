"""Programs of this machine that outlive the command that started them, known by process id and start time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Detached:
    """A started program; ``started`` (the kernel's ticks) tells it from a later one with the same number."""

    pid: int
    started: str


def started_at(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks (proc(5), stat field 22); None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def is_alive(unit: Detached) -> bool:
    """Whether that very program still runs."""
    return started_at(unit.pid) == unit.started


def start_detached(argv: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> Detached:
    """Start a program in a session of its own, its output in ``log`` (begun anew)."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **env},
            start_new_session=True,
            close_fds=True,
        )
    unit = Detached(process.pid, started_at(process.pid) or "")
    _OURS[process.pid] = process
    return unit


_OURS: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this process: they are waited for, or they would stay as zombies."""


def stop_detached(unit: Detached, grace: float) -> None:
    """Ask a program to end, wait up to ``grace`` seconds, then kill it and what it started."""
    ends = time.monotonic() + grace
    asked = False
    while is_alive(unit):
        if not asked:
            asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(unit.pid, signal.SIGTERM)
        if time.monotonic() >= ends:
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(unit.pid, signal.SIGKILL)
    ends = time.monotonic() + 5
    while is_alive(unit) and time.monotonic() < ends:
        time.sleep(0.02)
    child = _OURS.pop(unit.pid, None)
    if child is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
