"""Judge a measured level against absolute objectives, with three verdicts.

A condition passes only when its whole interval meets the bound and fails only when its whole interval violates it;
everything else, and everything that is missing, is inconclusive, and inconclusive never passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tritonforge.errors import SpecError
from tritonforge.measure.level import Estimate, Level, Outcome
from tritonforge.measure.metrics import FailureCount

MIN_REQUESTS: Final = {50: 20, 95: 200, 99: 1000}
"""Requests that a percentile needs: ten beyond it, which puts p99 within about 10 % (facts from simulation)."""


class Verdict(StrEnum):
    """What a condition, a level or a gate comes to."""

    PASS = "pass"  # noqa: S105 - a verdict, no secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Slo:
    """Objectives for one level; None asks nothing. Throughput in inferences/s, latencies in milliseconds.

    ``error_rate_max`` is a share of requests. At 0 a single failure fails, and passing means that none was seen; a
    bound above 0 is judged by the interval of the observed rate.

    Raises:
        SpecError: a bound that is negative or no number.
    """

    throughput_min: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    error_rate_max: float = 0.0

    def __post_init__(self) -> None:
        for name in ("throughput_min", "p50_ms", "p95_ms", "p99_ms", "error_rate_max"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise SpecError(f"{name} must be a number of at least 0", found=str(value))
        if self.error_rate_max > 1:
            raise SpecError("error_rate_max is a share of requests", expected="0 to 1", found=str(self.error_rate_max))


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of a gate: what was measured, its 95 % interval, the bound, and the verdict with its reason."""

    name: str
    measured: float | None
    low: float | None
    high: float | None
    bound: float
    unit: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """All conditions at one concurrency; the worst of them is the verdict."""

    concurrency: int
    conditions: tuple[Condition, ...]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "concurrency": self.concurrency,
            "verdict": self.verdict.value,
            "conditions": [
                {name: getattr(item, name) for name in Condition.__slots__} | {"verdict": item.verdict.value}
                for item in self.conditions
            ],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> GateResult:
        conditions = tuple(Condition(**{**item, "verdict": Verdict(item["verdict"])}) for item in data["conditions"])
        return GateResult(data["concurrency"], conditions, Verdict(data["verdict"]))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Fail if any fails, inconclusive if any is inconclusive or there is none, else pass."""
    seen = set(verdicts)
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in seen:
            return verdict
    return Verdict.INCONCLUSIVE


def judge(slo: Slo, level: Level, failures: FailureCount | None) -> GateResult:
    """Judge one level; ``failures`` are the server's counts over the same time (None: unknown, never a pass)."""
    conditions: list[Condition] = []
    if slo.throughput_min is not None:
        conditions.append(_throughput(slo.throughput_min, level))
    for share, bound in ((50, slo.p50_ms), (95, slo.p95_ms), (99, slo.p99_ms)):
        if bound is not None:
            conditions.append(_latency(share, bound, level))
    conditions.append(_errors(slo.error_rate_max, level, failures))
    return GateResult(level.concurrency, tuple(conditions), worst(item.verdict for item in conditions))


def _throughput(bound: float, level: Level) -> Condition:
    figure = _usable(level, level.throughput)
    verdict, reason = _unmeasured(level, figure) or _compare(figure, bound, at_least=True)
    if verdict is Verdict.FAIL and level.client_limited:
        verdict, reason = Verdict.INCONCLUSIVE, "below the bound, but perf_analyzer could not send more"
    return _condition("throughput", figure, bound, "inferences/s", verdict, reason)


