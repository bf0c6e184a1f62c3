"""Figures in words: numbers, sizes, times and machines, as every view of a report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

NONE: Final = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Up to ``digits`` significant digits, plain where that is readable: ``1.2e-07``, ``0.0131``, ``1,940``."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e7:
        return f"{value:.{digits - 1}e}"
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def interval(low: float | None, high: float | None) -> str:
    """``2.1 to 3.4``."""
    if low is None or high is None:
        return NONE
    return f"{number(low)} to {number(high)}"


def share(value: float | None) -> str:
    """A share as a percentage; 100 % only where nothing is missing from it."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 1:
        return "100 %"
    return f"{min(value * 100, 99.99):.4g} %"


def size(value: int | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return NONE
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((max(value, 1).bit_length() - 1) // 10, len(units) - 1)
    amount = value / 1024**power
    return f"{amount:.0f} {units[power]}" if power == 0 or amount >= 100 else f"{amount:.3g} {units[power]}"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return NONE
    return "under 10 ms" if value < 0.01 else f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def moment(text: str | None) -> str:
    """``2026-11-21T04:39:36Z`` as ``2026-11-21 04:39:36 UTC``."""
    if not text:
        return NONE
    return text.replace("T", " ").removesuffix("Z") + " UTC" if text.endswith("Z") else text


def hardware_in_words(data: Mapping[str, Any] | None) -> str:
    """``AMD EPYC 7763, 4 CPUs usable, 16 GiB, 1 × NVIDIA L4``, from what ``Hardware.to_json`` gives."""
    if not data:
        return "unknown hardware"
    parts = [str(data.get("device") or data.get("cpu") or data.get("architecture") or "unknown processor")]
    usable = data.get("usable_cpus")
    if usable:
        parts.append(f"{usable} CPU{'s' if usable != 1 else ''} usable")
    if data.get("memory_bytes"):
        parts.append(size(int(data["memory_bytes"])))
    names = [str(gpu.get("model")) for gpu in data.get("gpus") or ()]
    parts += [f"{names.count(name)} × {name}" for name in sorted(set(names))]
    return ", ".join(parts)


def short(digest: str | None) -> str:
    """The first twelve characters of a digest, enough to name it by."""
    return NONE if not digest else digest[:12]
