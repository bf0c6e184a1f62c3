"""A small process that owns one server, so that the server never outlives whoever started it.

Run as a script, with the standard library alone, by ``process.start_warded``. Its standard input is a pipe that only
the starting process holds: when that process ends, however it ends, the pipe closes and the warden stops the server,
kills what is left of the server's process group, removes its shared memory and its scratch folder.
If the warden itself is killed, the kernel kills the server (``PR_SET_PDEATHSIG``).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL = 0.25
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where the Python backend puts its regions


def main() -> int:
    """Start the server that the one argument describes, wait, clean up, and end as it ended."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    # Orphaned stubs become children of this process, so that none is out of reach.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    stopping: list[float] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.append(0.0))
    server: subprocess.Popen[bytes] | None = None
    try:
        with open(spec["log"], "ab") as log:  # noqa: PTH123 - pathlib would double this script's start time
            server = subprocess.Popen(
                spec["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=spec["cwd"],
                start_new_session=True,
                # Safe here: there is one thread.
                preexec_fn=in_child,
            )
        print(f"pid {server.pid}", flush=True)  # noqa: T201 - this is what the starting process reads
        grace = _wait(server, spec["parent"], spec["grace"], stopping)
        if server.poll() is None:
            _terminate(server, grace)
    except OSError as error:
        print(f"error {error}", flush=True)  # noqa: T201
        return 127
    finally:
        _clean(server, spec)
    code = server.returncode
    return 128 - code if code < 0 else code


def _wait(server: subprocess.Popen[bytes], parent: int, grace: float, stopping: list[float]) -> float:
    """Wait until the server has ended or shall end; return how long it may take to end."""
    pipe = sys.stdin.fileno()
    while server.poll() is None:
        if stopping:
            return stopping[0]
        if os.getppid() != parent:
            # The pipe can stay open in a fork of the starting process: its own end decides.
            return grace
        readable, _, _ = select.select([pipe], [], [], _POLL)
        if readable:
            said = os.read(pipe, 256).decode(errors="replace").split()
            return float(said[1]) if len(said) == 2 and said[0] == "stop" else grace
    return grace


def _terminate(server: subprocess.Popen[bytes], grace: float) -> None:
    if grace > 0:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(grace)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _clean(server: subprocess.Popen[bytes] | None, spec: dict[str, Any]) -> None:
    if server is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, signal.SIGKILL)
        _kill_orphans()
    prefix = spec.get("shared_memory_prefix")
    if prefix:
        with contextlib.suppress(OSError):
            for name in os.listdir(_SHARED_MEMORY):  # noqa: PTH208
                if name.startswith(prefix):
                    os.unlink(os.path.join(_SHARED_MEMORY, name))  # noqa: PTH108, PTH118
    for folder in spec.get("remove", ()):
        shutil.rmtree(folder, ignore_errors=True)


def _kill_orphans() -> None:
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)


def _children() -> list[int]:
    me, found = str(os.getpid()), []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stream:  # noqa: PTH123
                if stream.read().rpartition(")")[2].split()[1] == me:
                    found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main())
