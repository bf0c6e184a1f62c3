"""What a benchmark holds its figures against: one row of the table that `make bench` prints."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Claim:
    """A bound on a ratio of what was measured to the alternative; ``at_least`` for a bound from below.

    A claim without ``bound`` is printed for information, and always holds.
    """

    goal: str
    measured: str
    alternative: str
    ratio: float
    bound: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the ratio keeps the bound."""
        if self.bound is None:
            return True
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def machine() -> dict[str, Any]:
    """What this ran on, and how busy that was."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in psutil.getloadavg()],
    }


def lines_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as a table: goal, measured, alternative, ratio, held."""
    cells = [["goal", "measured", "alternative", "ratio", "held"]]
    for row in rows:
        held = "–" if row["bound"] is None else "yes" if row["holds"] else "NO"
        cells.append([row["goal"], row["measured"], row["alternative"], f"{row['ratio']:.2f}", held])
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def finish(claims: Sequence[Claim], details: dict[str, Any], *, as_json: bool) -> int:
    """Print the claims, as one JSON object with ``details`` where asked; 1 where a bound does not hold."""
    rows = [claim.to_json() for claim in claims]
    if as_json:
        print(json.dumps({"machine": machine(), "rows": rows, **details}, indent=1, sort_keys=True))
    else:
        print("\n".join(lines_of(rows)))
    return int(not all(claim.holds for claim in claims))
