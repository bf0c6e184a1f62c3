"""Run one program in a process group of its own, so that a timeout or Ctrl-C leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonforge.errors import EnvironmentLacks, Interrupted

GRACE_S = 2.0
"""How long a stopped program may take to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code (negative for a signal), whether it ran out of time, and after how long."""

    code: int
    timed_out: bool
    seconds: float


def run_program(command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path, timeout_s: float) -> Ended:
    """Run ``command`` in ``folder`` with stdout and stderr in ``log``; ``env`` is added to this process's own.

    Raises:
        EnvironmentLacks: the program is absent, may not be run, or is no program for this machine.
        Interrupted: SIGINT came while it ran; its whole process group has been ended.
    """
    started = time.monotonic()
    with log.open("wb") as stream:
        try:
            child = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise _cannot_start(command[0], error) from error
        try:
            code = child.wait(timeout=timeout_s)
            return Ended(code, False, time.monotonic() - started)
        except subprocess.TimeoutExpired:
            return Ended(_end_group(child), True, time.monotonic() - started)
        except KeyboardInterrupt:
            _end_group(child)
            raise Interrupted(
                f"interrupted while {Path(command[0]).name} was measuring", hint="run the command again"
            ) from None
        finally:
            # Whatever else may have been raised, no load generator keeps hitting the server.
            if child.poll() is None:
                _end_group(child)


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """The last non-empty lines of a log, without the help that follows a wrong option; empty where there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ()
    text = text.partition("\nUsage: ")[0]
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def _end_group(child: subprocess.Popen[bytes]) -> int:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=GRACE_S)
            break
    # The leader may obey SIGTERM while a child of its own does not.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


def _cannot_start(program: str, error: OSError) -> EnvironmentLacks:
    hint = "install perf_analyzer, or name the right path"
    if error.errno == errno.EACCES:
        hint = "make it executable (chmod +x)"
    elif error.errno == errno.ENOEXEC:
        hint = "the file is no program: a stub package may have been installed in its place"
    return EnvironmentLacks(f"{program} cannot be started: {error.strerror}", hint=hint)
