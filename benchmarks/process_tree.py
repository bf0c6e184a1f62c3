"""What a command costs with all its descendants: wall time, CPU time, peak memory, bytes read. Linux only."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.02
TICK_SECONDS, STOOD_STILL_SECONDS = 0.2, 3.0


@dataclass(frozen=True, slots=True)
class Cost:
    """``cpu_s`` and ``read_bytes`` count the descendants that were waited for.

    ``read_bytes`` is what went through read(2) and its kin, from the disk or from memory; pages of mapped files are
    not in it. ``peak_bytes`` is the largest sum of proportional set sizes, sampled every 20 ms: a page that two
    processes share counts once. ``stopped_s`` is time in which this process stood still too, since somebody stopped
    both or the machine slept; it is not in ``wall_s``.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    read_bytes: int
    stopped_s: float = 0.0


def quiet_environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a measured process: a home of its own, and compiled modules of Python kept as for users."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"TRITONFORGE_HOME": str(home)} | dict(more or {})


def measure(command: Sequence[str], folder: Path, environment: Mapping[str, str], *, memory: bool = False) -> Cost:
    """Run a command to its end; ``memory`` watches its peak, which costs some CPU time beside it.

    Raises:
        SystemExit: with the end of what it said, when it fails.
    """
    log = folder / "benchmark.log"
    read = _read_bytes()
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        ended, peak, stopped = threading.Event(), [0], [0.0]
        watchers = [threading.Thread(target=_tick, args=(ended, stopped), daemon=True)]
        if memory:
            watchers.append(threading.Thread(target=_watch, args=(process.pid, ended, peak), daemon=True))
        for watcher in watchers:
            watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here, and not by Popen
    ended.set()
    for watcher in watchers:
        watcher.join()
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        raise SystemExit(f"{tail}\n\n{' '.join(command)}: exit status {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    return Cost(wall - stopped[0], cpu, peak[0], _read_bytes() - read, stopped[0])


def _read_bytes() -> int:
    """What this process read, with its descendants that ended: the kernel adds those when they are waited for."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def _tick(ended: threading.Event, stopped: list[float]) -> None:
    before = time.perf_counter()
    while not ended.wait(TICK_SECONDS):
        now = time.perf_counter()
        if now - before > STOOD_STILL_SECONDS:
            stopped[0] += now - before - TICK_SECONDS
        before = now


def _watch(pid: int, ended: threading.Event, peak: list[int]) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        peak[0] = max(peak[0], sum(_pss(process.pid) for process in tree))


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
