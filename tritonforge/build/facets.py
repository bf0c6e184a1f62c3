"""The properties of this machine that a step's result can be tied to."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Final

from tritonforge.artifact.digest import digest_bytes
from tritonforge.errors import EnvironmentLacks

_SIMD: Final = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "sve")


@cache
def facet(name: str) -> str:
    """``processor``: architecture and vector extensions; ``gpu``: the names of the GPUs and the driver; ``libc``: the C
    library that code compiled here needs at least.

    Raises:
        EnvironmentLacks: a step's result is tied to a GPU and there is none.
    """
    if name == "processor":
        return f"{platform.machine()} {' '.join(_vector_extensions())}".strip()
    if name == "libc":
        return " ".join(platform.libc_ver()).strip() or platform.system()
    if name == "gpu":
        cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        if not cards:
            raise EnvironmentLacks("this step's result is tied to a GPU, and this machine has none")
        driver = Path("/proc/driver/nvidia/version")
        text = "".join(_model_line(card) for card in cards) + (driver.read_text() if driver.exists() else "")
        return f"{_model_line(cards[0])} {digest_bytes(text.encode())[:16]}"
    raise EnvironmentLacks(f"this tritonforge does not know the hardware facet '{name}'")


def _vector_extensions() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        if line.partition(":")[0].strip().lower() in ("flags", "features"):
            flags = set(line.partition(":")[2].split())
            return [name for name in _SIMD if name in flags]
    return []


def _model_line(card: Path) -> str:
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Model:"):
            return line.partition(":")[2].strip()
    return "unknown GPU"