def _latency(share: int, bound: float, level: Level) -> Condition:
    figure = _usable(level, getattr(level, f"p{share}_us"))
    if figure is not None:
        low, high = (None if edge is None else edge / 1000 for edge in (figure.low, figure.high))
        figure = Estimate(figure.value / 1000, low, high, figure.windows)
    verdict, reason = _unmeasured(level, figure) or _compare(figure, bound, at_least=False)
    if verdict is not Verdict.INCONCLUSIVE and level.requests < MIN_REQUESTS[share]:
        verdict = Verdict.INCONCLUSIVE
        reason = f"{level.requests} requests are too few for p{share}: {MIN_REQUESTS[share]} are needed"
    if verdict is Verdict.PASS and level.client_limited:
        verdict, reason = Verdict.INCONCLUSIVE, "within the bound, but perf_analyzer could not keep up the load"
    return _condition(f"p{share}", figure, bound, "ms", verdict, reason)


def _errors(bound: float, level: Level, failures: FailureCount | None) -> Condition:
    known = failures is not None and failures.problem is None
    failed_at_server = failures.failure if failures is not None and known else 0
    failed = max(failed_at_server, level.errors)
    served = failures.success if failures is not None and known else 0
    total = max(served + failed_at_server, level.requests + level.errors)
    rate = failed / total if total else None
    # A count against zero tolerance is no estimate; anything else is, with Wilson's interval.
    low, high = (rate, rate) if bound == 0 or rate is None else wilson(failed, total)
    figure = None if rate is None else Estimate(rate, low, high, 0)

    def line(verdict: Verdict, reason: str) -> Condition:
        return _condition("error rate", figure, bound, "of requests", verdict, reason)

    said = f"{failed} of {total} requests failed"
    if low is not None and low > bound:
        return line(Verdict.FAIL, said)
    if failures is None:
        return line(Verdict.INCONCLUSIVE, "the server's failure counters were not read")
    if failures.problem is not None:
        return line(Verdict.INCONCLUSIVE, failures.problem)
    if level.outcome is not Outcome.MEASURED:
        return line(Verdict.INCONCLUSIVE, level.reason or f"the run ended {level.outcome.value}")
    if served + failed_at_server < level.requests:
        reason = f"the server counted {served + failed_at_server} requests, the client {level.requests}"
        return line(Verdict.INCONCLUSIVE, f"{reason}: these are not (all of) the servers that answered")
    if rate is None:
        return line(Verdict.INCONCLUSIVE, "no request was counted")
    if high is not None and high <= bound:
        return line(Verdict.PASS, said)
    return line(Verdict.INCONCLUSIVE, f"{said}: too few requests to tell on which side of the bound")


def wilson(failed: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: E. B. Wilson, JASA 22 (1927). Takes requests as independent."""
    z = 1.959964
    share = failed / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _usable(level: Level, figure: Estimate | None) -> Estimate | None:
    if figure is None or level.outcome is not Outcome.MEASURED or not math.isfinite(figure.value):
        return None
    return figure


def _unmeasured(level: Level, figure: Estimate | None) -> tuple[Verdict, str] | None:
    if figure is not None:
        return None
    return Verdict.INCONCLUSIVE, level.reason or f"not measured: the level ended {level.outcome.value}"


def _compare(figure: Estimate | None, bound: float, *, at_least: bool) -> tuple[Verdict, str]:
    if figure is None or figure.low is None or figure.high is None:
        windows = 0 if figure is None else figure.windows
        return Verdict.INCONCLUSIVE, f"{windows} windows are too few for an interval"
    # Written so that a NaN meets neither comparison.
    meets, violates = (
        (figure.low >= bound, figure.high < bound) if at_least else (figure.high <= bound, figure.low > bound)
    )
    if meets:
        return Verdict.PASS, "the whole interval meets the bound"
    if violates:
        return Verdict.FAIL, "the whole interval violates the bound"
    return Verdict.INCONCLUSIVE, "the interval contains the bound: measure longer, or on a quieter machine"


def _condition(name: str, figure: Estimate | None, bound: float, unit: str, verdict: Verdict, reason: str) -> Condition:
    if figure is None:
        return Condition(name, None, None, None, bound, unit, verdict, reason)
    return Condition(name, figure.value, figure.low, figure.high, bound, unit, verdict, reason)
