"""Look at a newcomer while it gets a share of the traffic: pass, fail, or inconclusive, which never passes.

Two sources, because neither sees everything: the proxy counts requests and broken connections of each slot, Triton
counts failures (over gRPC a failure is no HTTP status) and the time that requests took. What neither sees is an error
that a Python model answers; the golden cases before the first request are for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tritonforge.measure.gate import Verdict
from tritonforge.measure.metrics import FAILURE, SUCCESS, parse_metrics

DURATION: Final = "nv_inference_request_duration_us"
_LEAST_ANSWERS: Final = 5
_NOT_COMPARED: Final = f"; times not compared: no model has {_LEAST_ANSWERS} answers of both servers"


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one slot at one moment. ``requests`` and ``broken`` are the proxy's; the others are Triton's by
    model, None where its metrics could not be read."""

    requests: int
    broken: int
    success: Mapping[str, float] | None
    failure: Mapping[str, float] | None
    micros: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a newcomer must show; times in milliseconds."""

    min_requests: int
    failure_rate_max: float
    latency_ratio_max: float | None
    latency_floor_ms: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a slot did between two readings; ``problem`` says why its numbers cannot be used."""

    requests: int
    failures: int
    micros: Mapping[str, tuple[float, float]]
    """Time and number of successful requests by model."""
    problem: str | None = None

    @property
    def failure_rate(self) -> float:
        """Failures over requests; a failure whose request nobody counted makes it 1 at most."""
        return min(1.0, self.failures / max(1, self.requests, self.failures))


@dataclass(frozen=True, slots=True)
class Analysis:
    """The verdict at one weight, with its figures."""

    verdict: Verdict
    reason: str
    facts: Mapping[str, Any]


def reading(proxy: Mapping[str, Any], slot: str, metrics: str | None) -> Reading:
    """One slot's counters from the agent's ``proxy`` answer and the text of its metrics endpoint."""
    rows = [servers[slot] for servers in proxy.values() if slot in servers]
    requests = sum(int(row["stot"]) for row in rows)
    broken = sum(int(row["hrsp_5xx"]) + int(row["eresp"]) for row in rows)
    if metrics is None:
        return Reading(requests, broken, None, None, None)
    sums: dict[str, dict[str, float]] = {SUCCESS: {}, FAILURE: {}, DURATION: {}}
    for sample in parse_metrics(metrics):
        if sample.name in sums:
            model = sample.labels.get("model", "")
            sums[sample.name][model] = sums[sample.name].get(model, 0.0) + sample.value
    return Reading(requests, broken, sums[SUCCESS], sums[FAILURE], sums[DURATION])


def between(before: Reading, after: Reading) -> Seen:
    """What happened between two readings of one slot."""
    if after.success is None or before.success is None:
        return Seen(0, 0, {}, "its metrics could not be read")
    assert after.failure is not None and before.failure is not None
    assert after.micros is not None and before.micros is not None
    if after.requests < before.requests:
        return Seen(0, 0, {}, "the proxy's counters ran backwards: it was restarted")
    micros = {}
    for model, count in after.success.items():
        answered = count - before.success.get(model, 0.0)
        spent = after.micros.get(model, 0.0) - before.micros.get(model, 0.0)
        if answered < 0 or spent < 0:
            return Seen(0, 0, {}, "its counters ran backwards: it was restarted")
        if answered:
            micros[model] = (spent, answered)
    failed = sum(max(0.0, count - before.failure.get(model, 0.0)) for model, count in after.failure.items())
    return Seen(after.requests - before.requests, round(failed) + after.broken - before.broken, micros)


def enough(new: Seen, bounds: Bounds) -> bool:
    """Whether the newcomer answered as many requests as a verdict needs."""
    return new.problem is None and new.requests >= bounds.min_requests


def judge(new: Seen, old: Seen | None, bounds: Bounds) -> Analysis:
    """The verdict over a newcomer beside the server that it replaces (None: there is none).

    No traffic at all is a pass: there is nobody whom it could fail. Some, but too little, is inconclusive.
    """
    facts: dict[str, Any] = {"new": _facts(new)}
    if old is not None:
        facts["old"] = _facts(old)
    if new.problem is not None:
        return Analysis(Verdict.INCONCLUSIVE, f"the newcomer cannot be judged: {new.problem}", facts)
    if old is not None and old.problem is not None:
        return Analysis(Verdict.INCONCLUSIVE, f"the old server cannot be compared with: {old.problem}", facts)
    allowed = bounds.failure_rate_max + (0.0 if old is None else old.failure_rate)
    if new.failures and new.failure_rate > allowed:
        return Analysis(
            Verdict.FAIL, f"{new.failures} of {new.requests} requests failed ({new.failure_rate:.1%})", facts
        )
    total = new.requests + (0 if old is None else old.requests)
    if new.requests < bounds.min_requests and total:
        reason = f"only {new.requests} requests came to the newcomer, and {bounds.min_requests} are asked for"
        return Analysis(Verdict.INCONCLUSIVE, reason, facts)
    if not total:
        return Analysis(Verdict.PASS, "no requests came", facts)
    passed = Analysis(Verdict.PASS, f"{new.requests} requests, none worse", facts)
    if old is None or bounds.latency_ratio_max is None:
        return passed
    slow = _slower(new, old)
    if slow is None:
        return replace(passed, reason=passed.reason + _NOT_COMPARED)
    ratio, mean, model = slow
    facts["latency_ratio"] = round(ratio, 3)
    if ratio > bounds.latency_ratio_max and mean > bounds.latency_floor_ms:
        reason = f"'{model}' takes {mean:.1f} ms, {ratio:.1f} times as long as before"
        return Analysis(Verdict.FAIL, reason, facts)
    return passed


def _slower(new: Seen, old: Seen) -> tuple[float, float, str] | None:
    """The worst ratio of mean times among the models that both answered often enough, with the mean in ms."""
    found = None
    for model in new.micros.keys() & old.micros.keys():
        (spent, count), (spent_before, count_before) = new.micros[model], old.micros[model]
        if min(count, count_before) < _LEAST_ANSWERS or not spent_before:
            continue
        mean = spent / count
        ratio = mean / (spent_before / count_before)
        if found is None or ratio > found[0]:
            found = (ratio, mean / 1000.0, model)
    return found


def _facts(seen: Seen) -> dict[str, Any]:
    return {"requests": seen.requests, "failures": seen.failures, "problem": seen.problem}
