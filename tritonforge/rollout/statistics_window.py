"""What some models of one server did between two moments, by Triton's own statistics (its statistics extension)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tritonforge.errors import ForgeError
from tritonforge.rollout.analysis import Seen
from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection

Counters = Mapping[tuple[str, str], tuple[int, int, float]]
"""By model and version: answered, failed, microseconds of what was answered."""


def counters(connection: Connection, names: Iterable[str]) -> Counters | None:
    """The counters of these models now, as far as they are loaded; None where the server cannot be asked."""
    wanted = set(names)
    try:
        with Client(connection) as client:
            rows = client.statistics()["model_stats"]
    except ForgeError:
        return None
    found = {}
    for row in rows:
        if row["name"] in wanted:
            good, bad = row["inference_stats"]["success"], row["inference_stats"]["fail"]
            found[str(row["name"]), str(row["version"])] = (
                int(good.get("count", 0)),
                int(bad.get("count", 0)),
                int(good.get("ns", 0)) / 1000.0,
            )
    return found


def seen_between(before: Counters | None, after: Counters | None) -> Seen:
    """What happened in between; times go by model, whatever its version."""
    if before is None or after is None:
        return Seen(0, 0, {}, "the server's statistics could not be read")
    requests = failures = 0
    micros: dict[str, tuple[float, float]] = {}
    for (model, version), (good, bad, spent) in after.items():
        good_before, bad_before, spent_before = before.get((model, version), (0, 0, 0.0))
        if good < good_before or bad < bad_before:
            return Seen(0, 0, {}, "the server's counters ran backwards: it was restarted")
        requests += good - good_before + bad - bad_before
        failures += bad - bad_before
        known = micros.get(model, (0.0, 0.0))
        if good > good_before:
            micros[model] = (known[0] + spent - spent_before, known[1] + good - good_before)
    return Seen(requests, failures, micros)
