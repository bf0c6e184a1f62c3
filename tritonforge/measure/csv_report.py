"""Read perf_analyzer's ``-f`` CSV. Its rows are sorted by throughput, not by load, and unstable levels are missing."""

from __future__ import annotations

import csv
import io

from tritonforge.errors import CheckFailed
from tritonforge.measure.level import Reported

_LOAD = "Concurrency"


def parse_csv(text: str) -> dict[int, Reported]:
    """Concurrency → what perf_analyzer reports for it (inferences/s, microseconds).

    Raises:
        CheckFailed: there is no header, or a row is cut off.
    """
    # With --verbose-csv or --collect-metrics more columns follow, so columns go by name.
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    if _LOAD not in header or "Inferences/Second" not in header:
        raise CheckFailed("perf_analyzer's CSV has no header", found=text[:80] or "an empty file")
    rows: dict[int, Reported] = {}
    for fields in reader:
        if not fields:
            break  # a second table (composing models) follows an empty line
        if len(fields) < len(header) or not text.endswith("\n"):
            raise CheckFailed(
                "perf_analyzer's CSV is cut off",
                expected=f"{len(header)} columns",
                found=f"{len(fields)}: {','.join(fields)[:80]}",
            )
        row = dict(zip(header, fields, strict=False))
        try:
            rows[int(row[_LOAD])] = Reported(
                float(row["Inferences/Second"]), *(_microseconds(row, p) for p in (50, 90, 95, 99))
            )
        except ValueError as error:
            raise CheckFailed("perf_analyzer's CSV has a field that is no number", found=str(error)) from error
    return rows


def _microseconds(row: dict[str, str], share: int) -> float | None:
    value = row.get(f"p{share} latency", "")
    return float(value) if value else None
