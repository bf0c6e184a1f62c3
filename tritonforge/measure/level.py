"""What was measured at one concurrency: windows, estimates with their intervals, and what perf_analyzer itself said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

PERCENTILES: Final = (50, 90, 95, 99)
"""The latency percentiles that are estimated."""


class Outcome(StrEnum):
    """How a level ended. Only ``MEASURED`` carries figures that a gate may pass on."""

    MEASURED = "measured"
    UNSTABLE = "unstable"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of a run. Latencies in microseconds; None where no request ended in it."""

    start_ns: int
    end_ns: int
    requests: int
    throughput: float
    mean_us: float | None
    p50_us: float | None
    p90_us: float | None
    p95_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over the whole run, with a 95 % interval over its windows (None where they are too few)."""

    value: float
    low: float | None
    high: float | None
    windows: int


@dataclass(frozen=True, slots=True)
class Reported:
    """perf_analyzer's own CSV row: inferences/s and microseconds. For comparison only; gates do not use it."""

    throughput: float
    p50_us: float | None
    p90_us: float | None
    p95_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True)
class Level:
    """One concurrency of a run.

    ``requests`` counts answered requests in the windows, ``errors`` those that failed or were never answered.
    Throughput is in inferences/s (requests/s times ``batch_size``), latencies are in microseconds.
    ``client_limited`` is set when perf_analyzer said that it could not keep up with the load it was asked for.
    """

    concurrency: int
    batch_size: int
    outcome: Outcome
    requests: int = 0
    errors: int = 0
    duration_s: float = 0.0
    throughput: Estimate | None = None
    mean_us: Estimate | None = None
    p50_us: Estimate | None = None
    p90_us: Estimate | None = None
    p95_us: Estimate | None = None
    p99_us: Estimate | None = None
    windows: tuple[Window, ...] = ()
    reported: Reported | None = None
    client_limited: bool = False
    reason: str | None = None
    log_tail: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Level:
        values = dict(data)
        values["outcome"] = Outcome(values["outcome"])
        for name in ("throughput", "mean_us", *(f"p{p}_us" for p in PERCENTILES)):
            values[name] = None if values.get(name) is None else Estimate(**values[name])
        values["windows"] = tuple(Window(**item) for item in values.get("windows", ()))
        values["reported"] = None if values.get("reported") is None else Reported(**values["reported"])
        values["log_tail"] = tuple(values.get("log_tail", ()))
        return Level(**values)
