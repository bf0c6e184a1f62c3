"""Describe the machine on which something was measured, as far as plain files tell. Figures go with their machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as its driver describes it."""

    model: str
    uuid: str | None
    bus: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine: ``cores`` are physical, ``threads`` logical; memory in bytes; None where nothing could be read.

    ``usable_cpus`` is what this process may use (affinity; and the cgroup's quota in ``cpu_quota``, in CPUs).
    ``load_1m`` is the load average when this was read, so that a busy machine shows in the evidence.
    """

    cpu: str | None
    architecture: str
    cores: int | None
    threads: int | None
    usable_cpus: int
    cpu_quota: float | None
    memory_bytes: int | None
    kernel: str
    load_1m: float | None
    governor: str | None
    gpus: tuple[Gpu, ...] = ()
    gpu_driver: str | None = None
    device: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Hardware:
        return Hardware(**{**data, "gpus": tuple(Gpu(**gpu) for gpu in data.get("gpus", ()))})


def describe(root: Path = Path("/")) -> Hardware:
    """This machine; ``root`` is where ``proc`` and ``sys`` are looked for. Never fails: what is unreadable is None."""
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    meminfo = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE)
    load = (_read(root / "proc/loadavg") or "").split()
    driver = re.search(
        r"Kernel Module[^\n]*?\s(\d+\.\d+(?:\.\d+)?)\s", _read(root / "proc/driver/nvidia/version") or ""
    )
    governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    # Jetson boards name themselves in the device tree, NUL-terminated; servers have no such file.
    device = _read(root / "proc/device-tree/model")
    return Hardware(
        cpu=_cpu_model(cpuinfo),
        architecture=platform.machine(),
        cores=_physical_cores(cpuinfo),
        threads=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        usable_cpus=len(os.sched_getaffinity(0)),
        cpu_quota=_cpu_quota(root),
        memory_bytes=int(meminfo[1]) * 1024 if meminfo else None,
        kernel=platform.release(),
        load_1m=float(load[0]) if load else None,
        governor=governor.strip() if governor else None,
        gpus=_gpus(root / "proc/driver/nvidia/gpus"),
        gpu_driver=driver[1] if driver else None,
        device=device.rstrip("\0\n") if device else None,
    )


def _cpu_model(cpuinfo: str) -> str | None:
    # x86 says "model name"; arm64 has only numbers, and boards may add "Model" or "Hardware".
    for key in ("model name", "Model", "Hardware", "CPU part"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        if match:
            return match[1].strip() if key != "CPU part" else f"ARM CPU part {match[1].strip()}"
    return None


def _physical_cores(cpuinfo: str) -> int | None:
    cores = set()
    for block in cpuinfo.split("\n\n"):
        ids = [re.search(rf"^{key}\s*:\s*(\d+)", block, re.MULTILINE) for key in ("physical id", "core id")]
        if all(ids):
            cores.add(tuple(match[1] for match in ids if match))
    return len(cores) or None


def _cpu_quota(root: Path) -> float | None:
    quota = (_read(root / "sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]) > 0:
        return int(quota[0]) / int(quota[1])
    return None


def _gpus(folder: Path) -> tuple[Gpu, ...]:
    found = []
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return ()
    for name in names:
        text = _read(folder / name / "information") or ""
        model = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
        uuid = re.search(r"^GPU UUID:\s*(\S+)", text, re.MULTILINE)
        found.append(Gpu(model[1].strip() if model else "unknown", uuid[1] if uuid else None, name))
    return tuple(found)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
